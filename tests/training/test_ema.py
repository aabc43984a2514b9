"""The moving average of weights against its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pagoda.training.ema import EMA


def scalar(value: float) -> nn.Linear:
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(module.weight, value)
    return module


def test_constant_weights_are_approached_geometrically() -> None:
    """After k updates at decay d towards w, the distance to w is d^k of what it was."""
    module = scalar(1.0)
    ema = EMA(module, decay=0.8)
    nn.init.constant_(module.weight, 5.0)
    for _ in range(7):
        ema.update(step=10_000)
    weight = next(ema.model.parameters())
    assert weight.item() == pytest.approx(5 - 4 * 0.8**7, rel=1e-12)


def test_decay_is_ramped() -> None:
    module = scalar(0.0)
    ema = EMA(module, decay=0.9)
    nn.init.constant_(module.weight, 1.0)
    remembered = 1.0
    for t in range(120):
        ema.update(t)
        remembered *= min(0.9, (1 + t) / (10 + t))
        assert next(ema.model.parameters()).item() == pytest.approx(1 - remembered, rel=1e-9)


def test_frozen_parameters_are_left_alone() -> None:
    module = nn.Sequential(scalar(1.0), scalar(1.0))
    module[0].requires_grad_(False)
    ema = EMA(module, decay=0.5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(3.0)
    ema.update(10_000)
    frozen, moving = (p.item() for p in ema.model.parameters())
    assert frozen == 1.0 and moving == 2.0


def test_the_average_is_a_copy_in_eval_mode_without_gradients() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    ema = EMA(module, decay=0.5)
    assert not ema.model.training and module.training
    assert not any(p.requires_grad for p in ema.model.parameters())
    before = [p.clone() for p in ema.model.parameters()]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(before, ema.model.parameters(), strict=True))
