"""The one training loop. Time is counted in images seen."""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pagoda import distributed
from pagoda.artifacts import write_json
from pagoda.errors import PagodaError
from pagoda.training import sharding
from pagoda.training.checkpoint import Scratch
from pagoda.training.history import History

NOT_FINITE = "not_finite.json"
"""Beside the checkpoints: the step and the images at which training went wrong."""


class Step(Protocol):
    """What a stage trains: modules, optimisers and one step over them."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    def __call__(self, step: int, progress: float) -> dict[str, Tensor | float]:
        """Do one step; ``progress`` in [0, 1) is the share of training done.

        Returns statistics, ``loss`` among them; in a group those of this process's share.
        """
        ...

    def rows(self) -> np.ndarray:
        """Indices of the images that a step takes, from the random numbers it begins with."""
        ...


@dataclass(frozen=True)
class LoopSpec:
    """Length, batch and learning-rate schedule.

    The factor on every learning rate rises linearly over the first ``warmup`` share of training
    and falls as the square root of the time left over the last ``decay`` share.
    """

    name: str
    images: int
    batch: int
    warmup: float
    decay: float
    seed: int
    log_rows: int = 100
    save_every_s: float = 60.0

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.images // self.batch

    def rate(self, progress: float) -> float:
        """Factor on the learning rate at a share of training done, in [0, 1]."""
        rise = min(1.0, (progress + 1 / self.steps) / self.warmup) if self.warmup else 1.0
        fall = math.sqrt(min(1.0, (1 - progress) / self.decay)) if self.decay else 1.0
        return rise * fall


def train(
    step: Step,
    spec: LoopSpec,
    scratch: Scratch,
    history: Callable[[int], History],
    advance: Callable[[int], None],
    ahead: Callable[[int], None] | None = None,
) -> None:
    """Run ``step`` until ``spec.images`` images are seen, from the newest checkpoint.

    Every step reseeds torch with a hash of (seed, name, step): a run that was stopped and went on
    equals one that was not. Ctrl-C or SIGTERM ends the step, saves a checkpoint and leaves.
    Processes of a group stop and save together; the first one writes.

    Args:
        history: makes the history, keeping rows up to the given images seen.
        advance: is told the images of every step, for a progress bar.
        ahead: is told the seed of every step when the one before it begins.

    Raises:
        PagodaError: if a statistic is not finite, with the images of the step where the loss first
            was not, or a weight of what is saved; the last checkpoint stays.
        KeyboardInterrupt: after an orderly stop.
    """
    if spec.batch < distributed.world_size():
        raise PagodaError(
            f"{spec.name}: a batch of {spec.batch} cannot be shared by {distributed.world_size()} "
            f"processes; set PAGODA_PROCESSES={spec.batch} or less"
        )
    base_rates = {n: [g["lr"] for g in o.param_groups] for n, o in step.optimizers.items()}
    for module in step.modules.values():
        held = itertools.chain(module.parameters(), module.buffers())
        distributed.broadcast_(t for t in held if not sharding.is_sharded(t))
    first, seconds_before = scratch.restore()
    advance(first * spec.batch)
    start = saved = time.monotonic()
    every = max(1, spec.steps // spec.log_rows)
    watch = _FirstBad()
    kept = (
        history(first * spec.batch) if distributed.is_main_process() else contextlib.nullcontext()
    )
    with kept as rows, orderly_stop() as asked:
        for i in range(first, spec.steps):
            if ahead and i + 1 < spec.steps:
                ahead(_seed(spec, i + 1))
            torch.manual_seed(_seed(spec, i))
            progress = i / spec.steps
            _set_rates(step, base_rates, spec.rate(progress))
            stats = step(i, progress)
            watch.see(stats["loss"], i)
            advance(spec.batch)
            seconds = seconds_before + time.monotonic() - start
            last = i + 1 == spec.steps
            due = distributed.is_main_process() and time.monotonic() - saved > spec.save_every_s
            stop, save = map(
                bool, distributed.all_reduce_max([float(asked()), float(due and not last)])
            )
            if last or save or stop or i % every == 0:
                values = _finite(step, _average(stats, spec), watch, i, spec, scratch.folder)
                if rows:
                    rows.write(images=(i + 1) * spec.batch, step=i + 1, seconds=seconds, **values)
            if last or save or stop:
                scratch.check(spec.name, i + 1)
            if save or stop:
                if rows:
                    rows.sync()
                scratch.save(i + 1, seconds)
                saved = time.monotonic()
            if stop and not last:
                raise KeyboardInterrupt


def _seed(spec: LoopSpec, i: int) -> int:
    return zlib.crc32(f"{spec.seed}/{spec.name}/{i}".encode())


class _FirstBad:
    """The first step whose loss was not finite, found without waiting for the device."""

    def __init__(self) -> None:
        self._step: Tensor | None = None

    def see(self, loss: Tensor | float, i: int) -> None:
        loss = torch.as_tensor(loss)
        if self._step is None:
            self._step = torch.full((), -1, dtype=torch.int64, device=loss.device)
        new = (self._step < 0) & ~loss.isfinite()
        self._step = torch.where(new, i, self._step)

    def first(self) -> int | None:
        """The same on all processes of a group."""
        step = -1 if self._step is None else int(self._step)
        found = -distributed.all_reduce_max([-float(step) if step >= 0 else -math.inf])[0]
        return None if math.isinf(found) else int(found)


def _average(stats: dict[str, Tensor | float], spec: LoopSpec) -> dict[str, float]:
    """Statistics of the whole batch, from those of the processes' shares."""
    values = torch.tensor([float(value) for value in stats.values()], dtype=torch.float64)
    if distributed.world_size() > 1:
        values *= distributed.local_fraction(spec.batch)
        distributed.all_reduce_([values])
    return dict(zip(stats, values.tolist(), strict=True))


def _set_rates(step: Step, base: dict[str, list[float]], factor: float) -> None:
    for name, optimizer in step.optimizers.items():
        for group, rate in zip(optimizer.param_groups, base[name], strict=True):
            group["lr"] = rate * factor


def _finite(
    step: Step, values: dict[str, float], watch: _FirstBad, i: int, spec: LoopSpec, folder: Path
) -> dict[str, float]:
    """The values; an error if one, or a loss since the last look, is not finite."""
    first = watch.first()
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if first is None and not bad:
        return values
    where = i if first is None else first
    torch.manual_seed(_seed(spec, where))
    images = [int(row) for row in step.rows()]
    few = ", ".join(map(str, images[:8])) + (", ..." if len(images) > 8 else "")
    if distributed.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"step": where, "not_finite": bad or ["loss"], "images": images}
        write_json(folder / NOT_FINITE, facts)
    raise PagodaError(
        f"{spec.name}: {', '.join(bad) or 'loss'} is not finite at step {where} (images {few}: all "
        f"in {folder / NOT_FINITE}); the last checkpoint is kept beside it; lower the learning "
        "rate or use fp32, then run again"
    )


@contextlib.contextmanager
def orderly_stop() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag while a loop runs."""
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    old = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in signals}
    try:
        yield lambda: bool(caught)
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
