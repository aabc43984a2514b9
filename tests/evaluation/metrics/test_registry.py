"""A metric is one file of the package: nothing else needs to know of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation import metrics as package
from pagoda.evaluation.evaluator import Evaluator, evaluate
from pagoda.evaluation.features.base import Extractor, Features
from pagoda.evaluation.metrics import base
from pagoda.evaluation.metrics.base import Settings, metric_names, protocol, size
from pagoda.evaluation.reference import from_sample, reference_card
from pagoda.evaluation.streaming import StoredImages, collect

FILE = '''"""The largest feature of generated over that of real images."""

from pagoda.evaluation.metrics.base import Comparison, Metric
from pagoda.rows import Row


def peak(c: Comparison) -> Row:
    return c.row("peak", float(c.made.features.max() / c.real.kept.max()), len(c.real.kept))


PEAK = Metric("peak", {"peak": "Peak"}, peak, ("features", "real"), "higher", pipeline="any")
'''


@pytest.fixture
def peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "peak.py").write_text(FILE, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    base.metrics.cache_clear()
    yield
    base.metrics.cache_clear()


@pytest.mark.usefixtures("peak")
def test_a_file_is_all_that_a_metric_takes() -> None:
    """Asked for by its name, its needs met, its row traced, its label and direction known."""

    def forward(images: np.ndarray, spatial: bool) -> Features:  # type: ignore[type-arg]
        import torch

        return Features(torch.from_numpy(images).double().mean((2, 3)))

    network = Extractor("means", "custom", 3, None, None, {}, "f", forward, 8)
    rng = np.random.default_rng(0)
    real, made = (StoredImages(w, rng.integers(0, 99, (20, 3, 4, 4), np.uint8)) for w in "rm")
    (sample,) = collect(real, [(network, {"features"})])
    card = reference_card(network, images="i", recipe=None, resolution=4, split="train", n=20,
                          manifold_n=20)  # fmt: skip
    keys = metric_names("peak,fd", "means")
    evaluator = Evaluator(network, from_sample("reference", sample, card), keys)
    row, other = evaluate({"m": made}, [evaluator], Settings(), {"seed": 3})
    means = [images.read(np.arange(20)).mean((2, 3)).max() for images in (made, real)]
    assert row.value == pytest.approx(means[0] / means[1], rel=1e-6)
    assert (row.protocol, row.generator, row.seed, row.n) == ("peak_means_20", "m", 3, 20)
    assert row.reference == card["identity"] and row.features == "f" and other.metric == "fd"
    assert base.labels()["peak"] == "Peak ↑" and "peak" in base.larger_is_better()


def test_without_its_file_there_is_none() -> None:
    with pytest.raises(PagodaError, match=r"--metrics peak is unknown; known: .*, prdc, fd, "):
        metric_names("peak", "means")


def test_every_name_in_rows_has_one_owner() -> None:
    names = [name for metric in base.metrics().values() for name in metric.labels]
    assert len(names) == len(set(names)) and {"fid", "recall", "train_share"} <= set(names)
    aliases = [m.alias for m in base.metrics().values() if m.alias]
    assert not set(aliases) & set(base.metrics()) and len(aliases) == len(set(aliases))


@pytest.mark.parametrize(
    ("n", "name"),
    [(50000, "50k"), (2048, "2k"), (10000, "10k"), (500, "500"), (1500, "1500"), (64, "64")],
)
def test_sizes(n: int, name: str) -> None:
    assert size(n) == name


def test_names_carry_distance_features_and_n() -> None:
    assert protocol("fd", "classifier", 2048) == "fd_classifier_2k"
    assert protocol("precision", "classifier", 50000, k=3) == "precision_classifier_50k_k3"
