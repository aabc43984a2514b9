"""What grids of samples show: which samples, their nearest images, enlarged ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pagoda.config import parse
from pagoda.data.pixels import to_uint8
from pagoda.evaluation.samplers import upsample
from pagoda.pipeline.stages import neighbours
from pagoda.pipeline.stages.evaluate import grid_cells
from pagoda.pipeline.stages.neighbours import nearest_images
from tests.tiny import tiny_tree


@pytest.mark.parametrize(
    ("samples", "per_class", "classes", "shape"),
    [(64, 2, 10, (10, 2)), (64, 8, 10, (10, 6)), (16, 4, 10, (10, 1)), (4000, 2, 1000, (16, 2)),
     (16, 4, 1000, (16, 1))],
)  # fmt: skip
def test_cells_hold_samples_of_their_class(
    samples: int, per_class: int, classes: int, shape: tuple[int, int]
) -> None:
    sizes = {"evaluate.samples": samples, "evaluate.grid_per_class": per_class}
    cells = grid_cells(parse(tiny_tree(**sizes)).evaluate, classes)
    assert cells.shape == shape and cells.max() < samples
    assert len(np.unique(cells)) == cells.size
    assert (cells % classes == np.arange(shape[0])[:, None]).all()


def test_nearest_images_finds_plain_and_mirrored_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 6, 6), dtype=np.uint8)
    asked = np.stack([images[31], images[4][..., ::-1], images[0]]).reshape(1, 3, 3, 6, 6)
    noisy = np.clip(asked.astype(int) + 3, 0, 255).astype(np.uint8)
    for chunk in (1, 1000, 1 << 24):
        monkeypatch.setattr("pagoda.pipeline.stages.neighbours._CHUNK_BYTES", chunk)
        assert np.array_equal(nearest_images(noisy, images, torch.device("cpu")), asked)


def test_upsampling_is_bilinear_with_half_pixel_centres() -> None:
    """Worked by hand along one axis: 0, 100 -> 0, 25, 75, 100, the ends clamped."""
    small = torch.tensor([[0, 100], [0, 100]], dtype=torch.uint8).expand(1, 3, 2, 2)
    large = to_uint8(upsample(small, 4))
    assert large.dtype == torch.uint8
    assert (large == torch.tensor([0, 25, 75, 100], dtype=torch.uint8)).all()
    flat = torch.full((1, 3, 8, 8), 93, dtype=torch.uint8)
    assert (to_uint8(upsample(flat, 32)) == 93).all()


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
