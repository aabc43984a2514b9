"""Random batches: pairs stay pairs when they are mirrored, and half the images are."""

from __future__ import annotations

import numpy as np
import torch

from pagoda.training.batches import ImageBatches, PairBatches
from tests.training.steps import CPU, pixels


def test_pairs_mirror_the_image_as_the_latent_was() -> None:
    images = pixels(4, 8)
    latents = np.arange(8, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 8, 8), "f4")
    flips = (np.arange(8) % 2).astype(np.uint8)
    pairs = PairBatches(latents, np.arange(8) // 2, flips, images, np.arange(8) * 10, CPU)
    z, x, labels = pairs.draw(64)
    seen = z[:, 0, 0, 0].long().numpy()
    assert set(seen) == set(range(8))
    for row, image, label in zip(seen, x.numpy(), labels.numpy(), strict=True):
        expected = images[row // 2][:, :, :: -1 if row % 2 else 1] / 127.5 - 1
        np.testing.assert_allclose(image, expected, atol=1e-6)
        assert label == row * 10


def test_image_batches_mirror_half() -> None:
    images = np.zeros((1, 3, 4, 4), np.uint8)
    images[..., 0] = 255
    x, labels = ImageBatches(images, np.array([7]), CPU).draw(400)
    left = x[:, 0, 0, 0] == 1
    right = x[:, 0, 0, -1] == 1
    assert torch.equal(left, ~right) and (labels == 7).all()
    assert abs(left.float().mean().item() - 0.5) < 4 * 0.5 / 20
