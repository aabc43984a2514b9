"""The encoded store gives back every pixel, whatever the shards and however it is indexed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from pagoda.data.store import EncodedImages, decode, encode
from pagoda.errors import PagodaError


def pictures(n: int = 11, side: int = 16) -> np.ndarray:
    """Noise, a constant, and grey values: (n, 3, side, side)."""
    images = np.random.default_rng(0).integers(0, 256, (n, 3, side, side), dtype=np.uint8)
    images[1], images[2] = 7, images[2, :1]
    return images


def stored(folder: Path, images: np.ndarray, each: int) -> EncodedImages:
    files = [encode(image.transpose(1, 2, 0)) for image in images]
    offsets = np.concatenate([[0], np.cumsum([len(f) for f in files])])
    paths = []
    for k in range(0, len(images), each):
        paths.append(folder / f"{k:05d}.webp")
        paths[-1].write_bytes(b"".join(files[k : k + each]))
    return EncodedImages(paths, offsets, images.shape[-1], each)


def test_encoding_is_lossless() -> None:
    for image in pictures():
        assert np.array_equal(decode(encode(image.transpose(1, 2, 0))), image.transpose(1, 2, 0))


@pytest.mark.parametrize("each", [1, 4, 100])
def test_rows_are_those_of_an_array(tmp_path: Path, each: int) -> None:
    images = pictures()
    store = stored(tmp_path, images, each)
    assert store.shape == images.shape and len(store) == 11 and store.dtype == np.uint8
    rows = np.random.default_rng(1).integers(0, 11, 30)
    for chosen in (rows, rows[:1], rows[:0], slice(None), slice(3, 9), slice(10, 11)):
        assert np.array_equal(store[chosen], images[chosen])
    assert np.array_equal(pickle.loads(pickle.dumps(store))[rows], images[rows])


def test_damage_inside_and_at_the_end_is_one_line(tmp_path: Path) -> None:
    store = stored(tmp_path, pictures(), 4)
    file = tmp_path / "00004.webp"
    content = file.read_bytes()
    file.write_bytes(b"x" * 40 + content[40:])
    with pytest.raises(PagodaError, match="encoded image of the store is damaged") as error:
        store[np.array([4, 5])]
    assert "\n" not in str(error.value)
    file.write_bytes(content[:-5])
    paths = [tmp_path / f"{k:05d}.webp" for k in (0, 4, 8)]
    again = EncodedImages(paths, store._offsets, 16, 4)
    with pytest.raises(PagodaError, match=r"00004\.webp ends early"):
        again[np.array([7])]
