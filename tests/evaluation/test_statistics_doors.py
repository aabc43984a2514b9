"""Impossible statistics are refused wherever they come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import Sample
from pagoda.evaluation.metrics.frechet import frechet_distance
from pagoda.evaluation.metrics.statistics import Moments, feature_moments
from pagoda.evaluation.reference import from_artifact, write_reference
from pagoda.evaluation.statistics_files import read_statistics

Door = Callable[[Path, np.ndarray, np.ndarray], object]
ROWS = np.random.default_rng(0).normal(size=(200, 6)) @ np.diag([1, 2, 3, 0.1, 5, 0.0]) + 1.0
TRUE = feature_moments(ROWS)


def published(folder: Path, mean: np.ndarray, covariance: np.ndarray) -> object:
    np.savez(folder / "x.npz", mu=mean, sigma=covariance)
    return read_statistics(folder / "x.npz", None)


def published_spatial(folder: Path, mean: np.ndarray, covariance: np.ndarray) -> object:
    given = {"mu": TRUE.mean, "sigma": TRUE.covariance, "mu_s": mean, "sigma_s": covariance}
    np.savez(folder / "y.npz", **given)  # type: ignore[arg-type]
    return read_statistics(folder / "y.npz", None)


CARD: dict[str, object] = {
    **dict.fromkeys(("images", "recipe", "resolution", "split", "n", "extractor_fingerprint")),
    "extractor": "x", "manifold_n": 200, "identity": "x",
}  # fmt: skip


def sample(moments: Moments, features: np.ndarray) -> Sample:
    rows = features.astype(np.float32)
    return Sample(where="x", extractor="x", n=200, moments=moments, spatial=None, features=rows)


def kept(folder: Path, mean: np.ndarray, covariance: np.ndarray) -> object:
    write_reference(folder / "ref", sample(Moments(200, mean, covariance), ROWS), CARD, {})
    return from_artifact(artifacts.open_artifact(folder / "ref", "reference"))


def first(folder: Path, mean: np.ndarray, covariance: np.ndarray) -> object:
    return frechet_distance(mean, covariance, TRUE.mean, TRUE.covariance)


def second(folder: Path, mean: np.ndarray, covariance: np.ndarray) -> object:
    return frechet_distance(TRUE.mean, TRUE.covariance, mean, covariance)


DOORS = [published, published_spatial, kept, first, second]
WITH_NAN = np.where(np.eye(6) > 0, np.nan, TRUE.covariance)
BAD = [
    (TRUE.mean, -TRUE.covariance, "negative eigenvalues"),
    (TRUE.mean, np.triu(TRUE.covariance), "not symmetric"),
    (TRUE.mean, TRUE.covariance - 0.01 * np.eye(6), "negative eigenvalues"),
    (TRUE.mean, np.eye(6)[::-1], "negative eigenvalues"),
    (TRUE.mean, WITH_NAN, "NaN or infinity"),
    (TRUE.mean * np.inf, TRUE.covariance, "NaN or infinity"),
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("mean", "covariance", "wanted"), BAD)
def test_no_covariance(
    door: Door, mean: np.ndarray, covariance: np.ndarray, wanted: str, tmp_path: Path
) -> None:
    with pytest.raises(PagodaError, match=wanted) as raised:
        door(tmp_path, mean, covariance)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("door", [published, published_spatial, first, second])
@pytest.mark.parametrize(
    ("mean", "covariance", "wanted"),
    [
        (TRUE.mean, np.eye(5), "do not belong together"),
        (TRUE.mean[:, None], TRUE.covariance, "do not belong together"),
        (TRUE.mean[:0], TRUE.covariance[:0, :0], "do not belong together"),
        (TRUE.mean, TRUE.covariance.astype(int), "type int64; give them as float"),
        (TRUE.mean, TRUE.covariance + 0j, "type complex128"),
    ],
)
def test_no_statistics(
    door: Door, mean: np.ndarray, covariance: np.ndarray, wanted: str, tmp_path: Path
) -> None:
    with pytest.raises(PagodaError, match=wanted):
        door(tmp_path, mean, covariance)


@pytest.mark.parametrize("door", DOORS[:2] + DOORS[3:])
@pytest.mark.parametrize(
    "covariance", [TRUE.covariance, np.zeros((6, 6)), np.diag([0, 0, 1.0] * 2)]
)
def test_rounded_and_singular_ones_pass(door: Door, covariance: np.ndarray, tmp_path: Path) -> None:
    """As files of float32 numbers have them, each side of the diagonal rounded by itself."""
    noise = 1 + np.random.default_rng(1).uniform(-6e-8, 6e-8, (6, 6))
    narrow = (covariance * noise).astype(np.float32)
    assert door(tmp_path, TRUE.mean.astype(np.float32), narrow) is not None
    assert door(tmp_path, TRUE.mean, covariance) is not None


def test_parts_of_a_reference_belong_together(tmp_path: Path) -> None:
    write_reference(tmp_path / "ref", sample(TRUE, ROWS[:, :4]), CARD, {})
    with pytest.raises(PagodaError, match="features of 4 and statistics of 6 dimensions"):
        from_artifact(artifacts.open_artifact(tmp_path / "ref", "reference"))


@pytest.mark.parametrize("fault", ["truncated", "encrypted"])
def test_a_file_that_cannot_be_read_is_one_line(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, mu=TRUE.mean, sigma=TRUE.covariance)
    data = bytearray(path.read_bytes())
    if fault == "truncated":
        data = data[:200] + data[300:]
    else:  # the flag in the headers of the archive's directory
        at = -1
        while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
            data[at + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(PagodaError, match=r"x\.npz") as raised:
        read_statistics(path, None)
    assert "\n" not in str(raised.value)
