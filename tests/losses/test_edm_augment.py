from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pagoda.losses.edm_augment import (
    LABELS,
    NORMALS,
    UNIFORMS,
    Transforms,
    draw_transforms,
    edm_augment,
)


def blob(n: int, x: float, y: float, side: int = 32, width: float = 2.5) -> Tensor:
    """A Gaussian bump, smooth enough that resampling cannot change it much."""
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    column, row = (torch.exp(-((axis - centre) ** 2) / 2 / width**2) for centre in (y, x))
    return (column[:, None] * row[None]).expand(n, 3, side, side).contiguous()


def numbers(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, UNIFORMS, generator=rng), torch.randn(n, NORMALS, generator=rng)


def only(**wanted: float) -> tuple[Tensor, Tensor]:
    """Random numbers that switch on the named kinds alone, with given strengths."""
    uniform, normal = torch.full((1, UNIFORMS), 0.99), torch.zeros(1, NORMALS)
    for name, value in wanted.items():
        match name:
            case "flip_y":
                uniform[0, 0] = uniform[0, 5] = 0.1
            case "scale":
                uniform[0, 1], normal[0, 0] = 0.1, value
            case "angle":
                uniform[0, 2], uniform[0, 6] = 0.1, (value / math.pi + 1) / 2
            case "stretch":
                uniform[0, 3], normal[0, 1] = 0.1, value
            case "shift_x":
                uniform[0, 4], normal[0, 2] = 0.1, value
            case "shift_y":
                uniform[0, 4], normal[0, 3] = 0.1, value
    return uniform, normal


def moved(x: float, y: float, **wanted: float) -> tuple[float, float, Tensor]:
    """Where the bump at (x, y) ends, from the centre, and what the network is told."""
    transforms = draw_transforms(*only(**wanted), probability=0.5)
    out = edm_augment(blob(1, x, y), transforms)[0, 0]
    axis = torch.arange(32, dtype=torch.float64) - 15.5
    total = out.sum()
    end_x, end_y = (float((out.sum(side) * axis).sum() / total) for side in (0, 1))
    return end_x, end_y, transforms.labels[0]


def test_without_augmentation_images_stay() -> None:
    transforms = draw_transforms(*numbers(400), probability=0.0)
    images = torch.randn(400, 1, 4, 4)
    assert torch.equal(edm_augment(images, transforms), images)
    assert not transforms.labels.any()


@pytest.mark.parametrize(
    ("wanted", "end", "told"),
    [
        ({"flip_y": 1}, (4, -2), {1: 1.0}),
        ({"scale": 1.0}, (4 * 2**0.2, 2 * 2**0.2), {2: 1.0}),
        ({"angle": math.pi / 2}, (-2, 4), {3: -1.0, 4: 1.0}),
        ({"stretch": 1.0}, (4 * 2**0.2, 2 / 2**0.2), {5: 1.0}),
        ({"shift_x": 0.5}, (4 + 32 * 0.125 * 0.5, 2), {7: 0.5}),
        ({"shift_y": -0.5}, (4, 2 - 32 * 0.125 * 0.5), {8: -0.5}),
    ],
)
def test_each_transform_moves_a_point_where_it_should(
    wanted: dict[str, float], end: tuple[float, float], told: dict[int, float]
) -> None:
    x, y, labels = moved(4, 2, **wanted)
    assert (x, y) == pytest.approx(end, abs=0.03)
    expected = torch.zeros(LABELS)
    for index, value in told.items():
        expected[index] = value
    torch.testing.assert_close(labels, expected, atol=1e-6, rtol=0)


def test_a_transform_and_its_inverse_return_the_image() -> None:
    there = draw_transforms(*only(angle=0.7, scale=1.0), probability=0.5)
    matrix = torch.cat([there.inverse[0].double(), torch.tensor([[0, 0, 1.0]]).double()])
    back = Transforms(there.upside_down, torch.linalg.inv(matrix)[None, :2], there.labels)
    image = blob(1, 3, -2)
    error = (edm_augment(edm_augment(image, there), back) - image).abs()
    assert error[:, :, 8:-8, 8:-8].max() < 0.02  # what was outside meanwhile is lost


def test_smooth_images_lose_little_to_resampling() -> None:
    transforms = draw_transforms(*only(shift_x=0.25), probability=0.5)  # one pixel, exactly
    out = edm_augment(blob(1, 0, 0), transforms)
    assert (out - blob(1, 1, 0)).abs().max() < 0.005


def test_an_image_does_not_depend_on_its_batch() -> None:
    transforms = draw_transforms(*numbers(16), probability=0.8)
    images = torch.randn(16, 3, 16, 16, dtype=torch.float64)
    whole = edm_augment(images, transforms)
    alone = [
        edm_augment(
            images[i : i + 1],
            Transforms(
                transforms.upside_down[i : i + 1], transforms.inverse[i : i + 1],
                transforms.labels[i : i + 1],
            ),
        )
        for i in range(16)
    ]  # fmt: skip
    torch.testing.assert_close(whole, torch.cat(alone), rtol=1e-12, atol=1e-12)


def test_each_kind_happens_as_often_as_asked() -> None:
    labels = draw_transforms(*numbers(20_000), probability=0.12).labels
    assert float((labels[:, 2] != 0).double().mean()) == pytest.approx(0.12, abs=0.01)
    assert float((labels[:, 4] != 0).double().mean()) == pytest.approx(0.12, abs=0.01)
    assert float((labels[:, 1] != 0).double().mean()) == pytest.approx(0.06, abs=0.01)
