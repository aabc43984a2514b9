"""Real images of the base, enlarged."""

from __future__ import annotations

import numpy as np
import torch

from pagoda.data.pixels import to_float, to_uint8
from pagoda.evaluation.enlarged import Enlarged
from pagoda.evaluation.streaming import StoredImages


def test_they_are_the_originals_between_pixels_and_read_in_any_pieces() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    stored = StoredImages("held out", images, np.arange(6) % 3, np.array([0, 2, 5]))
    large = Enlarged(stored, 32)
    assert large.resolution == (32, 32) and len(large) == 3
    assert large.labels is not None and large.labels.tolist() == [0, 2, 2]
    whole = large.read(np.arange(3))
    assert np.array_equal(whole[1:], large.read(np.array([1, 2])))
    # Pillow's bilinear enlargement, another implementation, of each channel.
    from PIL import Image

    for mine, source in zip(whole, images[[0, 2, 5]], strict=True):
        for channel, plain in zip(mine, source, strict=True):
            there = np.asarray(Image.fromarray(plain).resize((32, 32), Image.Resampling.BILINEAR))
            assert np.abs(channel.astype(int) - there).max() <= 1  # rounding


def test_flat_images_stay() -> None:
    images = np.full((2, 3, 4, 4), 200, np.uint8)
    back = Enlarged(StoredImages("flat", images), 16).read(np.arange(2))
    assert np.array_equal(back, to_uint8(to_float(torch.full((2, 3, 16, 16), 200).byte()), "x"))
