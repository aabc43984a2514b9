"""Floating-point operations of a network, counted while it runs (a multiply-add counts as two)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def forward_flops(network: Callable[..., Tensor], *inputs: Tensor) -> float:
    """FLOPs of one call. Convolutions, matrix products and attention count; pointwise does not."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return float(counter.get_total_flops())


def training_flops(network: Callable[..., Tensor], *inputs: Tensor) -> float:
    """FLOPs of one call and its backward pass; frozen parts cost what they really cost."""
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs).float().sum().backward()
    return float(counter.get_total_flops())


def parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())
