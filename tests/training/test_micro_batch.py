"""Batches in parts train as whole ones do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pagoda.training.micro_batch import in_parts, slices
from pagoda.training.player import Player
from pagoda.training.settings import OptimConfig
from tests.methods.small import CPU


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


def test_a_step_whose_gradients_overflow_is_left_out_and_scaling_changes_nothing_else() -> None:
    def made(precision: str) -> tuple[nn.Linear, Player]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 1)
        return layer, Player(layer, OptimConfig(1, 1, 0.1, clip=1.0, precision=precision), CPU)

    (plain, usual), (layer, scaled) = made("fp32"), made("fp16")
    for factor in (1.0, float("inf"), 5.0):
        before = layer.weight.detach().clone()
        for net, updates in ((plain, usual), (layer, scaled)):
            if net is plain and factor == float("inf"):
                continue
            updates.backward(net(torch.ones(2, 3)).square().mean() * factor)
            norm = updates.update(0)
            assert norm.isfinite() and net.weight.grad is None
        assert torch.equal(layer.weight, before) == (factor == float("inf"))
    torch.testing.assert_close(layer.weight, plain.weight, rtol=1e-5, atol=1e-6)
    state = scaled.get_extra_state()
    assert state[0] == 2.0**15  # halved once from 2^16
    _, again = made("fp16")
    again.load_state_dict(scaled.state_dict())
    assert torch.equal(again.get_extra_state(), state)
    assert torch.equal(usual.get_extra_state(), torch.zeros(2, dtype=torch.float64))
