"""A network that trains: its optimiser, precision, gradient over all processes, and averages."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pagoda import distributed
from pagoda.errors import PagodaError
from pagoda.training import sharding
from pagoda.training.ema import EMA, PowerAverages
from pagoda.training.settings import OptimConfig


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Autocast to bfloat16 or float16 (``"bf16"``, ``"fp16"``); nothing for ``"fp32"``.

    Nor for shapes alone, on the meta device.
    """
    if device.type == "meta":
        return contextlib.nullcontext()
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


class Player(nn.Module):
    """A network, what updates it, and the averages of its weights.

    Backward passes add up until :meth:`update` ends them. Under fp16 losses are scaled so that
    small gradients do not vanish; a step whose gradients overflow is left out and the scale is
    halved (``torch.amp.GradScaler``). Its state is that of the network, the averages and the scale.

    Args:
        network: on its device; where weights are to be sharded, on the CPU.
        optim: ``radam`` is the paper's optimiser; ``adamw`` runs fused.
        device: where it trains.
        main: averages are kept, weights are sharded if that is wanted, and the norm of the gradient
            is measured though nothing is clipped.
        batches: sizes of other batches than ``optim.batch`` that the network sees.
        keep: the parameter that a loss differentiates by outside of the backward pass.
        compiled: calls of the network may be compiled.

    Raises:
        PagodaError: a batch has fewer images than there are processes.
    """

    def __init__(
        self, network: nn.Module, optim: OptimConfig, device: torch.device, *, main: bool = True,
        batches: Sequence[int] = (), keep: Callable[[Any], nn.Parameter] | None = None,
        compiled: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network, self._optim, self._device, self._main = network.train(), optim, device, main
        self._average: EMA | None = None
        self._powers: PowerAverages | None = None
        if main:
            _check_shared([optim.batch, *batches])
            ema = self._average = EMA(network, optim.ema)
            power = self._powers = PowerAverages(
                network, optim.ema_profiles, optim.steps, optim.ema_snapshots
            )
            self.ema = ema.model
            self.powers = nn.ModuleList(power.models.values())
            sharding.check(optim.precision, [optim.batch, *batches], optim.micro_batch)
            sharding.shard(device, network, ema.model, *self.powers, keep=keep)
        if optim.compile and compiled:
            network.compile()
        self._train = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = _optimizer(optim, self._train, fused=device.type != "meta")
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        scaled = optim.precision == "fp16" and device.type != "meta"
        self._scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision that networks compute in."""
        return autocast(self._device, self._optim.precision)

    def gradient_norm(self, loss: Tensor, parameter: nn.Parameter) -> Tensor:
        """|| d loss / d parameter ||, summed over the processes before; as scaled for backward.

        Where that scale overflows float16, which is for :meth:`update` to find, it is measured
        with a smaller one.
        """
        scale = used = self._scaler.get_scale()
        while True:
            (gradient,) = torch.autograd.grad(loss * used, parameter, retain_graph=True)
            distributed.all_reduce_([gradient])
            norm = gradient.norm()
            if used <= 1.0 or norm.isfinite():
                return norm * (scale / used)
            used /= 16.0

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss: this process's part of the whole batch's."""
        self._scaler.scale(loss).backward()

    def update(self, step: int) -> Tensor:
        """Sum over the processes, clip, step, average; the gradient's norm, 0 if it was left out.

        Gradients are summed explicitly, not by a wrapper around the network's forward: a loss may
        call parts of a network, or differentiate twice, and none is left out.
        """
        gradients = [p.grad for p in self._train if p.grad is not None]
        # Those of sharded weights were summed when they were made.
        distributed.all_reduce_([g for g in gradients if not sharding.is_sharded(g)])
        self._scaler.unscale_(self.optimizer)
        norm = torch.zeros(())
        if self._main or self._optim.clip is not None:
            limit = self._optim.clip if self._optim.clip is not None else float("inf")
            sharded = any(sharding.is_sharded(p) for p in self._train)
            clip = sharding.clip_gradients if sharded else nn.utils.clip_grad_norm_
            norm = clip(self._train, limit).detach()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update(step)
        return norm.nan_to_num(0.0, 0.0) if self._scaler.is_enabled() else norm

    def end_step(self, step: int) -> None:
        """After the last update of a step, of which there may be several: averages by its time."""
        if self._powers is not None:
            self._powers.update(step)

    def keep_snapshots(self, folder: Path) -> None:
        """Write the snapshots of ``optim.ema_profiles`` there when they are due."""
        if self._powers is not None:
            self._powers.folder = folder

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return float(self.optimizer.param_groups[0]["lr"])

    def schedule(self, factor: float) -> None:
        """Set the learning rate to this factor of the configured one."""
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

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


def _check_shared(batches: Iterable[int]) -> None:
    world = distributed.world_size()
    for n in batches:
        if n < world:
            raise PagodaError(
                f"a batch of {n} cannot be shared by {world} processes; set PAGODA_PROCESSES={n} "
                "or less"
            )


def _optimizer(
    optim: OptimConfig, train: Iterable[nn.Parameter], fused: bool
) -> torch.optim.Optimizer:
    """Sharded and full parameters are separate groups, in their order: no kernel takes both."""
    groups = [{"params": list(g)} for _, g in itertools.groupby(train, sharding.is_sharded)]
    options: dict[str, Any] = {"lr": optim.lr, "betas": (optim.beta1, optim.beta2),
                               "weight_decay": optim.weight_decay}  # fmt: skip
    if optim.optimizer == "radam":
        return torch.optim.RAdam(groups, decoupled_weight_decay=True, **options)
    return torch.optim.AdamW(groups, fused=fused, **options)
