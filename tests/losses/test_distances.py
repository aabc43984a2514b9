"""Distances of the regression losses."""

from __future__ import annotations

from pathlib import Path

import lpips
import piq
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import vgg

from pagoda.errors import PagodaError
from pagoda.losses.distances import LpipsDistance, ProjectedDistance, feature_distance

SMALL = ["test_vit", "test_efficientnet"]


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape) * 2 - 1


def test_projected_distance_is_the_formula() -> None:
    """Sum over maps and channels, mean over pixels and batch, of differences of unit vectors."""
    distance = ProjectedDistance(SMALL, "random", 0)
    a, b = images(2, 3, 16, 16), images(2, 3, 16, 16)
    expected = torch.zeros(())
    for network in distance.networks:
        for x, y in zip(network(a), network(b), strict=True):
            difference = F.normalize(x, dim=1) - F.normalize(y, dim=1)
            expected += difference.square().sum(1).mean()
    torch.testing.assert_close(distance(a, b), expected, rtol=1e-4, atol=0)
    assert distance(a, a) == 0


def test_features_of_half_precision_have_the_distance_of_their_values() -> None:
    """Squares of 400 overflow in float16, and of a map of zeros the eps is 0 there."""
    large, none = torch.full((1, 4, 2, 2), 400.0), torch.zeros(1, 4, 2, 2)
    large[:, 0] = -400.0
    a, b = [large, none], [large.abs(), none]
    assert float(feature_distance([x.half() for x in a], [x.half() for x in b])) == pytest.approx(
        float(feature_distance(a, b)), rel=1e-6
    )
    assert float(feature_distance(a, b)) == pytest.approx(0.5)  # of two maps, (2 / sqrt 4)^2 and 0


def test_small_images_are_resized_before_they_are_augmented() -> None:
    distance = ProjectedDistance(["test_efficientnet"], "random", 0, side=64)
    a, b = images(2, 3, 16, 16), images(2, 3, 16, 16)
    sides = []

    def seen(x: torch.Tensor, k: int) -> torch.Tensor:
        sides.append(x.shape[-1])
        return x

    large = [F.interpolate(x, (64, 64), mode="bilinear") for x in (a, b)]
    torch.testing.assert_close(distance(a, b, seen), distance(*large))
    assert sides == [64, 64]


def test_both_images_are_augmented_alike_once_a_network() -> None:
    distance = ProjectedDistance(["test_efficientnet"] * 2, "random", 0)
    a, b = images(2, 3, 256, 256), images(2, 3, 256, 256)

    def halved(x: torch.Tensor, k: int) -> torch.Tensor:
        seen.append(k)
        return x / 2

    seen: list[int] = []
    torch.testing.assert_close(distance(a, b, halved), distance(a / 2, b / 2))
    assert seen == [0, 0, 1, 1] and distance.views == 2
    assert LpipsDistance("random").views == 1


@pytest.mark.longer
@pytest.mark.parametrize("kind", ["projected", "lpips"])
def test_gradient_reaches_the_generated_image_alone(kind: str) -> None:
    distance: nn.Module = (
        ProjectedDistance(["test_efficientnet"], "random", 0)
        if kind == "projected"
        else LpipsDistance("random")
    )
    a = images(1, 3, 16, 16).requires_grad_(True)
    b = images(1, 3, 16, 16)
    distance.requires_grad_(True)
    loss = distance(a, b)
    loss.backward()
    assert loss.ndim == 0 and a.grad is not None and a.grad.isfinite().all()
    assert a.grad.abs().sum() > 0 and not list(distance.parameters())
    if kind == "lpips":
        assert not distance.state_dict()
    else:
        frozen = distance.networks[0].backbone._frozen[0]  # type: ignore[index, union-attr]
        assert all(p.grad is None for p in frozen.parameters())


@pytest.mark.longer
def test_lpips_equals_piq_with_the_same_weights(tmp_path: Path) -> None:
    features = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
    state = {f"features.{k}": v for k, v in features.state_dict().items()}
    torch.save(state | {"classifier.0.bias": torch.zeros(1)}, tmp_path / "vgg16.pth")
    heads = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).lins
    theirs = piq.ContentLoss(
        features, layers=["3", "8", "15", "22", "29"],  # relu1_2, 2_2, 3_3, 4_3, 5_3
        weights=[h.model[-1].weight for h in heads], replace_pooling=True, normalize_features=True,
    )  # fmt: skip
    a, b = images(1, 3, 256, 256), images(1, 3, 256, 256)  # seen as they are
    expected = theirs((a + 1) / 2, (b + 1) / 2)
    torch.testing.assert_close(LpipsDistance(str(tmp_path))(a, b), expected, rtol=1e-3,
                               atol=1e-6)  # fmt: skip


@pytest.mark.slow
def test_lpips_is_the_mean_over_the_batch() -> None:
    distance, a, b = LpipsDistance("random"), images(2, 3, 32, 32), images(2, 3, 32, 32)
    single = torch.stack([distance(a[i : i + 1], b[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(distance(a, b), single.mean(), rtol=1e-4, atol=0)
    assert distance(a, a) == 0 and LpipsDistance("random")(a, b) == distance(a, b)


@pytest.mark.longer
def test_weights_of_another_network_are_one_line(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg16.pth")
    with pytest.raises(PagodaError, match="does not hold the weights of vgg16-397923af") as caught:
        LpipsDistance(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_missing_weights_of_lpips_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(PagodaError, match=r"holds no vgg16\.safetensors and no vgg16\.pth"):
        LpipsDistance(str(tmp_path))


def test_lpips_that_cannot_be_downloaded_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None, raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(PagodaError, match=r"weights of vgg16 are neither") as caught:
        LpipsDistance("pretrained")
    assert "\n" not in str(caught.value)
