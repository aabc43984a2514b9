"""The ODE solver on Gaussian data, where denoiser and trajectories are known exactly.

For x ~ N(m, v I) the denoiser is D(x; s) = m + v / (v + s^2) (x - m), and the probability-flow ODE
carries x(s) = m + (x(t) - m) sqrt((v + s^2) / (v + t^2)).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pagoda.diffusion.solver import Denoiser, edm_grid, guided, integrate, invert, nfe, sample
from pagoda.errors import PagodaError

MEAN, VARIANCE = 0.3, 0.25
GRID = {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}


def gaussian(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
    s = sigma[:, None, None, None]
    return MEAN + VARIANCE / (VARIANCE + s**2) * (x - MEAN)


def carried(x: Tensor, start: float, end: float) -> Tensor:
    return MEAN + (x - MEAN) * math.sqrt((VARIANCE + end**2) / (VARIANCE + start**2))


@pytest.mark.parametrize("steps", [2, 7, 40])
def test_grid_is_the_formula(steps: int) -> None:
    grid = edm_grid(steps, **GRID)
    assert grid.shape == (steps + 1,) and grid.dtype == torch.float64
    for i in range(steps):
        root = 80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))
        assert grid[i].item() == pytest.approx(root**7, rel=1e-12)
    assert grid[0].item() == pytest.approx(80) and grid[-2].item() == pytest.approx(0.002)
    assert grid[-1] == 0
    assert all(a > b for a, b in pairwise(grid.tolist()))


def test_grid_with_rho_one_is_uniform() -> None:
    torch.testing.assert_close(
        edm_grid(5, sigma_min=1.0, sigma_max=9.0, rho=1.0),
        torch.tensor([9.0, 7.0, 5.0, 3.0, 1.0, 0.0], dtype=torch.float64),
    )


def _errors(solver: str, rising: bool, counts: list[int]) -> list[float]:
    x = torch.randn(4, 1, 2, 2, dtype=torch.float64) * 3
    errors = []
    for steps in counts:
        levels = edm_grid(steps, sigma_min=0.05, sigma_max=10.0, rho=7.0)[:-1]
        levels = levels.flip(0) if rising else levels
        out = integrate(gaussian, x, levels, None, solver)
        exact = carried(x, levels[0].item(), levels[-1].item())
        errors.append((out - exact).abs().max().item())
    return errors


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(solver: str, order: int, rising: bool) -> None:
    errors = _errors(solver, rising, [129, 257, 513])
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


def test_sampling_reaches_the_data_distribution() -> None:
    """Down to s = 0, where the variance of x must be that of the data."""
    x = torch.randn(8, 1, 3, 3, dtype=torch.float64) * 80
    out = sample(gaussian, x, edm_grid(400, **GRID), None)
    torch.testing.assert_close(out, carried(x, 80.0, 0.0), rtol=0, atol=1e-3)


def test_last_step_is_the_denoiser_itself() -> None:
    """Euler from s to 0 is x - s (x - D) / s = D."""
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    out = integrate(gaussian, x, torch.tensor([0.7, 0.0], dtype=torch.float64), None, "heun")
    torch.testing.assert_close(out, gaussian(x, torch.full((3,), 0.7).double(), None))


def test_invert_then_sample_returns_the_image() -> None:
    x = torch.rand(6, 3, 4, 4, dtype=torch.float64) * 2 - 1
    grid = edm_grid(300, **GRID)
    latents = invert(gaussian, x, grid, None)
    assert (latents - x).abs().max() > 10  # it went somewhere
    # An image counts as the state at sigma_min: sampling to 0 shrinks it by this much at most.
    shrink = 2 * (1 - math.sqrt(VARIANCE / (VARIANCE + 0.002**2)))
    torch.testing.assert_close(sample(gaussian, latents, grid, None), x, rtol=0, atol=shrink + 1e-3)


def test_latents_of_gaussian_data_have_the_predicted_variance() -> None:
    """Of clean images: v (v + smax^2) / (v + smin^2), not smax^2 + v, and mean m."""
    x = MEAN + math.sqrt(VARIANCE) * torch.randn(500, 1, 4, 4, dtype=torch.float64)
    latents = invert(gaussian, x, edm_grid(400, **GRID), None)
    ratio = (VARIANCE + 80.0**2) / (VARIANCE + 0.002**2)
    assert latents.var().item() == pytest.approx(x.var().item() * ratio, rel=1e-3)
    offset = (x.mean().item() - MEAN) * math.sqrt(ratio)
    assert latents.mean().item() == pytest.approx(MEAN + offset, rel=1e-2)


class Counting:
    """A denoiser that counts its calls and notes the levels and labels."""

    def __init__(self, inner: Denoiser) -> None:
        self.inner, self.calls, self.levels = inner, 0, set[float]()
        self.labels: list[Tensor | None] = []

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        assert sigma.shape == (len(x),)
        self.calls += 1
        self.levels.update(sigma.tolist())
        self.labels.append(labels)
        return self.inner(x, sigma, labels)


@pytest.mark.parametrize("steps", [2, 5, 18])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_nfe_is_what_the_solver_calls(solver: str, steps: int) -> None:
    x, grid = torch.zeros(2, 1, 2, 2, dtype=torch.float64), edm_grid(steps, **GRID)
    labels = torch.tensor([1, 0])
    down, up = Counting(gaussian), Counting(gaussian)
    sample(down, x, grid, labels, solver)
    invert(up, x, grid, labels, solver)
    assert down.calls == nfe(steps, solver)
    assert up.calls == nfe(steps, solver, inverse=True)
    assert down.levels == set(grid[:-1].tolist())  # never at 0, where the slope is undefined
    assert up.levels <= set(grid[:-1].tolist()) and min(up.levels) == grid[-2].item()
    assert all(given is labels for given in down.labels + up.labels)


def test_state_keeps_its_dtype() -> None:
    x = torch.randn(2, 1, 2, 2)
    assert sample(gaussian, x, edm_grid(4, **GRID), None).dtype == torch.float32


def test_the_published_inversion_counts_79_evaluations_and_ends_at_the_same_latents() -> None:
    """As the official sampler walks the 40 levels upwards; its last evaluation goes unused."""
    levels = edm_grid(40, 0.002, 80.0, 7.0).tolist()
    counted = 0

    def denoiser(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        nonlocal counted
        counted += 1
        s = sigma[:, None, None, None]
        return (0.25 * x / (0.25 + s * s)).clamp(-1, 1)

    images = torch.rand(2, 3, 4, 4, dtype=torch.float64) * 2 - 1
    x = images
    for i in reversed(range(40)):
        s, above = levels[i], levels[i - 1]  # levels[-1] is the trailing 0
        slope = (x - denoiser(x, x.new_full((2,), s), None)) / s
        if above == 0:
            break
        ahead = x + slope * (above - s)
        slope_ahead = (ahead - denoiser(ahead, x.new_full((2,), above), None)) / above
        x = x + (slope + slope_ahead) / 2 * (above - s)
    assert counted == 79
    counted = 0
    ours = invert(denoiser, images, edm_grid(40, 0.002, 80.0, 7.0), None)
    assert counted == nfe(40, "heun", inverse=True) == 78
    torch.testing.assert_close(ours, x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.5])
def test_guidance_mixes_the_scores_of_conditional_and_marginal(weight: float) -> None:
    """p(x | c) = N(c, 1) and p(x) = N(0, 3), both with noise: w score(x | c) + (1 - w) score(x)."""

    def denoiser(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        s = sigma[:, None, None, None]
        if labels is None:
            return x - s**2 * x / (3 + s**2)
        mean = labels[:, None, None, None]
        return x + s**2 * (mean - x) / (1 + s**2)

    x, labels = torch.randn(4, 1, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    s = torch.tensor([0.1, 1.0, 5.0, 40.0], dtype=torch.float64)
    square, mean = (s**2)[:, None, None, None], labels[:, None, None, None]
    score = weight * (mean - x) / (1 + square) + (1 - weight) * -x / (3 + square)
    torch.testing.assert_close(guided(denoiser, weight)(x, s, labels), x + square * score)
    counted = Counting(denoiser)
    invert(guided(counted, weight), x, edm_grid(5, **GRID), labels)
    assert counted.calls == nfe(5, "heun", inverse=True, guidance=weight)


def _gaussian(variance: float) -> Any:
    """The denoiser of N(c, variance); of N(0, 3 variance) where no class is told."""

    def denoiser(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        mean = 0 if labels is None else labels[:, None, None, None]
        v, s = variance * (3 if labels is None else 1), sigma[:, None, None, None]
        return x + s**2 * (mean - x) / (v + s**2)

    return denoiser


def test_every_image_has_its_own_weight() -> None:
    x, labels = torch.randn(3, 1, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2])
    weights = torch.tensor([1.0, 0.5, 3.0])
    together = invert(guided(_gaussian(1.0), weights), x, edm_grid(5, **GRID), labels)
    for i, w in enumerate(weights.tolist()):
        row = slice(i, i + 1)
        alone = invert(guided(_gaussian(1.0), w), x[row], edm_grid(5, **GRID), labels[row])
        torch.testing.assert_close(together[row], alone)


def test_autoguidance_mixes_with_the_weaker_denoiser_of_the_class() -> None:
    strong, weak = _gaussian(1.0), _gaussian(2.0)
    x, labels = torch.randn(2, 1, 2, 2, dtype=torch.float64), torch.tensor([0, 1])
    s = torch.tensor([0.5, 2.0], dtype=torch.float64)
    mixed = guided(strong, 2.5, guide=weak)(x, s, labels)
    expected = weak(x, s, labels) + 2.5 * (strong(x, s, labels) - weak(x, s, labels))
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(
        guided(strong, 2.5, guide=strong)(x, s, labels), strong(x, s, labels)
    )


@pytest.mark.parametrize("solver", ["heun", "euler"])
@pytest.mark.parametrize("levels", [(0.0, 100.0), (0.1, 5.0), (5.0, 80.0), (90.0, 95.0)])
def test_noise_levels_outside_of_the_interval_are_not_guided(
    levels: tuple[float, float], solver: str
) -> None:
    plain, x, labels = _gaussian(1.0), torch.randn(2, 1, 2, 2, dtype=torch.float64), None
    labels = torch.tensor([1, 2])
    for level in (0.01, 1.0, 20.0, 80.0):
        s = torch.full((2,), level, dtype=torch.float64)
        inside = levels[0] < level <= levels[1]
        whole = guided(plain, 3.0)(x, s, labels) if inside else plain(x, s, labels)
        torch.testing.assert_close(guided(plain, 3.0, levels=levels)(x, s, labels), whole)
    counted, grid = Counting(plain), edm_grid(7, **GRID)
    sample(guided(counted, 3.0, levels=levels), x, grid, labels, solver)
    calls = nfe(7, solver, guidance=3.0, guided_levels=levels, grid=grid)
    assert counted.calls == calls
    assert (calls == nfe(7, solver, guidance=3.0)) == (levels == (0.0, 100.0))


@pytest.mark.parametrize(
    "change",
    [{"rho": math.inf}, {"rho": 0.0}, {"sigma_min": 0.0}, {"sigma_max": math.inf},
     {"sigma_min": 90.0}, {"sigma_min": math.nan}, {"steps": 1}],
)  # fmt: skip
def test_a_grid_of_levels_that_are_none_is_refused(change: dict[str, Any]) -> None:
    known = {"steps": 5, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}
    with pytest.raises(PagodaError, match=r"^a grid of . noise levels from sigma_min = "):
        edm_grid(**known | change)


@pytest.mark.parametrize("levels", [[0.0, 1.0], [2.0, 0.0, 1.0], [math.inf, 1.0], [1.0, math.nan]])
def test_an_ode_without_a_slope_is_refused(levels: list[float]) -> None:
    x = torch.ones(1, 1, 1, 1)
    with pytest.raises(PagodaError, match="only the last may be 0"):
        integrate(lambda x, sigma, labels: x / 2, x, torch.tensor(levels), None, "heun")


@pytest.mark.parametrize("solver", ["Heun", "rk4", ""])
def test_a_solver_that_there_is_not_is_refused(solver: str) -> None:
    """It ran Euler's method."""
    with pytest.raises(PagodaError, match=r"^solver = .*; it must be 'euler' or 'heun'$"):
        sample(lambda x, *_: x, torch.zeros(1, 3, 2, 2), edm_grid(3, 0.1, 1.0, 7.0), None, solver)
