"""DINOv2 through ``torch.hub``, with a repository of the same entry points made here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms

from pagoda.errors import PagodaError
from pagoda.evaluation.features import dinov2
from pagoda.evaluation.features.dinov2 import COMMIT, NETWORKS, open_dinov2, weight_file
from pagoda.evaluation.features.resize import IMAGENET_MEAN, IMAGENET_STD, normalise, pil_bicubic
from tests.evaluation.features.stand_ins import noise

CPU = torch.device("cpu")

_HUBCONF = """
dependencies = ["torch"]
from dinov2.hub.backbones import dinov2_vits14, dinov2_vitl14
"""
_BACKBONES = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 14, 14)

    def forward(self, x):
        assert x.shape[2:] == (224, 224)
        return self.patch(x).mean((2, 3))

def dinov2_vits14(*, pretrained=True):
    assert not pretrained
    return Tiny(6)

def dinov2_vitl14(*, pretrained=True):
    assert not pretrained
    return Tiny(8)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "checkout"
    (folder / "dinov2" / "hub").mkdir(parents=True)
    (folder / "hubconf.py").write_text(_HUBCONF)
    (folder / "dinov2" / "__init__.py").touch()
    (folder / "dinov2" / "hub" / "__init__.py").touch()
    (folder / "dinov2" / "hub" / "backbones.py").write_text(_BACKBONES)
    yield folder
    for name in [n for n in sys.modules if n.split(".")[0] == "dinov2"]:
        del sys.modules[name]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / weight_file("vitl14").name
    torch.manual_seed(0)
    state = torch.nn.Conv2d(3, 8, 14, 14).state_dict()
    torch.save({f"patch.{key}": value for key, value in state.items()}, path)
    return path


def patch_features(weights: Path, x: torch.Tensor) -> np.ndarray:
    state = torch.load(weights)
    maps = F.conv2d(x, state["patch.weight"], state["patch.bias"], stride=14)
    return maps.mean((2, 3)).numpy()


def test_as_dgm_eval(repository: Path, weights: Path) -> None:
    """Their transform, torchvision's on a Pillow image, gives the same pixels to the bit."""
    images = noise(3, 60, 60)
    theirs = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)),
        ]
    )
    x = torch.stack([theirs(Image.fromarray(i)) for i in images.transpose(0, 2, 3, 1)])
    assert torch.equal(normalise(torch.from_numpy(pil_bicubic(images, 224))), x)
    extractor = open_dinov2("vitl14", "dgm", CPU, 3, weights, repository)
    assert (extractor.name, extractor.dim, extractor.classes) == ("dinov2_vitl14_dgm", 8, None)
    np.testing.assert_allclose(
        extractor(images).pooled, patch_features(weights, x), rtol=1e-5, atol=1e-6
    )


def test_as_edm2(repository: Path, weights: Path) -> None:
    """Bicubic in float: it overshoots 0..255 at edges, and nobody clamps it."""
    images = np.where(noise(3, 60, 60) > 127, 255, 0).astype(np.uint8)
    x = F.interpolate(torch.from_numpy(images).float(), (224, 224), mode="bicubic", antialias=True)
    assert x.min() < 0 and x.max() > 255
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    extractor = open_dinov2("vitl14", "edm2", CPU, 3, weights, repository)
    expected = patch_features(weights, (x / 255 - mean) / std)
    np.testing.assert_allclose(extractor(images).pooled, expected, rtol=1e-5, atol=1e-6)
    other = open_dinov2("vitl14", "dgm", CPU, 3, weights, repository)
    assert extractor.fingerprint != other.fingerprint
    assert np.abs(other(images).pooled - expected).max() > 1e-4


def test_code_and_weights_decide_the_fingerprint(repository: Path, weights: Path) -> None:
    before = open_dinov2("vitl14", "dgm", CPU, 3, weights, repository).fingerprint
    assert open_dinov2("vitl14", "dgm", CPU, 8, weights, repository).fingerprint == before
    with (repository / "dinov2" / "hub" / "backbones.py").open("a") as stream:
        stream.write("# edited\n")
    assert open_dinov2("vitl14", "dgm", CPU, 3, weights, repository).fingerprint != before


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where code that torch.hub fetched lies; nothing is there yet."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"), raising=False)
    return tmp_path / "hub" / f"facebookresearch_dinov2_{COMMIT}"


def test_code_in_the_cache_that_is_not_the_commits_is_not_run(
    repository: Path, weights: Path, hub: Path
) -> None:
    (repository / "hubconf.py").write_text(f"open({str(hub.parent / 'ran')!r}, 'w')\n" + _HUBCONF)
    shutil.copytree(repository, hub)
    for download in (False, True):
        with pytest.raises(PagodaError, match=f"is not the code of .* at {COMMIT[:7]}, so it is"):
            open_dinov2("vitl14", "dgm", CPU, 2, weights, download=download)
    assert os.listdir(hub.parent) == [hub.name]
    open_dinov2("vitl14", "dgm", CPU, 2, weights, repository)  # named, so trusted: it runs
    assert (hub.parent / "ran").exists()


@pytest.mark.parametrize("sound", [True, False])
def test_code_is_fetched_and_looked_at_before_it_runs(
    sound: bool, repository: Path, weights: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive as GitHub makes it, with one folder named after the commit."""
    archive = shutil.make_archive(
        str(repository.with_name("code")), "zip", repository.parent, repository.name
    )
    monkeypatch.setattr(dinov2, "_CODE_URL", Path(archive).as_uri())
    if sound:
        monkeypatch.setattr(dinov2, "CODE", dinov2.code_digest(repository))
        found = open_dinov2("vitl14", "dgm", CPU, 2, weights, download=True)
        named = open_dinov2("vitl14", "dgm", CPU, 2, weights, repository)
        assert found.fingerprint == named.fingerprint and found.card["commit"] == COMMIT
    else:
        with pytest.raises(PagodaError, match="is not the code of"):
            open_dinov2("vitl14", "dgm", CPU, 2, weights, download=True)
        assert "dinov2" not in sys.modules
    assert os.listdir(hub.parent) == [hub.name]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.zip", __file__])
def test_code_that_cannot_be_fetched_is_one_line(
    url: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dinov2, "_CODE_URL", url if "://" in url else Path(url).as_uri())
    with pytest.raises(PagodaError, match=r"cannot download the code of .*--hub FOLDER") as raised:
        open_dinov2("vitl14", "dgm", CPU, 2, download=True)
    assert "\n" not in str(raised.value) and os.listdir(hub.parent) == []


def test_weights_of_nothing_are_refused(repository: Path, weights: Path) -> None:
    state = torch.load(weights)
    torch.save({k: v * torch.nan for k, v in state.items()}, weights)
    with pytest.raises(PagodaError, match=r"no weights of dinov2_vitl14: .*holds NaN or infinity"):
        open_dinov2("vitl14", "dgm", CPU, 2, weights, repository)


def test_what_is_missing_is_one_line(
    repository: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for arguments, wanted in (
        ((None, None), rf"no DINOv2 code: .*{COMMIT[:7]}.*--hub FOLDER, or let --download"),
        ((None, tmp_path), "no checkout of facebookresearch/dinov2: it has no hubconf.py"),
        ((None, repository), r"no DINOv2 weights: dinov2_vitl14_pretrain.pth .*--weights FILE"),
    ):
        with pytest.raises(PagodaError, match=wanted) as raised:
            open_dinov2("vitl14", "dgm", CPU, 2, *arguments)
        assert "\n" not in str(raised.value)
    with pytest.raises(PagodaError, match="are no weights of dinov2_vits14"):
        open_dinov2("vits14", "dgm", CPU, 2, weights, repository)
    with pytest.raises(PagodaError, match=f"no 'vitx14'; it is one of {', '.join(NETWORKS)}"):
        open_dinov2("vitx14", "dgm", CPU, 2, weights, repository)
    with pytest.raises(PagodaError, match="does not make dinov2_vitb14"):
        open_dinov2("vitb14", "dgm", CPU, 2, weights=weights, code=repository)
