"""Optimisers and precision."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from pagoda import processes


@dataclass(frozen=True)
class OptimSpec:
    """An optimiser. ``radam`` is the paper's; ``adamw`` runs fused."""

    name: str
    lr: float
    betas: tuple[float, float]
    weight_decay: float = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over those of ``parameters`` that train."""
        train = [p for p in parameters if p.requires_grad]
        if self.name == "radam":
            return torch.optim.RAdam(
                train, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
            )
        return torch.optim.AdamW(
            train, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=True
        )


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Autocast to bfloat16 or float16 (``"bf16"``, ``"fp16"``); nothing for ``"fp32"``."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum gradients over the processes; each has weighted its loss by its share of the batch.

    Explicit, and not a wrapper around the network's forward: a loss may call parts of a network, or
    differentiate twice, and no gradient is left out.
    """
    processes.add_up([p.grad for p in parameters if p.grad is not None])
