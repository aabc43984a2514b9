"""Networks of the user's, and what every extractor promises about batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import open_extractor
from pagoda.evaluation.features.custom import open_custom
from tests.evaluation.features.stand_ins import noise

CPU = torch.device("cpu")
_MODULE = '''
import torch

weight = torch.linspace(-1, 1, 3 * 5).reshape(3, 5)

def colours(images):
    """Mean colour through a matrix, with logits."""
    features = (images.float().mean((2, 3)) / 255) @ weight
    return features, features[:, :2]

def wrong(images):
    return [1, 2, 3]

def flat(images):
    return images.float().mean((1, 2, 3))

def relative(images):
    x = images.float().mean((2, 3))
    return x - x.mean(0)

constant = 3
'''


class Means(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, stride=3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x.float() / 255)).mean((2, 3)))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"net_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.fixture
def torchscript(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "my net.pt"
    torch.jit.script(Means().eval()).save(str(path))
    return path


def test_a_function(module: str) -> None:
    images = noise(7)
    extractor = open_custom(f"{module}:colours", CPU, 4)
    found = extractor(images)
    means = images.reshape(7, 3, -1).mean(2) / 255
    expected = means @ np.linspace(-1, 1, 15).reshape(3, 5)
    np.testing.assert_allclose(found.pooled, expected, rtol=1e-5, atol=1e-6)
    assert found.logits is not None and np.array_equal(found.logits, found.pooled[:, :2])
    assert (extractor.dim, extractor.classes) == (5, 2)
    assert extractor.name == f"custom_{module}_colours"


def test_a_torchscript_file(torchscript: Path) -> None:
    images = noise(5)
    extractor = open_custom(str(torchscript), CPU, 2)
    with torch.inference_mode():
        expected = torch.jit.load(str(torchscript))(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(extractor(images).pooled, expected, rtol=1e-5, atol=1e-6)
    assert extractor.name == "custom_my_net" and extractor.classes is None


def test_features_do_not_depend_on_where_an_image_stands(torchscript: Path) -> None:
    """Same bits in any order and number; the size of a call changes the last digits only."""
    images = noise(21)
    extractor = open_custom(str(torchscript), CPU, 8)
    whole = extractor(images).pooled
    order = np.random.default_rng(1).permutation(21)
    assert np.array_equal(extractor(images[order]).pooled, whole[order])
    pieces = [extractor(images[a:b]).pooled for a, b in ((0, 1), (1, 12), (12, 21))]
    assert np.array_equal(np.concatenate(pieces), whole)
    for batch in (1, 3, 64):
        other = open_custom(str(torchscript), CPU, batch)(images).pooled
        assert np.abs(other - whole).max() <= 1e-5 * np.abs(whole).max()


def test_content_decides_the_fingerprint(torchscript: Path, module: str) -> None:
    first = open_custom(str(torchscript), CPU, 2)
    torch.jit.script(Means().eval()).save(str(torchscript))
    assert open_custom(str(torchscript), CPU, 2).fingerprint != first.fingerprint
    assert (
        open_custom(f"{module}:colours", CPU, 2).fingerprint
        == open_custom(f"{module}:colours", CPU, 3).fingerprint
    )


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("wrong", "returns list; it must return a tensor"),
        ("flat", r"gives \(2,\) for 2 images; it must give \(2, dimension\)"),
        ("relative", "depend on the others of its batch"),
        ("constant", "cannot be called"),
        ("absent", "cannot import"),
    ],
)
def test_a_network_that_will_not_do(module: str, name: str, wanted: str) -> None:
    with pytest.raises(PagodaError, match=wanted) as raised:
        open_custom(f"{module}:{name}", CPU, 2)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("resnet", "unknown extractor 'resnet'"),
        ("classifier", "unknown extractor 'classifier'"),
        ("custom:none.pt", "there is no none.pt"),
        ("custom:no_such_module:f", "cannot import no_such_module:f"),
        ("classifier:nowhere", "nowhere is missing"),
        ("inception:other", "no mode 'other'"),
        ("dinov2:vitl14:other", "no 'other'; it is one of dgm, edm2"),
    ],
)
def test_unknown_names(text: str, wanted: str) -> None:
    with pytest.raises(PagodaError, match=wanted):
        open_extractor(text, CPU, 2)


def test_images_of_the_wrong_kind(torchscript: Path) -> None:
    extractor = open_custom(str(torchscript), CPU, 2)
    for images in (noise(2).astype(np.float32), noise(2)[:, :1], noise(2)[0]):
        with pytest.raises(PagodaError, match="extractors take uint8 RGB"):
            extractor(images)
