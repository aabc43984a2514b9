"""The next batch, read and sent to the device while this one trains."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

Read = Callable[[np.ndarray], tuple[Tensor, ...]]


class Ahead:
    """Rows that a thread reads before they are asked for.

    What is read is kept under the rows themselves: a forecast that was wrong costs time, never a
    wrong batch.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "pagoda-ahead")
        self._reading: dict[bytes, Future[tuple[Tensor, ...]]] = {}

    def start(self, rows: np.ndarray, read: Read) -> None:
        """Read these rows in the background."""
        if len(self._reading) > 1:  # one is in use, one is ahead; more were never fetched
            self._reading.clear()
        self._reading[rows.tobytes()] = self._thread.submit(read, rows)

    def take(self, rows: np.ndarray, read: Read) -> tuple[Tensor, ...]:
        """These rows, from the thread if it was told of them."""
        found = self._reading.pop(rows.tobytes(), None)
        return read(rows) if found is None else found.result()


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """An array on a device; the copy to a GPU runs beside the computation there."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
