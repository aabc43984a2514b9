"""Where the time of a one-step generator goes, part by part, for ``benchmarks.sampling_speed``."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import synchronise
from pagoda.networks.generator import Generator
from pagoda.networks.layers import Attention, ResBlock

REST = "rest"


class Stopwatch:
    """Seconds of parts that are inside each other, each without those inside it.

    Args:
        clock: seconds; by default those of the processor, of all threads, which other work on the
            machine changes little.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block for ``name`` instead of the part around it."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def wrapped(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A function, timed as part ``name``."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return call(*args, **kwargs)

        return timed

    def _turn(self) -> None:
        synchronise()
        now = self.clock()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def names(resolutions: list[int]) -> list[str]:
    """All parts of a generator, from latents to images."""
    base, *above = resolutions
    grown = [part for r in above for part in (f"growth to {r}: up-sampling", f"growth to {r}")]
    return ["embedding", f"base {base}: blocks", f"base {base}: attention",
            f"base {base}: up- and down-sampling", *grown, "to RGB", REST]  # fmt: skip


@contextmanager
def watched(network: Generator, watch: Stopwatch) -> Iterator[None]:
    """The generator with every part of a call timed; afterwards it is as it was."""
    base, changed = network.base_res, list[tuple[Any, str]]()

    def put(module: Any, method: str, part: str) -> None:
        object.__setattr__(module, method, watch.wrapped(getattr(module, method), part))
        changed.append((module, method))

    put(network.trunk, "embed", "embedding")
    put(network.trunk, "forward", f"base {base}: blocks")
    put(network.head, "forward", "to RGB")
    places: list[tuple[Any, str]] = [(network.trunk, f"base {base}: up- and down-sampling")]
    for i, level in enumerate(network.levels):
        put(level, "forward", f"growth to {base << i + 1}")
        places.append((level, f"growth to {base << i + 1}: up-sampling"))
    for part, resampling in places:
        for module in part.modules():
            if isinstance(module, Attention):
                put(module, "forward", f"base {base}: attention")
            elif isinstance(module, ResBlock) and module.resample != "none":
                put(module, "_resample", resampling)
    try:
        yield
    finally:
        for module, method in changed:
            object.__delattr__(module, method)


@torch.inference_mode()
def part_seconds(
    network: Generator, z: Tensor, labels: Tensor, repeats: int, warm: int = 1
) -> dict[str, list[float]]:
    """Seconds of every part in each of ``repeats`` calls, eager, in float32.

    Of the processor; on a GPU on the wall, where every part waits for the one before it, so that
    their sum is more than a call takes.
    """
    clock = time.perf_counter if z.is_cuda else time.process_time
    found: dict[str, list[float]] = defaultdict(list)
    for turn in range(warm + repeats):
        watch = Stopwatch(clock)
        with watched(network, watch), watch.part(REST):
            network(z, labels)
        for name, seconds in watch.seconds.items():
            if turn >= warm:
                found[name].append(seconds)
    return dict(found)
