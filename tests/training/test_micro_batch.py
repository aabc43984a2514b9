"""Batches in parts train as whole ones do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pagoda.training.micro_batch import in_parts, slices
from pagoda.training.optim import OptimSpec, Updates
from pagoda.training.teacher import TeacherStep
from tests.training.test_processes import BATCH, CPU, OPTIM, Doubles, one_step, pixels, teacher


def teacher_step(**changes: Any) -> TeacherStep:
    return TeacherStep(
        teacher(), Doubles(pixels(20, 8), np.arange(20) % 4, CPU), batch=BATCH, optim=OPTIM,
        p_mean=-1.2, p_std=1.2, clip=1.0, ema=0.9, precision="fp32", **changes,
    )  # fmt: skip


def test_slices_cover_all_rows() -> None:
    assert list(slices(7, 3)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(slices(7, None)) == [slice(0, 7)] and list(slices(0, None)) == []


def test_in_parts_keeps_the_activations_of_one_part() -> None:
    """Value and gradients are the whole's; no call sees more than a part, in either direction."""
    seen: list[int] = []
    layer = nn.Linear(3, 3).double()

    def network(x: Tensor) -> Tensor:
        seen.append(len(x))
        return layer(x).tanh()

    x = torch.randn(7, 3, dtype=torch.float64)
    out = in_parts(network, 3, x)
    out.std(0).sum().backward()  # mixes the rows
    assert seen == [3, 3, 1] or sorted(seen) == [1, 1, 3, 3, 3, 3]
    assert max(seen) == 3 and len(seen) == 6  # once forward, once again for the gradient
    parts = layer.weight.grad
    assert parts is not None
    layer.weight.grad = None
    layer(x).tanh().std(0).sum().backward()
    torch.testing.assert_close(parts, layer.weight.grad, rtol=1e-12, atol=1e-14)


MAKERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "teacher": (teacher_step, {}),
    "distill": (lambda **k: one_step(False, **k), {}),
    "grow": (
        lambda **k: one_step(True, **k),
        {"weighting": "fixed", "adversarial": "non_saturating", "fakes": "both"},
    ),
}


@pytest.mark.parametrize("what", MAKERS)
@pytest.mark.parametrize("most", [1, 3])
def test_micro_batches_train_as_the_whole_batch(what: str, most: int) -> None:
    """In float64, every loss term on, the statistic of the batch and R1 among them."""
    make, options = MAKERS[what]
    whole, parts = make(**options), make(**options, micro_batch=most)
    for i in range(2):
        stats = []
        for step in (whole, parts):
            torch.manual_seed(i)
            stats.append(step(i, 0.5))
        for key, value in stats[0].items():
            assert float(stats[1][key]) == pytest.approx(float(value), rel=1e-9, abs=1e-12), key
    for name, module in whole.modules.items():
        other = parts.modules[name].state_dict()
        for key, value in module.state_dict().items():
            torch.testing.assert_close(other[key], value, rtol=0, atol=1e-6)


def test_a_step_whose_gradients_overflow_is_left_out_and_scaling_changes_nothing_else() -> None:
    def made(precision: str) -> tuple[nn.Linear, Updates]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 1)
        optimizer = OptimSpec("adamw", 0.1, (0.9, 0.99)).build(layer.parameters())
        return layer, Updates(optimizer, layer.parameters(), precision, clip=1.0)

    (plain, usual), (layer, scaled) = made("fp32"), made("fp16")
    for factor in (1.0, float("inf"), 5.0):
        before = layer.weight.detach().clone()
        for net, updates in ((plain, usual), (layer, scaled)):
            if net is plain and factor == float("inf"):
                continue
            updates.backward(net(torch.ones(2, 3)).square().mean() * factor)
            norm = updates.step()
            assert norm.isfinite() and net.weight.grad is None
        assert torch.equal(layer.weight, before) == (factor == float("inf"))
    torch.testing.assert_close(layer.weight, plain.weight, rtol=1e-5, atol=1e-6)
    state = scaled.get_extra_state()
    assert state[0] == 2.0**15  # halved once from 2^16
    _, again = made("fp16")
    again.load_state_dict(scaled.state_dict())
    assert torch.equal(again.get_extra_state(), state)
    assert torch.equal(usual.get_extra_state(), torch.zeros(2, dtype=torch.float64))
