"""Equal to other people's implementations, where they are installed and still work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pagoda.evaluation.metrics.frechet import frechet_distance, frechet_distance_of_features
from pagoda.evaluation.metrics.inception_score import inception_score, probabilities_of
from pagoda.evaluation.metrics.kid import kernel_distance, kernel_distance_of_subsets
from pagoda.evaluation.metrics.precision_recall import manifold_scores
from pagoda.evaluation.metrics.statistics import feature_moments


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Non-negative and skewed, as pooled activations are."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d) + 0.5, 0)


@pytest.mark.parametrize("d", [8, 100])
def test_scipy_sqrtm(d: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = feature_moments(features(600, d, 0)), feature_moments(features(500, d, 1))
    root = linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(
        a.covariance + b.covariance - 2 * root.real
    )
    found = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert found == pytest.approx(expected, rel=1e-9)


def clean_fid() -> Any:
    """clean-fid's functions; its distance calls ``sqrtm(disp=)``, which scipy 1.18 removed."""
    scipy = pytest.importorskip("scipy")
    if tuple(int(p) for p in scipy.__version__.split(".")[:2]) >= (1, 18):
        pytest.skip("clean-fid's distance does not run with scipy 1.18 or later")
    return pytest.importorskip("cleanfid.fid")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_clean_fid_frechet_distance() -> None:
    peer = clean_fid()
    a, b = feature_moments(features(900, 64, 2)), feature_moments(features(800, 64, 3))
    expected = peer.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    found = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert found == pytest.approx(expected, rel=1e-9)


def test_clean_fid_kernel_distance() -> None:
    """It draws from numpy's global generator; with subsets of everything the draw is no matter."""
    peer = clean_fid()
    x, y = features(150, 20, 4), features(150, 20, 5)
    expected = peer.kernel_distance(x, y, num_subsets=1, max_subset_size=150)
    found, _ = kernel_distance_of_subsets(x, y, subsets=1, subset_size=150)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("k", [3, 5])
def test_prdc(k: int) -> None:
    peer = pytest.importorskip("prdc")
    real, generated = features(300, 16, 6), features(250, 16, 6) * 1.05
    expected = peer.compute_prdc(real, generated, nearest_k=k)
    found = manifold_scores(real, generated, k)
    assert found._asdict() == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pytorch_fid_frechet_distance() -> None:
    clean_fid()  # the same call of sqrtm
    peer = pytest.importorskip("pytorch_fid.fid_score")
    a, b = feature_moments(features(700, 48, 9)), feature_moments(features(600, 48, 10))
    expected = peer.calculate_frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    found = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(500, 32), (40, 90)])
def test_torchmetrics_frechet_distance(n: int, d: int) -> None:
    """Its eigenvalues lose digits where covariances are singular (n < d)."""
    peer = pytest.importorskip("torchmetrics.image.fid")
    a, b = feature_moments(features(n, d, 11)), feature_moments(features(n, d, 12))
    tensors = [torch.from_numpy(t) for t in (a.mean, a.covariance, b.mean, b.covariance)]
    expected = float(peer._compute_fid(*tensors))
    found = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert found == pytest.approx(expected, rel=1e-9 if n > d else 1e-6)


class Pixels(torch.nn.Module):
    """Features of uint8 images: a linear map of the pixels, in float64."""

    def __init__(self, d: int) -> None:
        super().__init__()
        shape = (3 * 8 * 8, d)
        weight = np.random.default_rng(0).normal(size=shape) / 14
        self.register_buffer("weight", torch.from_numpy(weight))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images.double() / 255).flatten(1) @ self.get_buffer("weight")


def pictures(n: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = rng.normal(110 + 15 * seed, 40, size=(n, 3, 8, 8)).clip(0, 255)
    return torch.from_numpy(values.astype(np.uint8))


def test_torch_fidelity_on_the_same_images() -> None:
    """FID, IS, KID and PRC through its own driver, with a feature extractor registered there."""
    peer = pytest.importorskip("torch_fidelity")
    base = pytest.importorskip("torch_fidelity.feature_extractor_base").FeatureExtractorBase
    network = Pixels(12)

    class Extractor(base):  # type: ignore[misc, valid-type]
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)
            self.network = network

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("pixels",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "pixels"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (self.network(images),)

    peer.register_feature_extractor("pagoda-pixels", Extractor)
    generated, real = pictures(260, 1), pictures(300, 0)
    data = torch.utils.data.TensorDataset
    given = [type("Images", (data,), {"__getitem__": lambda s, i: s.tensors[0][i]})(t)
             for t in (generated, real)]  # fmt: skip
    expected = peer.calculate_metrics(
        input1=given[0], input2=given[1], feature_extractor="pagoda-pixels", cuda=False,
        isc=True, fid=True, kid=True, prc=True, kid_subsets=20, kid_subset_size=100,
        cache=False, verbose=False, save_cpu_ram=True,
    )  # fmt: skip
    x, y = network(real).numpy(), network(generated).numpy()
    a, b = feature_moments(x), feature_moments(y)
    mean, deviation = kernel_distance_of_subsets(y, x, 20, 100, seed=2020)
    score, spread = inception_score(probabilities_of(y), 10, shuffle_seed=2020)
    manifold = manifold_scores(x, y, 3)
    found = {
        "frechet_inception_distance": frechet_distance(a.mean, a.covariance, b.mean, b.covariance),
        "kernel_inception_distance_mean": mean,
        "kernel_inception_distance_std": deviation,
        "inception_score_mean": score,
        "inception_score_std": spread,
        "precision": manifold.precision,
        "recall": manifold.recall,
    }
    assert 0 < manifold.precision < 1 and 0 < manifold.recall < 1
    assert found == pytest.approx({key: expected[key] for key in found}, rel=1e-6)


def test_torchmetrics_on_the_same_images() -> None:
    """Its FID and KID take a network of one's own; both update in the network's float64."""
    image = pytest.importorskip("torchmetrics.image.fid")
    kernel = pytest.importorskip("torchmetrics.image.kid")
    network = Pixels(12)
    real, generated = pictures(300, 0), pictures(260, 1)
    x, y = network(real).numpy(), network(generated).numpy()
    fid = image.FrechetInceptionDistance(network, input_img_size=(3, 8, 8)).set_dtype(torch.float64)
    kid = kernel.KernelInceptionDistance(network, subsets=1, subset_size=260)
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(generated, real=False)
    assert frechet_distance_of_features(x, y) == pytest.approx(float(fid.compute()), rel=1e-6)
    # One subset holds all generated images, and 260 of the 300 real ones by torch's generator.
    torch.manual_seed(5)
    peer = float(kid.compute()[0])
    torch.manual_seed(5)
    drawn = torch.randperm(300)[:260].numpy()
    assert kernel_distance(x[drawn], y) == pytest.approx(peer, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "m", "d", "scale", "precision", "recall", "slack"),
    [
        # float16 overflows, so that ADM's evaluator takes its float32 branch: equal.
        (600, 500, 64, 40, 384, 331, 0),
        (600, 500, 64, 100, 384, 331, 0),
        # Its float16 distances, as it runs on Inception's features: a few points change sides.
        (600, 500, 64, 1, 385, 333, 2),
        (400, 700, 32, 1, 542, 272, 2),
        (2000, 2000, 256, 1, 1443, 573, 8),
    ],
)
def test_adm_manifold_estimator(
    n: int, m: int, d: int, scale: int, precision: int, recall: int, slack: int
) -> None:
    """Points counted by guided-diffusion's evaluator (22e0df8) with TensorFlow 2.21 on a CPU."""
    real, generated = (
        np.maximum(np.random.RandomState(seed).standard_normal((rows, d)) * 0.6 + shift, 0)
        for rows, seed, shift in ((n, 1, 0.4), (m, 2, 0.35))
    )
    x, y = (f.astype(np.float32) * np.float32(scale) for f in (real, generated))
    found = manifold_scores(x, y, 3)
    assert abs(found.precision * m - precision) <= slack + 1e-6
    assert abs(found.recall * n - recall) <= slack + 1e-6


def test_torch_fidelity_draws_the_same_subsets() -> None:
    peer = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = features(200, 24, 7), features(180, 24, 8)
    expected = peer.kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=10, kid_subset_size=60, verbose=False
    )
    mean, deviation = kernel_distance_of_subsets(x, y, 10, 60, seed=2020)
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)
    assert deviation == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-9)
