"""Optimisers and precision."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pagoda import distributed
from pagoda.training import sharding


@dataclass(frozen=True)
class OptimSpec:
    """An optimiser. ``radam`` is the paper's; ``adamw`` runs fused."""

    name: str
    lr: float
    betas: tuple[float, float]
    weight_decay: float = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over those of ``parameters`` that train.

        Cut and whole ones are groups apart, in their order: no kernel takes both.
        """
        trained = (p for p in parameters if p.requires_grad)
        train = [{"params": list(g)} for _, g in itertools.groupby(trained, sharding.is_sharded)]
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
    whole = (p.grad for p in parameters if p.grad is not None and not sharding.is_sharded(p.grad))
    distributed.all_reduce_(list(whole))  # those of cut weights were summed when they were made


class Updates(nn.Module):
    """Backward passes that add up, and the optimiser's step that ends them.

    Under fp16 losses are scaled so that small gradients do not vanish; a step whose gradients
    overflow is left out and the scale is halved (``torch.amp.GradScaler``). The scale is part of
    the module's state.

    Args:
        optimizer: over ``parameters``.
        precision: of the networks; only ``"fp16"`` scales.
        clip: largest gradient norm; None: no clipping.
        measured: whether :meth:`step` returns the norm though nothing is clipped.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], precision: str,
        clip: float | None = None, *, measured: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self._optimizer, self._clip, self._measured = optimizer, clip, measured
        self._train = [p for p in parameters if p.requires_grad]
        device = self._train[0].device.type
        self._scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")

    def scaled(self, loss: Tensor) -> Tensor:
        """What :meth:`backward` differentiates."""
        return self._scaler.scale(loss)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss: this process's share of the batch's."""
        self.scaled(loss).backward()

    def step(self) -> Tensor:
        """Sum over the processes, clip, update; the gradient's norm, 0 if the step was left out."""
        reduce_gradients(self._train)
        self._scaler.unscale_(self._optimizer)
        norm = torch.zeros(())
        if self._measured:
            limit = self._clip if self._clip is not None else float("inf")
            cut = any(sharding.is_sharded(p) for p in self._train)
            clip = sharding.clip_gradients if cut else nn.utils.clip_grad_norm_
            norm = clip(self._train, limit).detach()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return norm.nan_to_num(0.0, 0.0) if self._scaler.is_enabled() else norm

    def get_extra_state(self) -> Tensor:
        """The scale and the steps since it last changed; zeros without scaling."""
        state = self._scaler.state_dict()
        values = [state.get("scale", 0.0), state.get("_growth_tracker", 0)]
        return torch.tensor(values, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over what :meth:`get_extra_state` returned."""
        if self._scaler.is_enabled():
            known = self._scaler.state_dict()
            scale, steps = state.tolist()
            known |= {"scale": scale, "_growth_tracker": int(steps)}
            self._scaler.load_state_dict(known)
