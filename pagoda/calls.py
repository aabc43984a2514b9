"""What callers of models give, as models take it: seeds, arrays, and rows in calls of one size."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda.errors import PagodaError, first_line

CALL = {"cpu": 8}
"""Images a call of the networks; 64 on other devices. Another number of images a call changes
images in their last digits, so that seldom a value of a pixel is one more or less."""


def images_a_call(device: torch.device) -> int:
    """:data:`CALL` of a device."""
    return CALL.get(device.type, 64)


def whole(numbers: int | Iterable[int], called: str = "seed") -> list[int]:
    """Whole numbers from 0 as a list: of one, of a range, of an array.

    Raises:
        PagodaError: one is no whole number from 0 that 63 bits hold.
    """
    try:
        found = [operator.index(number) for number in listed(numbers)]
    except TypeError as error:
        raise PagodaError(f"{called}s = {shown(numbers)}; they are whole numbers from 0") from error
    if wrong := [number for number in found if not 0 <= number < 1 << 63]:
        raise PagodaError(f"there is no {called} {wrong[0]}; {called}s are whole numbers from 0")
    return found


def keys_of(keys: Iterable[int] | None, n: int) -> np.ndarray:
    """Which part of the noise each of n images has, (n,); None: 0, 1, ...

    Raises:
        PagodaError: another number of them, or one that is no whole number from 0.
    """
    found = list(range(n)) if keys is None else whole(keys, "key")
    if len(found) != n:
        raise PagodaError(f"there are {len(found)} keys for {n} images; give one each")
    return np.array(found, np.int64)


def check_batch(images: int) -> None:
    """Refuse calls that would take nothing.

    Raises:
        PagodaError: there are no images a call.
    """
    if images < 1:
        raise PagodaError(f"{images} images a call; at least 1 is needed")


def check_truncation(most: float | None) -> None:
    """Refuse a norm that no latent has.

    Raises:
        PagodaError: it is not above 0.
    """
    if most is not None and not most > 0:
        raise PagodaError(f"truncation = {most}; it must be more than 0")


def device_of(device: str | torch.device | None) -> torch.device:
    """A device by its name; None: a visible GPU, or the CPU.

    Raises:
        PagodaError: it is not to be had here.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except Exception as error:  # torch has many kinds for it
        why = first_line(error).partition(". ")[0]
        raise PagodaError(
            f"device = {device!r} is not to be had here ({why}); leave it out, or take 'cpu'"
        ) from error


def shown(value: Any) -> str:
    """A value in a message: short, on one line."""
    return " ".join(reprlib.repr(value).split())


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
        array = np.array(values)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError) as error:
        raise PagodaError(f"{shown(values)} is no array of numbers") from error


def calls_of(rows: np.ndarray, batch: int) -> Iterator[tuple[np.ndarray, int]]:
    """Rows call by call, always ``batch`` of them, and how many of a call count.

    Rows of the last call are repeated until it is full. A kernel that is chosen by the number of
    rows may differ in the last bit; so a row has the same bits wherever it stands.

    Raises:
        PagodaError: there are no rows a call.
    """
    check_batch(batch)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        yield np.resize(part, batch), len(part)


def in_calls(call: Callable[..., Tensor], batch: int, *tensors: Tensor) -> Tensor:
    """``call`` of rows of tensors, always of ``batch`` rows (:func:`calls_of`)."""
    parts = []
    for padded, n in calls_of(np.arange(len(tensors[0])), batch):
        rows = torch.from_numpy(padded)
        parts.append(call(*(t[rows.to(t.device)] for t in tensors))[:n])
    return torch.cat(parts)
