"""A kept reference whose card or arrays are not a reference's: one line when it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.evaluation.reference import from_artifact

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
