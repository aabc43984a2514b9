"""What callers of models give, as models take it: seeds, arrays, and rows in calls of one size."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda.errors import PagodaError


def whole(numbers: int | Iterable[int], called: str = "seed") -> list[int]:
    """Whole numbers from 0 as a list: of one, of a range, of an array.

    Raises:
        PagodaError: one is no whole number from 0 that 63 bits hold.
    """
    try:
        found = [operator.index(number) for number in listed(numbers)]
    except TypeError as error:
        raise PagodaError(f"{called}s = {numbers!r}; they are whole numbers from 0") from error
    if wrong := [number for number in found if not 0 <= number < 1 << 63]:
        raise PagodaError(f"there is no {called} {wrong[0]}; {called}s are whole numbers from 0")
    return found


def listed(values: Any) -> list[Any]:
    """What is given one by one: a whole number of any library, and a text, are one.

    Raises:
        TypeError: for anything else that holds no values.
    """
    if isinstance(values, str):
        return [values]
    try:
        return [operator.index(values)]
    except TypeError:
        return list(values)


def tensor(values: Any) -> Tensor:
    """Numbers as a tensor: a tensor as it is, anything else through numpy.

    Raises:
        PagodaError: they are no numbers.
    """
    if isinstance(values, Tensor):
        return values
    try:
        return torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise PagodaError(f"{values!r:.60} is no array of numbers") from error


def in_calls(call: Callable[..., Tensor], batch: int, *tensors: Tensor) -> Tensor:
    """``call`` of rows of tensors, always of ``batch`` rows: a row has the same bits anywhere."""
    if batch < 1:
        raise PagodaError(f"{batch} images a call; at least 1 is needed")
    n, parts = len(tensors[0]), []
    for start in range(0, n, batch):
        rows = np.arange(start, min(start + batch, n))
        padded = torch.from_numpy(np.resize(rows, batch))
        parts.append(call(*(t[padded.to(t.device)] for t in tensors))[: len(rows)])
    return torch.cat(parts)
