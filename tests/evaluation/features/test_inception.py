"""Inception through clean-fid's own loaders, with stand-in weights under the published names."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid import features as cleanfid_features
from cleanfid import inception_pytorch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from torch.nn import functional as F

from pagoda.errors import PagodaError
from pagoda.evaluation.features import inception
from pagoda.evaluation.features.inception import MODES, open_inception, resize, weight_file
from pagoda.evaluation.features.resize import tensorflow_bilinear
from pagoda.weight_files import WeightFile, find_weights
from tests.evaluation.features.stand_ins import noise, publish, write_inception

CPU = torch.device("cpu")
NAME = "inception-2015-12-05.pt"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / NAME
    write_inception(path)
    return path


@pytest.fixture(autouse=True)
def _published(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(weights, monkeypatch)


@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow"])
def test_features_are_those_of_clean_fid(weights: Path, mode: str) -> None:
    """Bit for bit what clean-fid's wrapper makes of images that its resizer made."""
    images = noise(5)
    theirs = InceptionV3W(str(weights.parent), download=False, resize_inside=mode != "clean")
    resized = [build_resizer(mode)(image) for image in images.transpose(0, 2, 3, 1)]
    x = torch.from_numpy(np.stack(resized).transpose(0, 3, 1, 2).copy()).float()
    with torch.inference_mode():
        expected = theirs(x).numpy()
    extractor = open_inception(mode, CPU, 5, weights)
    found = extractor(images)
    assert np.array_equal(found.pooled, expected)
    assert (extractor.name, extractor.family, extractor.dim) == (f"inception_{mode}", "inception",
                                                                 2048)  # fmt: skip


@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow"])
def test_spatial_features_and_logits(weights: Path, mode: str) -> None:
    """The map is the first 7 channels of mixed_6/conv, channels last; logits have no bias."""
    images = noise(3)
    network = torch.jit.load(str(weights))
    resized = {
        "clean": torch.from_numpy(resize(images, "clean")),
        "legacy_tensorflow": tensorflow_bilinear(torch.from_numpy(images), 299),
    }
    x = resized[mode]
    with torch.inference_mode():
        maps = network.layers.mixed_6.conv(network.layers.conv((x - 128) / 128)).numpy()
    extractor = open_inception(mode, CPU, 3, weights)
    found, plain = extractor(images, spatial=True), extractor(images)
    assert found.spatial is not None and found.logits is not None
    side = maps.shape[2]
    assert found.spatial.shape == (3, side * side * 7) == (3, extractor.spatial_dim)
    for i, row, column, channel in ((0, 0, 0, 0), (1, 4, 2, 6), (2, side - 1, 3, 5)):
        there = found.spatial[i].reshape(side, side, 7)[row, column, channel]
        assert there == maps[i, channel, row, column]
    assert np.array_equal(found.pooled, plain.pooled) and plain.spatial is None
    with_bias = network.output(torch.from_numpy(found.pooled)).detach().numpy()
    bias = network.output.bias.detach().numpy()
    np.testing.assert_allclose(found.logits, with_bias - bias, atol=1e-5)


def test_the_tensorflow_grid_is_the_one_inside_the_network() -> None:
    """``i * in / out`` by hand on a ramp, and against ``grid_sample`` in the stand-in's formula."""
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    wide = tensorflow_bilinear(ramp, 8)[0, 0, 0]
    assert wide.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.0]
    x = torch.from_numpy(noise(2, 24, 64)).float()
    theta = torch.eye(2, 3)
    theta[0, 2] += 1 / 64 - 1 / 299
    theta[1, 2] += 1 / 24 - 1 / 299
    grid = F.affine_grid(theta.repeat(2, 1, 1), [2, 3, 299, 299], align_corners=False)
    expected = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    assert (tensorflow_bilinear(x, 299) - expected).abs().max() < 0.01


@pytest.mark.parametrize("mode", MODES)
def test_the_resizer_is_clean_fids(mode: str) -> None:
    images = noise(4, 52, 36)
    expected = [build_resizer(mode)(image) for image in images.transpose(0, 2, 3, 1)]
    found = resize(images, mode)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.stack(expected).transpose(0, 3, 1, 2))


def test_the_ported_network_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real architecture of pytorch-fid with random weights, loaded by clean-fid's code."""
    with monkeypatch.context() as patch:
        patch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr("torchvision.models.Inception3.load_state_dict", lambda *a, **k: None)
        network = inception_pytorch.fid_inception_v3().eval()
    path = tmp_path / "another name.pth"
    torch.save(network.state_dict(), path)
    before, images = torch.hub.get_dir(), noise(2)
    extractor = open_inception("legacy_pytorch", CPU, 2, path)
    assert torch.hub.get_dir() == before
    found = extractor(images, spatial=True)
    seen: list[torch.Tensor] = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda *a: seen.append(a[2]))
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        x = torch.from_numpy(resize(images, "legacy_pytorch")) / 255
        expected = network(2 * x - 1).numpy()
    np.testing.assert_allclose(found.pooled, expected, rtol=1e-5, atol=1e-6)
    assert found.spatial is not None and found.spatial.shape == (2, 17 * 17 * 7)
    there = found.spatial.reshape(2, 17, 17, 7).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(there, seen[0][:, :7].numpy(), rtol=1e-4, atol=1e-5)
    assert extractor.classes == 1008


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(
    value: float, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = torch.jit.load(str(weights))
    with torch.no_grad():
        network.layers.last.weight.fill_(value)
    network.save(str(tmp_path / NAME))
    publish(tmp_path / NAME, monkeypatch)
    with pytest.raises(PagodaError, match="NaN or infinity"):
        open_inception("clean", CPU, 2, tmp_path)


def test_weights_decide_the_fingerprint(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / NAME
    write_inception(other, spatial=False)
    opened = [open_inception("clean", CPU, 2, weights), open_inception("clean", CPU, 7, weights),
              open_inception("legacy_tensorflow", CPU, 2, weights)]  # fmt: skip
    publish(other, monkeypatch)
    opened.append(open_inception("clean", CPU, 2, other))
    prints = [extractor.fingerprint for extractor in opened]
    assert prints[0] == prints[1] and len(set(prints)) == 3
    assert opened[3].spatial_dim is None
    with pytest.raises(PagodaError, match="inception_clean has no spatial features"):
        opened[3](noise(2), spatial=True)


def test_where_weights_are_looked_for(weights: Path, tmp_path: Path) -> None:
    """A file under any name, a folder, the usual places; nothing is fetched unasked."""
    renamed = tmp_path / "weights of mine.pt"
    renamed.write_bytes(weights.read_bytes())
    images = noise(2)
    by_folder = open_inception("clean", CPU, 2, weights.parent)(images).pooled
    assert np.array_equal(open_inception("clean", CPU, 2, renamed)(images).pooled, by_folder)
    usual = WeightFile("weights", NAME, "https://example.invalid/x", (tmp_path, weights.parent))
    assert find_weights(usual, None, download=False) == weights


def test_clean_fids_own_folder_is_among_the_places() -> None:
    there = str(weight_file("clean").places[0])
    assert f'"{there}"' in inspect.getsource(cleanfid_features.feature_extractor)


@pytest.mark.parametrize("mode", MODES)
def test_missing_weights_are_one_line(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inception, "_CLEANFID_PLACE", tmp_path / "nowhere")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PagodaError, match="--weights FILE, or let --download") as raised:
        open_inception(mode, CPU, 2)
    line, file = str(raised.value), weight_file(mode)
    assert "\n" not in line and file.name in line and file.url in line
    assert str(tmp_path / "hub" / "checkpoints") in line
    assert os.listdir(tmp_path) == []
    with pytest.raises(PagodaError, match="there is no"):
        open_inception(mode, CPU, 2, tmp_path / "no.pt")


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    away = WeightFile("weights", "w.pt", "http://127.0.0.1:9/w.pt")
    with pytest.raises(PagodaError, match=r"cannot download weights from .*--weights FILE"):
        find_weights(away, None, download=True)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_file_that_is_no_inception(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"not a network")
    with pytest.raises(PagodaError, match=f"is not the published {NAME}: its SHA-256") as raised:
        open_inception("clean", CPU, 2, tmp_path)
    assert "\n" not in str(raised.value)
    with pytest.raises(PagodaError, match="no mode 'fast'"):
        open_inception("fast", CPU, 2, tmp_path)
