"""Random batches: pairs stay pairs when they are mirrored, and what is read ahead is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.draw import GlobalDraw
from tests.methods.small import CPU, STEPS, assert_same, go, make, pixels

DRAW = GlobalDraw(CPU)


def test_pairs_mirror_the_image_as_the_latent_was() -> None:
    images = pixels(8, 4)
    latents = np.arange(8, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 8, 8), "f4")
    pairs = PairBatches(
        latents=latents, indices=np.arange(8) // 2, flips=(np.arange(8) % 2).astype(np.uint8),
        images=images, labels=np.arange(8) * 10, device=CPU,
    )  # fmt: skip
    z, x, labels = DRAW.pairs(pairs, 64)
    seen = z[:, 0, 0, 0].long().numpy()
    assert set(seen) == set(range(8))
    for row, image, label in zip(seen, x.numpy(), labels.numpy(), strict=True):
        expected = images[row // 2][:, :, :: -1 if row % 2 else 1] / 127.5 - 1
        np.testing.assert_allclose(image, expected, atol=1e-6)
        assert label == row * 10


def test_images_are_mirrored_half_the_time_and_alike_at_both_resolutions() -> None:
    images = np.zeros((1, 3, 4, 4), np.uint8)
    images[..., 0] = 255
    stores = [images, images.repeat(2, 2).repeat(2, 3)]
    low, high, labels = DRAW.images(
        ImageBatches(stores=stores, labels=np.array([7]), device=CPU), 400
    )
    left = low[:, 0, 0, 0] == 1
    assert torch.equal(left, ~(low[:, 0, 0, -1] == 1)) and (labels == 7).all()
    assert torch.equal(left, high[:, 0, 0, 0] == 1)
    assert abs(left.float().mean().item() - 0.5) < 4 * 0.5 / 20


def test_pairs_are_read_by_rows() -> None:
    pairs = PairBatches(
        latents=np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1),
        indices=np.arange(6)[::-1].copy(), flips=np.zeros(6, np.uint8), images=pixels(2, 6),
        labels=np.arange(6), device=CPU,
    )  # fmt: skip
    latents, images = pairs.read(np.array([4, 0]))
    assert latents.flatten().tolist() == [4.0, 0.0]
    assert np.array_equal(images.numpy(), pixels(2, 6)[[1, 5]])


@pytest.mark.parametrize("what", ["teacher", "one_step", "cascade"])
def test_training_that_reads_ahead_gives_the_same_bits(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forecast of what a step draws first is right, at every step but the first."""
    plain, ahead = make(what), make(what)
    source = next(s for s in (getattr(ahead, "pairs", None), getattr(ahead, "images", None)) if s)
    source.ahead, found = True, []
    take = source.take

    def counted(rows: np.ndarray) -> tuple[Tensor, ...]:
        found.append(rows.tobytes() in source._reading)
        return take(rows)

    monkeypatch.setattr(source, "take", counted)
    go(ahead, tmp_path / "ahead", save_every_s=1e9)
    assert_same(ahead, go(plain, tmp_path / "plain", save_every_s=1e9))
    assert found == [False] + [True] * (STEPS - 1)


def test_a_wrong_forecast_costs_nothing_but_time() -> None:
    source = ImageBatches(stores=[pixels(4, 50)], labels=np.arange(50), device=CPU, ahead=True)
    for told in range(4):
        source.prefetch(np.array([told, 1]))
    (seen,) = source.take(np.array([7, 9]))
    assert np.array_equal(seen.numpy(), pixels(4, 50)[[7, 9]]) and len(source._reading) <= 2
