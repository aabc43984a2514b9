"""The one training loop. Time is counted in images seen."""

from __future__ import annotations

import contextlib
import math
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pagoda.errors import PagodaError
from pagoda.training.checkpoint import Scratch
from pagoda.training.history import History


class Step(Protocol):
    """What a stage trains: modules, optimisers and one step over them."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    def __call__(self, step: int, progress: float) -> dict[str, Tensor | float]:
        """Do one step; ``progress`` in [0, 1) is the share of training done. Returns statistics."""
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
) -> None:
    """Run ``step`` until ``spec.images`` images are seen, from the newest checkpoint.

    Every step reseeds torch with a hash of (seed, name, step): a run that was stopped and went on
    equals one that was not. Ctrl-C or SIGTERM ends the step, saves a checkpoint and leaves.

    Args:
        history: makes the history, keeping rows up to the given images seen.
        advance: is told the images of every step, for a progress bar.

    Raises:
        PagodaError: at the first non-finite statistic; the last checkpoint stays.
        KeyboardInterrupt: after an orderly stop.
    """
    base_rates = {n: [g["lr"] for g in o.param_groups] for n, o in step.optimizers.items()}
    first, seconds_before = scratch.restore()
    advance(first * spec.batch)
    start = saved = time.monotonic()
    every = max(1, spec.steps // spec.log_rows)
    with history(first * spec.batch) as rows, _orderly_stop() as stopped:
        for i in range(first, spec.steps):
            torch.manual_seed(zlib.crc32(f"{spec.seed}/{spec.name}/{i}".encode()))
            progress = i / spec.steps
            _set_rates(step, base_rates, spec.rate(progress))
            stats = step(i, progress)
            advance(spec.batch)
            seconds = seconds_before + time.monotonic() - start
            last = i + 1 == spec.steps
            save = stopped() or (not last and time.monotonic() - saved > spec.save_every_s)
            if last or save or i % every == 0:
                values = _finite(stats, i, spec)
                rows.write(images=(i + 1) * spec.batch, step=i + 1, seconds=seconds, **values)
            if save:
                scratch.save(i + 1, seconds)
                rows.back_up()
                saved = time.monotonic()
            if stopped() and not last:
                raise KeyboardInterrupt


def _set_rates(step: Step, base: dict[str, list[float]], factor: float) -> None:
    for name, optimizer in step.optimizers.items():
        for group, rate in zip(optimizer.param_groups, base[name], strict=True):
            group["lr"] = rate * factor


def _finite(stats: dict[str, Tensor | float], i: int, spec: LoopSpec) -> dict[str, float]:
    values = {name: float(value) for name, value in stats.items()}
    if bad := [name for name, value in values.items() if not math.isfinite(value)]:
        raise PagodaError(
            f"{spec.name}: {', '.join(bad)} is not finite at step {i}; the last checkpoint is kept "
            f"in .scratch; lower the learning rate or use fp32, then run again"
        )
    return values


@contextlib.contextmanager
def _orderly_stop() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag while the loop runs."""
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    old = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in signals}
    try:
        yield lambda: bool(caught)
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
