"""EDM preconditioning against the conditions it was derived from (Karras et al. 2022, app. B.6)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pagoda.diffusion.edm import loss_weight, scalings
from pagoda.errors import PagodaError


@pytest.fixture
def sigma() -> Tensor:
    """Noise levels over the whole range of training and sampling, float64."""
    return torch.empty(200, dtype=torch.float64).uniform_(math.log(1e-3), math.log(100)).exp()


@pytest.mark.parametrize("sigma_data", [0.5, 1.7])
def test_network_input_has_unit_variance(sigma: Tensor, sigma_data: float) -> None:
    variance = scalings(sigma, sigma_data).c_in ** 2 * (sigma_data**2 + sigma**2)
    torch.testing.assert_close(variance, torch.ones_like(sigma))


@pytest.mark.parametrize("sigma_data", [0.5, 1.7])
def test_effective_target_has_unit_variance(sigma: Tensor, sigma_data: float) -> None:
    """F should predict (y - c_skip (y + n)) / c_out; y and n are independent."""
    s = scalings(sigma, sigma_data)
    variance = ((1 - s.c_skip) ** 2 * sigma_data**2 + s.c_skip**2 * sigma**2) / s.c_out**2
    torch.testing.assert_close(variance, torch.ones_like(sigma))


def test_c_skip_makes_c_out_smallest(sigma: Tensor) -> None:
    """c_out^2 is a parabola in c_skip, and the chosen c_skip is its vertex."""

    def c_out_squared(c_skip: Tensor) -> Tensor:
        return (1 - c_skip) ** 2 * 0.5**2 + c_skip**2 * sigma**2

    s = scalings(sigma, 0.5)
    torch.testing.assert_close(c_out_squared(s.c_skip), s.c_out**2)
    for change in (-1e-3, 1e-3):
        assert (c_out_squared(s.c_skip + change) > s.c_out**2).all()


def test_weighted_loss_is_plain_in_the_network(sigma: Tensor) -> None:
    product = loss_weight(sigma, 0.5) * scalings(sigma, 0.5).c_out ** 2
    torch.testing.assert_close(product, torch.ones_like(sigma))


def test_c_noise_is_a_quarter_of_the_logarithm() -> None:
    e = torch.tensor([1.0, math.e**4, math.e**-8], dtype=torch.float64)
    expected = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(scalings(e, 0.5).c_noise, expected)


@pytest.mark.parametrize("level", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("function", [scalings, loss_weight])
def test_a_level_without_a_denoiser_is_refused(function: Any, level: float) -> None:
    with pytest.raises(PagodaError, match="sigma is not positive and finite"):
        function(torch.tensor([1.0, level]), 0.5)
    with pytest.raises(PagodaError, match=r"^sigma_data = "):
        function(torch.tensor([1.0]), level)
