"""Which of several processes this one is, as ``torchrun`` or another launcher says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed


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
        return (
            torch.device("cuda", self.local) if torch.cuda.is_available() else torch.device("cpu")
        )

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def join() -> Iterator[Ranks]:
    """Join the process group of the environment (RANK, WORLD_SIZE ...); alone without one."""
    rank, world, local = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    if world > 1 and not distributed.is_initialized():
        # Barriers alone: a process that has more to do may take hours longer than the others.
        distributed.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield Ranks(rank, world, local)
    finally:
        if world > 1 and distributed.is_initialized():
            distributed.destroy_process_group()
