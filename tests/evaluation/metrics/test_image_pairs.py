"""PSNR, SSIM and LPIPS: closed forms, peers, weights from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.image_pairs import psnr
from pagoda.evaluation.metrics.lpips import Lpips
from pagoda.evaluation.metrics.ssim import ssim


def pictures(n: int, side: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, size=(n, 3, side, side), dtype=np.uint8)


def noisy(images: np.ndarray, seed: int = 9) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


def test_psnr_of_a_constant_error() -> None:
    first = np.full((3, 3, 4, 5), 100, np.uint8)
    second = np.stack([first[0] + 1, first[1] - 10, first[2]])
    expected = [20 * np.log10(255), 20 * np.log10(25.5), np.inf]
    np.testing.assert_allclose(psnr(first, second), expected, rtol=1e-14)


def test_psnr_does_not_wrap_around() -> None:
    black, white = np.zeros((1, 1, 2, 2), np.uint8), np.full((1, 1, 2, 2), 255, np.uint8)
    assert psnr(black, white)[0] == psnr(white, black)[0] == 0


def test_psnr_is_torchmetrics() -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    x, y = pictures(3, 16, 0), noisy(pictures(3, 16, 0))
    expected = []
    for pair in zip(x, y, strict=True):
        a, b = (torch.from_numpy(i).double() for i in pair)
        expected.append(float(peak_signal_noise_ratio(a, b, data_range=255.0)))
    np.testing.assert_allclose(psnr(x, y), expected, rtol=1e-6)


def test_ssim_of_two_flat_images() -> None:
    """No variance: (2 a b + C_1) / (a^2 + b^2 + C_1)."""
    a, b, c = 100.0, 140.0, (0.01 * 255) ** 2
    x, y = (np.full((2, 3, 16, 16), v, np.uint8) for v in (a, b))
    expected = (2 * a * b + c) / (a**2 + b**2 + c)
    np.testing.assert_allclose(ssim(x, y), [expected] * 2, rtol=1e-9)


@pytest.mark.parametrize("shape", [(11, 11), (12, 40), (64, 64)])
def test_ssim_is_piq_and_scikit_image(shape: tuple[int, int]) -> None:
    """At valid positions only: reflected borders moved 11 pixels by 0.1, 64 by 0.005."""
    piq = pytest.importorskip("piq")
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(4)
    x = rng.integers(0, 256, size=(2, 3, *shape), dtype=np.uint8)
    y = noisy(x)
    a, b = (torch.from_numpy(i).double() for i in (x, y))
    expected = piq.ssim(a, b, data_range=255.0, downsample=False, reduction="none")
    np.testing.assert_allclose(ssim(x, y), expected.numpy(), rtol=1e-12)

    def blur(images: np.ndarray) -> np.ndarray:  # scikit-image's filter and crop
        wide = gaussian_filter(images, (0, 0, 1.5, 1.5), truncate=3.5)
        return np.asarray(wide[..., 5:-5, 5:-5])

    p, q = x.astype(float), y.astype(float)
    m, n, c, d = blur(p), blur(q), (0.01 * 255) ** 2, (0.03 * 255) ** 2
    spread = blur(p * p) - m * m + blur(q * q) - n * n
    both = (2 * m * n + c) * (2 * (blur(p * q) - m * n) + d)
    peer = (both / ((m * m + n * n + c) * (spread + d))).mean((1, 2, 3))
    np.testing.assert_allclose(ssim(x, y), peer, rtol=1e-12)


def test_ssim_of_a_set_is_one_value_an_image() -> None:
    x = pictures(3, 20, 1)
    y = noisy(x)
    y[1] = x[1]
    found = ssim(x, y)
    assert found[1] == pytest.approx(1, rel=1e-12) and 0 < found[0] < 1
    assert found[2] == pytest.approx(ssim(x[2:], y[2:])[0], rel=1e-12)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AlexNet's features as torchvision's file holds them, with random weights."""
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.manual_seed(0)
    features = torchvision.models.AlexNet(num_classes=1).features.state_dict()
    torch.save({f"features.{key}": value for key, value in features.items()}, path)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_with_weights_from_a_file_is_torchmetrics(alexnet: Path) -> None:
    from torchmetrics.functional.image import lpips as peer

    x = pictures(5, 64, 2)
    y = noisy(x)
    model = peer._NoTrainLpips(net="alex", pnet_rand=True)
    stored = torch.load(alexnet, weights_only=True)
    names = {key: "features." + key.split(".", 1)[1] for key in model.net.state_dict()}
    model.net.load_state_dict({key: stored[name] for key, name in names.items()})
    tensors = [torch.from_numpy(i).float() / 255 for i in (x, y)]
    expected = model(*tensors, normalize=True).flatten().detach().numpy()
    distance = Lpips("alex", alexnet)
    found = distance(x, y, batch=2)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found.min() > 0
    np.testing.assert_array_equal(distance(x, x), np.zeros(5))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache and a host that nothing answers for."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(PagodaError, match=r"cannot download LPIPS weights .*alexnet-owt-7be5be79"):
        Lpips()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_trouble_is_one_line(alexnet: Path, tmp_path: Path) -> None:
    x = pictures(2, 16, 3)
    with pytest.raises(PagodaError, match="compare uint8 images"):
        psnr(x, x / 255)
    with pytest.raises(PagodaError, match="use equal shapes"):
        ssim(x, x[:1])
    with pytest.raises(PagodaError, match="window of 11 pixels"):
        ssim(x[..., :8], x[..., :8])
    with pytest.raises(PagodaError, match="no network 'dense'"):
        Lpips("dense")
    with pytest.raises(PagodaError, match="does not hold the weights of squeezenet1_1"):
        Lpips("squeeze", alexnet)
    with pytest.raises(PagodaError, match="there is no"):
        Lpips("alex", tmp_path / "none.pth")
    for content in (b"garbage", b"Pa\xff\n.", b"PK\x03\x04"):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(PagodaError, match="cannot be read as weights") as raised:
            Lpips("alex", tmp_path / "bad.pth")
        assert "\n" not in str(raised.value)
    stored = {k: v * torch.nan for k, v in torch.load(alexnet, weights_only=True).items()}
    torch.save(stored, tmp_path / "nan.pth")
    with pytest.raises(PagodaError, match=r"features\.0\.weight holds NaN or infinity"):
        Lpips("alex", tmp_path / "nan.pth")
    with pytest.raises(PagodaError, match="3 channels; images have 1"):
        Lpips("alex", alexnet)(x[:, :1], x[:, :1])
