"""The training image nearest to a sample, in whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pagoda.stages import neighbours
from pagoda.stages.neighbours import nearest_images


def test_near_copies_are_told_apart_by_one_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bright images of 3 x 64 x 64 have squared norms of 8e8, where float32 counts in 64s."""
    monkeypatch.setattr(neighbours, "_CHUNK_BYTES", 3 * 64 * 64 * 5)
    rng = np.random.default_rng(0)
    image = rng.integers(200, 256, (3, 64, 64)).astype(np.int64)
    images = np.repeat(image[None], 12, axis=0)
    for i in range(12):
        images[i].flat[: 13 - i] -= 1  # squared distances 13 - i
    images[11] = images[11, :, :, ::-1]  # the nearest, mirrored
    stored = images.astype(np.uint8)
    samples = np.stack([image, images[4]])[None].astype(np.uint8)
    found = nearest_images(samples, stored, torch.device("cpu"))
    assert np.array_equal(found[0, 0], stored[11, :, :, ::-1])
    assert np.array_equal(found[0, 1], stored[4])
