"""What callers of models give, as models take it: seeds, arrays, and rows in calls of one size."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda.errors import PagodaError


def whole(seeds: int | Iterable[int]) -> list[int]:
    """Seeds as a list.

    Raises:
        PagodaError: one is no whole number from 0 that 63 bits hold.
    """
    try:
        found = [operator.index(s) for s in ([seeds] if isinstance(seeds, int) else seeds)]
    except TypeError as error:
        raise PagodaError(f"seeds = {seeds!r}; they are whole numbers from 0") from error
    if wrong := [s for s in found if not 0 <= s < 1 << 63]:
        raise PagodaError(f"there is no seed {wrong[0]}; seeds are whole numbers from 0")
    return found


def tensor(values: Any) -> Tensor:
    """Numbers as a tensor: a tensor as it is, anything else through numpy."""
    return values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def in_calls(call: Callable[..., Tensor], batch: int, *tensors: Tensor) -> Tensor:
    """``call`` of rows of tensors, always of ``batch`` rows: a row has the same bits anywhere."""
    n, parts = len(tensors[0]), []
    for start in range(0, n, batch):
        rows = np.arange(start, min(start + batch, n))
        padded = torch.from_numpy(np.resize(rows, batch))
        parts.append(call(*(t[padded.to(t.device)] for t in tensors))[: len(rows)])
    return torch.cat(parts)
