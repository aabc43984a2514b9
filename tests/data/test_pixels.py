"""uint8 -> float -> uint8 is the identity; rounding and clamping are as stated."""

from __future__ import annotations

import math

import pytest
import torch

from pagoda.data.pixels import to_float, to_uint8
from pagoda.errors import PagodaError


def test_every_byte_survives_the_round_trip() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    x = to_float(pixels)
    assert x.dtype == torch.float32 and x[0] == -1 and x[255] == 1
    assert torch.equal(to_uint8(x), pixels)
    assert torch.equal(to_uint8(x.double()), pixels)


def test_values_round_to_the_nearest_byte_and_clamp() -> None:
    step = 2 / 255
    x = torch.tensor([-9.0, -1 + 0.49 * step, -1 + 0.51 * step, 0.999, 1.0, 9.0])
    assert to_uint8(x).tolist() == [0, 0, 1, 255, 255, 255]


def test_inputs_are_left_alone() -> None:
    pixels, x = torch.tensor([0, 128], dtype=torch.uint8), torch.tensor([-0.5, 0.5])
    to_float(pixels), to_uint8(x)
    assert pixels.tolist() == [0, 128] and x.tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_not_finite_is_no_pixel(value: float, dtype: torch.dtype) -> None:
    x = torch.zeros(2, 3, 4, 4, dtype=dtype)
    x[1, 2, 3, 0] = value
    with pytest.raises(PagodaError, match=r"^runs/g made images with values that are not finite"):
        to_uint8(x, "runs/g")
