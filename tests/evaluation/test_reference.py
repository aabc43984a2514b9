"""A kept reference whose card or arrays are not a reference's: one line when it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pagoda
from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.evaluation.reference import from_artifact
from pagoda.pipeline.stages.score import Source, make_reference
from tests.evaluation.pictures import pictures, write_folder, write_zip
from tests.evaluation.requests import CUSTOM

CARD = {
    "images": "0" * 64, "recipe": None, "resolution": 8, "split": None, "n": 9, "extractor": "e",
    "extractor_fingerprint": "1" * 64, "manifold_n": 5, "identity": "2" * 64,
}  # fmt: skip


def kept(path: Path, card: Any = CARD, **arrays: np.ndarray) -> Any:
    files: dict[str, np.ndarray] = {
        "mean": np.zeros(3), "covariance": np.eye(3), "manifold": np.zeros((5, 3), np.float32),
    }  # fmt: skip
    with artifacts.create(path, "reference", config={}) as out:
        for name, array in (files | arrays).items():
            np.save(out / f"{name}.npy", array)
        artifacts.write_json(out / "card.json", card)
    return from_artifact(artifacts.open_artifact(path, "reference"))


def test_a_sound_one_comes_back(tmp_path: Path) -> None:
    found = kept(tmp_path / "r")
    assert found.card == CARD and found.n == 9 and found.features.shape == (5, 3)
    assert found.moments.mean.shape == (3,) and found.spatial is None


@pytest.mark.parametrize("key", CARD)
def test_a_card_without_a_key_or_with_nonsense_there(key: str, tmp_path: Path) -> None:
    for card in ({k: v for k, v in CARD.items() if k != key}, CARD | {key: [1]}):
        with pytest.raises(PagodaError, match=f"card.json has no sound '{key}'") as raised:
            kept(tmp_path / "r", card)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "arrays",
    [
        {"mean": np.zeros(4)},
        {"covariance": np.eye(4)},
        {"covariance": np.zeros((3, 4))},
        {"manifold": np.zeros((5, 4), np.float32)},
        {"mean": np.zeros((3, 1))},
        {"covariance": np.eye(3, dtype=np.float32)},
        {"manifold": np.zeros((5, 3), np.int64)},
        {"spatial_mean": np.zeros(4), "spatial_covariance": np.eye(5)},
        {"spatial_mean": np.zeros(4)},
    ],
)
def test_arrays_that_do_not_belong_together(arrays: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PagodaError) as raised:
        kept(tmp_path / "r", **arrays)
    assert "\n" not in str(raised.value) and str(tmp_path / "r") in str(raised.value)


def test_one_of_other_features_asks_for_their_network(tmp_path: Path) -> None:
    """Before weights of the usual network are missed, which would not go with it."""
    kept(tmp_path / "ref")
    write_folder(tmp_path / "made", pictures(4, seed=2))
    with pytest.raises(PagodaError, match="ref holds features of e; name its network"):
        pagoda.evaluate(tmp_path / "made", tmp_path / "ref")


def test_a_reference_never_replaces_something_else(tmp_path: Path) -> None:
    write_zip(tmp_path / "real.zip", pictures(9, seed=1))
    write_folder(tmp_path / "made", pictures(4, seed=2))
    for out in (tmp_path / "made", tmp_path / "real.zip"):
        with pytest.raises(PagodaError, match="so nothing is written there"):
            make_reference(Source(tmp_path / "real.zip"), CUSTOM, None, 9, False, out)
