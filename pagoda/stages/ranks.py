"""Which of several processes this one is, as ``torchrun`` or another launcher says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pagoda import processes
from pagoda.stages.device import pick_device


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a stage."""

    rank: int
    world: int
    local: int

    @property
    def first(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0

    def device(self) -> torch.device:
        """This process's GPU, or the CPU."""
        return pick_device()

    def wait(self) -> None:
        """Return when every process has come here."""
        processes.wait()


@contextmanager
def join() -> Iterator[Ranks]:
    """Join the process group of the environment (RANK, WORLD_SIZE ...); alone without one."""
    with processes.group():
        yield Ranks(processes.rank(), processes.count(), processes.local_rank())
