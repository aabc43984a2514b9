"""Searches for latents of a linear generator, whose optimum is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pagoda.diffusion.solver import edm_grid
from pagoda.editing.latents import Shell, norms
from pagoda.editing.posterior import Langevin, dps, walk
from pagoda.editing.search import Found, Search, best_of, optimise
from pagoda.errors import PagodaError

ENTRIES = 3 * 2 * 2


class Linear:
    """G(z, c) = W_c z: images of 4 x 4 from latents of 2 x 2."""

    def __init__(self) -> None:
        drawn = torch.Generator().manual_seed(0)
        self.weights = torch.randn(2, 3 * 16, ENTRIES, generator=drawn) / ENTRIES**0.5

    def __call__(self, z: Tensor, labels: Tensor) -> Tensor:
        x = torch.einsum("nij,nj->ni", self.weights[labels].to(z), z.flatten(1))
        return x.view(len(z), 3, 4, 4)


G = Linear()
LABELS = torch.tensor([0, 1, 0])


def latents(seed: int, n: int = 3) -> Tensor:
    return torch.randn(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def top(x: Tensor) -> Tensor:
    """The upper half of an image: 24 numbers for 12 unknowns."""
    return x[:, :, :2]


def least_squares(seen: Tensor) -> Tensor:
    """argmin_z |A(W z) - y|^2 by the normal equations."""
    eye = torch.eye(ENTRIES).view(ENTRIES, 3, 2, 2)
    found = []
    for y, label in zip(seen, LABELS, strict=True):
        a = top(G(eye, label.expand(ENTRIES))).flatten(1).T
        found.append(torch.linalg.lstsq(a, y.flatten()[:, None]).solution.view(3, 2, 2))
    return torch.stack(found)


def test_the_optimum_of_a_linear_generator_is_found() -> None:
    """Of observations that no latent explains: least squares, by another route."""
    seen = top(G(latents(1), LABELS)) + 0.3 * torch.randn(3, 3, 2, 4, generator=(
        torch.Generator().manual_seed(2)))  # fmt: skip
    found = optimise(G, top, seen, LABELS, latents(3), search=Search(600, 0.1))
    torch.testing.assert_close(found.latents, least_squares(seen), atol=2e-2, rtol=0)
    torch.testing.assert_close(found.images, G(found.latents, LABELS))
    torch.testing.assert_close(found.errors, (top(found.images) - seen).square().mean((1, 2, 3)))


def test_what_was_not_seen_is_found_too() -> None:
    truth = latents(1)
    seen = top(G(truth, LABELS))
    found = optimise(G, top, seen, LABELS, latents(3), search=Search(600, 0.1))
    assert (found.images - G(truth, LABELS)).abs().max() < 2e-2


def test_the_best_is_kept_and_is_no_worse_than_the_start() -> None:
    truth = latents(1)
    seen = top(G(truth, LABELS))
    wild = Search(20, 50.0)  # of which the last is far worse than the start
    near = truth + 0.01 * latents(4)
    found = optimise(G, top, seen, LABELS, near, search=wild)
    start = (top(G(near, LABELS)) - seen).square().mean((1, 2, 3))
    assert (found.errors <= start).all()
    exact = optimise(G, top, seen, LABELS, truth, search=wild)
    torch.testing.assert_close(exact.latents, truth, rtol=0, atol=0)


def test_a_search_stays_in_its_shell() -> None:
    seen = top(G(5 * latents(1), LABELS))
    shell = Shell(0.7, 0.8)
    found = optimise(G, top, seen, LABELS, latents(3), search=Search(50), shell=shell)
    assert (norms(found.latents) <= 0.8 + 1e-6).all()
    free = optimise(G, top, seen, LABELS, latents(3), search=Search(50))
    assert (norms(free.latents) > 0.8).all() and (free.errors < found.errors).all()


def test_an_images_search_knows_nothing_of_the_others() -> None:
    seen = top(G(latents(1), LABELS))
    every = optimise(G, top, seen, LABELS, latents(3), search=Search(20))
    one = optimise(G, top, seen[1:2], LABELS[1:2], latents(3)[1:2], search=Search(20),
                   keys=np.array([1]))  # fmt: skip
    torch.testing.assert_close(one.latents, every.latents[1:2])


def test_of_several_starts_the_nearest_counts() -> None:
    errors = torch.tensor([3.0, 1.0, 2.0, 5.0, 7.0, 4.0])
    rows = torch.arange(6.0)[:, None]
    best = best_of(3, Found(rows, rows, errors))
    assert best.latents.flatten().tolist() == [1, 5] and best.errors.tolist() == [1, 4]


def test_the_rate_rises_and_falls_and_the_noise_goes() -> None:
    """StyleGAN2-ADA's projector: 5 % up, 25 % down, noise gone at 75 %."""
    search = Search(100, 0.2)
    rates = [search.rate(i) for i in range(100)]
    assert rates[0] == pytest.approx(0.2 / 5) and rates[5:75] == pytest.approx([0.2] * 70)
    assert rates[87] == pytest.approx(0.1, rel=0.1) and rates[99] < 2e-3
    assert search.strength(1) > search.strength(40) > 0 == search.strength(75)
    for wrong in ({"steps": 0}, {"lr": 0.0}):
        with pytest.raises(PagodaError, match="it needs 1 step or more and a learning rate"):
            Search(**wrong)


def test_langevin_samples_the_gaussian_posterior_of_a_linear_generator() -> None:
    """z ~ N(0, I), y = A z + n: covariance (A^T A / s^2 + I)^-1, mean that times A^T y / s^2."""
    n, sigma = 600, 0.5
    labels = torch.zeros(n, dtype=torch.long)
    y = top(G(latents(1, 1), labels[:1]))
    a = top(G(torch.eye(ENTRIES).view(-1, 3, 2, 2), labels[:ENTRIES])).flatten(1).T
    covariance = torch.linalg.inv(a.T @ a / sigma**2 + torch.eye(ENTRIES))
    mean = covariance @ a.T @ y.flatten() / sigma**2
    start = torch.zeros(n, 3, 2, 2)
    z = walk(G, top, y.expand(n, -1, -1, -1), labels, start, how=Langevin(150, 0.02, sigma))
    flat = z.flatten(1)
    assert (flat.mean(0) - mean).abs().max() < 5 * (covariance.diagonal().max() / n) ** 0.5
    torch.testing.assert_close(flat.T.cov(), covariance, atol=0.15, rtol=0)


def gaussian(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
    """The denoiser of data ~ N(0, 1/4): x / (1 + 4 s^2)."""
    return x / (1 + 4 * sigma[:, None, None, None] ** 2)


@pytest.mark.longer
def test_dps_without_an_observation_samples_the_prior() -> None:
    grid, noise = edm_grid(300, 0.002, 80.0, 7.0), latents(0, 400)
    x = dps(gaussian, top, torch.zeros(400, 3, 1, 2), None, noise, grid, scale=0.0)
    assert x.std().item() == pytest.approx(0.5, rel=0.04) and abs(x.mean().item()) < 0.03


def test_dps_meets_the_observation_and_leaves_the_rest_to_the_prior() -> None:
    def left(x: Tensor) -> Tensor:
        return x[..., :1]

    n = 200
    seen = torch.full((n, 3, 2, 1), 0.4)
    x = dps(gaussian, left, seen, None, latents(0, n), edm_grid(300, 0.002, 80.0, 7.0), scale=0.3)
    assert (left(x) - seen).abs().mean() < 0.1  # 0.5 for the prior
    assert x[..., 1:].std().item() == pytest.approx(0.5, rel=0.06)
