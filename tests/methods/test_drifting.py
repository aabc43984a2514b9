"""Drifting: a field that is known, and a law that it finds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pagoda.errors import PagodaError
from pagoda.methods.drifting import Drifting, drift
from pagoda.training.draw import GlobalDraw
from pagoda.training.loop import run_step
from tests.methods.small import CPU, Case, flat, given, make, off, section

CASE, DOUBLE = Case("drifting", "generator"), torch.float64


def _points(*shapes: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(n, 5, dtype=DOUBLE) for n in shapes]


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_it_turns_round_when_the_sets_change_places_and_is_zero_between_equal_ones(
    tau: float,
) -> None:
    x, real, made = _points(4, 6, 6)
    found = drift(x, real, made, tau)
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(drift(x, made, real, tau), -found)
    assert drift(x, real, real.flip(0), tau).abs().max() < 1e-12


def test_one_point_between_two() -> None:
    """V = sqrt(a (1 - a)) (y - w), a = sigmoid((|x - w| - |x - y|) / tau)."""
    x, real, made = _points(1, 1, 1)
    tau = 0.7
    nearer = (x - made).norm() - (x - real).norm()
    a = torch.sigmoid(nearer / tau)
    torch.testing.assert_close(drift(x, real, made, tau), (a * (1 - a)).sqrt() * (real - made))


def test_classes_do_not_see_each_other_and_a_lone_point_stays() -> None:
    x, real, made = _points(4, 4, 4)
    classes = torch.tensor([0, 0, 0, 1])
    same = classes[:, None] == classes
    seen = torch.cat([same, same & ~torch.eye(4, dtype=torch.bool)], dim=1)
    found = drift(x, real, made, 1.0, seen)
    ones = torch.cat([torch.ones(3, 3), 1 - torch.eye(3)], dim=1) > 0
    torch.testing.assert_close(found[:3], drift(x[:3], real[:3], made[:3], 1.0, ones))
    assert torch.equal(found[3], torch.zeros(5, dtype=DOUBLE))


def test_the_gradient_of_the_loss_is_the_field() -> None:
    """d/dphi of the mean of || phi s - sg(phi s + V) ||^2 is -2 s V / (n c): no gradient of V."""
    method = make(CASE, DOUBLE, temperatures=[0.3], normalise=False)
    assert isinstance(method, Drifting)
    torch.manual_seed(0)
    n = method.config.optim.batch
    mine = torch.randn(6, n, 8, dtype=DOUBLE, requires_grad=True)
    data, seen = torch.randn(6, n, 8, dtype=DOUBLE), torch.ones(n, 2 * n, dtype=torch.bool)
    loss = method._loss(GlobalDraw(CPU), mine, data, seen)
    (gradient,) = torch.autograd.grad(loss, mine)
    phi = mine.detach()
    apart = torch.cat([torch.cdist(phi, data), torch.cdist(phi, phi)], dim=-1)
    scale = np.sqrt(8) / apart.mean((1, 2), keepdim=True)
    field = drift(phi * scale, data * scale, phi * scale, 0.3 * np.sqrt(8))
    torch.testing.assert_close(gradient, -2 * scale * field / (n * 8))
    assert loss.item() == pytest.approx(float(field.square().mean((1, 2)).sum()), rel=1e-9)


@pytest.mark.longer
def test_a_generator_that_is_off_moves_onto_the_data() -> None:
    target, steps = 0.5, 40
    config = section(CASE, **{
        "optim.images": steps * 16, "optim.batch": 16, "optim.lr": 3e-3, "optim.warmup": 0.0,
        "optim.decay": 0.5,
    })  # fmt: skip
    method = Drifting(config, dataclasses.replace(given(CASE), images=flat(target)))
    before = off(method.generator, target)
    for i in range(steps):
        method.player.schedule(config.optim.rate(i / steps))
        run_step(method, GlobalDraw(CPU), i, i / steps)
    assert before > 0.3 and off(method.generator, target) < before / 3


def test_what_it_cannot_do_is_one_line() -> None:
    with pytest.raises(PagodaError, match=r"knows 8x8, not 16x16; use it in distill"):
        make(Case("drifting", "grown"))
    with pytest.raises(PagodaError, match=r"batch = 4 must be above the number of classes, 4"):
        make(CASE, **{"optim.batch": 4, "optim.images": 4})
    with pytest.raises(PagodaError, match="temperatures"):
        section(CASE, temperatures=[0.1, 0.0])
