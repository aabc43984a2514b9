"""Consistency: paths that are known, the schedule, and a law that it finds."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from pagoda.errors import PagodaError
from pagoda.methods.consistency import Consistency, gap
from pagoda.networks.generator import Generator
from tests.methods.small import (
    CLASSES,
    Case,
    flat,
    given,
    make,
    off_before_and_after,
    section,
)

CASE, DOUBLE, SPREAD = Case("consistency", "generator"), torch.float64, 0.5


def _shape(sigma: Tensor) -> Tensor:
    return sigma[:, None, None, None]


def end(_: object, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
    """Of N(0, s^2): a path keeps x / sqrt(s^2 + sigma^2), so it ends at s times that."""
    return x * SPREAD / (SPREAD**2 + _shape(sigma) ** 2).sqrt()


class Gaussian(torch.nn.Module):
    """The exact denoiser of N(0, s^2)."""

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return x * SPREAD**2 / (SPREAD**2 + _shape(sigma) ** 2)


def test_neighbours_by_the_exact_teacher_have_one_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the third order of Heun's step."""
    method = make(CASE, DOUBLE, neighbours="teacher")
    assert isinstance(method, Consistency)
    method.teacher = Gaussian()
    monkeypatch.setattr(Generator, "consistency", end)
    torch.manual_seed(0)
    x, e = SPREAD * torch.randn(32, 3, 8, 8, dtype=DOUBLE), torch.randn(32, 3, 8, 8, dtype=DOUBLE)
    t, labels = torch.full((32,), 1.5, dtype=DOUBLE), torch.zeros(32, dtype=torch.long)
    errors = []
    for share in (0.1, 0.05, 0.025):
        found = method._target(x, e, t, t * (1 - share), labels)
        errors.append(float((found - end(None, x + 1.5 * e, t, labels)).abs().max()))
    assert errors[0] < 1e-2
    orders = [np.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders == pytest.approx([3, 3], abs=0.3)


def test_neighbours_from_data_share_image_and_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of data without spread every point ends at the one image: the loss is 0."""
    seen = []

    def record(_: object, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        seen.append((x, sigma))
        return x - _shape(sigma) * noise

    method = make(CASE, DOUBLE)
    assert isinstance(method, Consistency)
    monkeypatch.setattr(Generator, "consistency", record)
    torch.manual_seed(0)
    x, noise = torch.randn(5, 3, 8, 8, dtype=DOUBLE), torch.randn(5, 3, 8, 8, dtype=DOUBLE)
    t, r = torch.full((5,), 2.0, dtype=DOUBLE), torch.full((5,), 1.0, dtype=DOUBLE)
    target = method._target(x, noise, t, r, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(target, x)
    torch.testing.assert_close(seen[0][0], x + noise)
    below = method._target(x, noise, t, r * 0, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(below, x, rtol=0, atol=0)  # its own end


def test_the_schedule() -> None:
    t = torch.tensor([0.01, 1.0, 50.0], dtype=DOUBLE)
    for stage in range(8):
        share = 2.0 ** -(stage + 1) * (1 + 8 / (1 + np.exp(t.numpy())))
        expected = t.numpy() * np.maximum(0, 1 - share)
        np.testing.assert_allclose((t - gap(t, stage, 2.0)).numpy(), expected, rtol=1e-12)
    assert float(gap(t, 0, 2.0)[0]) == float(t[0])  # the first stage denoises to the image itself
    narrow = gap(t, 7, 4.0).numpy()  # of the last stage, which the loss divides by
    np.testing.assert_allclose(gap(t.float(), 7, 4.0).numpy(), narrow, rtol=1e-6)


def test_stages_after_which_neighbours_are_one_point_are_refused() -> None:
    section(CASE, shrink=4.0, stages=8)
    section(CASE, shrink=256.0, stages=2)
    for shrink, most in ((8.0, 5), (256.0, 2)):
        with pytest.raises(PagodaError, match=f"stages = 8; it must be at most {most}: .*float32"):
            section(CASE, shrink=shrink, stages=8)


def test_at_the_largest_noise_it_is_the_generator() -> None:
    method = make(CASE, DOUBLE)
    assert isinstance(method, Consistency)
    generator = method.generator
    torch.manual_seed(0)
    z, labels = torch.randn(4, 3, 8, 8, dtype=DOUBLE), torch.arange(4) % CLASSES
    sigma = torch.full((4,), generator.sigma_max, dtype=DOUBLE)
    found = generator.consistency(generator.sigma_max * z, sigma, labels)
    skipped = SPREAD**2 / (generator.sigma_max**2 + SPREAD**2) * generator.sigma_max * z
    torch.testing.assert_close(found, generator(z, labels) + skipped)


@pytest.mark.longer
def test_a_generator_that_is_off_moves_onto_the_data() -> None:
    target, steps = 0.5, 80
    own = given(CASE)
    config = section(CASE, **{
        "optim.images": steps * 16, "optim.batch": 16, "optim.lr": 3e-3, "optim.warmup": 0.0,
        "p_mean": 1.0, "stages": 3,
    })  # fmt: skip
    method = Consistency(config, dataclasses.replace(own, images=flat(target)))
    before, after = off_before_and_after(method, target, steps)
    assert before > 0.3 and after < before / 3
