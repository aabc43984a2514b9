"""Several processes that share one evaluation: each takes blocks of images, the first collects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those of a joined process group: ``rank`` of ``count``; one by default."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one collects and writes."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, by rank, for the first; an empty list for the others."""
        if self.count == 1:
            return [value]
        import torch.distributed

        into = [None] * self.count if self.first else None
        torch.distributed.gather_object(value, into)
        return into or []

    def shared(self, value: T) -> T:
        """The first process's value, for all."""
        if self.count == 1:
            return value
        import torch.distributed

        box = [value if self.first else None]
        torch.distributed.broadcast_object_list(box, src=0)
        return cast(T, box[0])
