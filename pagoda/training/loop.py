"""The one training loop. Time is counted in images seen."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pagoda import distributed
from pagoda.artifacts import write_json
from pagoda.errors import PagodaError
from pagoda.interrupts import orderly_stop
from pagoda.training import sharding
from pagoda.training.checkpoint import Scratch
from pagoda.training.draw import Forecast, GlobalDraw
from pagoda.training.finite import FirstBad
from pagoda.training.history import HISTORY, History
from pagoda.training.method import Method
from pagoda.training.settings import OptimConfig

SNAPSHOTS = "snapshots"
"""Folder beside the checkpoints for averages that go into the artifact."""

NOT_FINITE = "not_finite.json"
"""Beside the checkpoints: the step and the images at which training went wrong."""

SAVE_EVERY_S = 60.0
SAVE_S = 3.0  # a checkpoint that takes longer is made as many times less often

LOG_ROWS = 100

Stats = dict[str, Tensor | float]


def train(
    method: Method,
    optim: OptimConfig,
    *,
    name: str,
    seed: int,
    device: torch.device,
    folder: Path,
    curves: Path,
    advance: Callable[[int], None] = lambda images: None,
) -> None:
    """Take steps of ``method`` until ``optim.images`` images are seen, from the newest checkpoint.

    Every step reseeds torch with a hash of (seed, name, step): a run that was stopped and went on
    equals one that was not. Ctrl-C or SIGTERM ends the step, saves a checkpoint and leaves.
    Processes of a group stop and save together; the first one writes.

    Args:
        name: of the stage.
        folder: of checkpoints.
        curves: file of the training curves.
        advance: is told the images of every step, for a progress bar.

    Raises:
        PagodaError: if a loss of any player, the main one's gradient or a statistic is not finite,
            with the network, the noise levels where it sees noise, the first step and its images;
            or a weight of what is saved. The last checkpoint stays.
        KeyboardInterrupt: after an orderly stop.
    """
    scratch = checkpoints(method, folder)
    for module in scratch.modules.values():
        held = itertools.chain(module.parameters(), module.buffers())
        distributed.broadcast_(t for t in held if not sharding.is_sharded(t))
    for player in method.players.values():
        player.keep_snapshots(folder / SNAPSHOTS)
    first, seconds_before = scratch.restore()
    advance(first * optim.batch)
    start = saved = time.monotonic()
    wait = SAVE_EVERY_S
    every, main = max(1, optim.steps // LOG_ROWS), distributed.is_main_process()
    bad = FirstBad(method.players)
    kept = History(curves, first * optim.batch, folder / HISTORY) if main else None
    with kept or contextlib.nullcontext(), orderly_stop() as asked:
        for i in range(first, optim.steps):
            if i + 1 < optim.steps:
                _read_ahead(method, optim, i + 1, _seed(seed, name, i + 1))
            torch.manual_seed(_seed(seed, name, i))
            progress = i / optim.steps
            for player in method.players.values():
                player.schedule(optim.rate(progress))
            stats, facts = run_step(method, GlobalDraw(device), i, progress, bad)
            advance(optim.batch)
            seconds = seconds_before + time.monotonic() - start
            last = i + 1 == optim.steps
            due = main and time.monotonic() - saved > wait and not last
            stop, save = map(bool, distributed.all_reduce_max([float(asked()), float(due)]))
            if last or save or stop or i % every == 0:
                values = _summed(stats) | {key: float(value) for key, value in facts.items()}
                wrong = [key for key, value in values.items() if not math.isfinite(value)]
                if (met := bad.first()) or wrong:
                    what, at = ([met.what], met.step) if met else (wrong, i)
                    images = _images_of(method, optim, at, _seed(seed, name, at))
                    raise _not_finite(name, what, at, images, folder)
                if kept:
                    kept.write(images=(i + 1) * optim.batch, step=i + 1, seconds=seconds, **values)
            if last or save or stop:
                scratch.check(name, i + 1)
            if save or stop:
                begun = time.monotonic()
                if kept:
                    kept.sync()
                scratch.save(i + 1, seconds)
                saved = time.monotonic()
                wait = SAVE_EVERY_S * max(1.0, (saved - begun) / SAVE_S)
            if stop and not last:
                raise KeyboardInterrupt


def run_step(
    method: Method, draw: GlobalDraw, i: int, progress: float, bad: FirstBad | None = None
) -> tuple[Stats, Stats]:
    """All updates of one step.

    Args:
        bad: sees every loss and the main player's gradient.

    Returns:
        This process's parts of the statistics, ``loss`` of the first player among them, and what is
        the same in every process.
    """
    stats, facts = Stats(), Stats()
    main = next(iter(method.players))
    if bad is not None:
        bad.begin(i)
    for loss in method.step(draw, i, progress):
        player = method.players[loss.player]
        if bad is not None:
            bad.loss(loss)
        player.backward(loss.value)
        found = {**loss.stats, **({"loss": loss.value.detach()} if loss.player == main else {})}
        for key, value in found.items():
            stats[key] = stats[key] + value if key in stats else value
        if loss.last:
            norm = player.update(i)
            if loss.player == main:
                facts = {"grad_norm": norm, "lr": player.rate}
                if bad is not None:
                    bad.gradient(main, norm)
    for player in method.players.values():
        player.end_step(i)
    return stats, facts


def checkpoints(method: Method, folder: Path) -> Scratch:
    """Checkpoints of all that a method trains."""
    modules: dict[str, nn.Module] = {**method.players, **method.modules}
    return Scratch(folder, modules, {n: p.optimizer for n, p in method.players.items()})


def _seed(seed: int, name: str, i: int) -> int:
    return zlib.crc32(f"{seed}/{name}/{i}".encode())


def _forecast(method: Method, optim: OptimConfig, i: int, seed: int) -> Forecast:
    """What a step draws first."""
    draw = GlobalDraw(torch.device("cpu"), torch.Generator().manual_seed(seed))
    try:
        next(method.step(draw, i, i / optim.steps))
    except Forecast as found:
        return found
    raise AssertionError("a method draws its data before it does anything else")


def _read_ahead(method: Method, optim: OptimConfig, i: int, seed: int) -> None:
    found = _forecast(method, optim, i, seed)
    if found.source is not None:
        found.source.prefetch(found.rows[distributed.local_rows(len(found.rows))])


def _images_of(method: Method, optim: OptimConfig, i: int, seed: int) -> list[int]:
    """Indices of the training images that a step sees first."""
    found = _forecast(method, optim, i, seed)
    return [] if found.source is None else found.source.image_of(found.rows).tolist()


def _summed(stats: Stats) -> dict[str, float]:
    """Statistics of the whole batch, from the processes' parts."""
    values = torch.tensor([float(value) for value in stats.values()], dtype=torch.float64)
    distributed.all_reduce_([values])
    return dict(zip(stats, values.tolist(), strict=True))


def _not_finite(
    name: str, what: list[str], step: int, images: list[int], folder: Path
) -> PagodaError:
    if distributed.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / NOT_FINITE, {"step": step, "not_finite": what, "images": images})
    few = ", ".join(map(str, images[:8])) + (", ..." if len(images) > 8 else "")
    return PagodaError(
        f"{name}: {', '.join(what)} is not finite at step {step} (images {few}: all in "
        f"{folder / NOT_FINITE}); the last checkpoint is kept beside it; lower the learning rate "
        "or use fp32, then run again"
    )
