"""Images to be scored that are one array of an ``.npz`` file."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import IO, Any

import numpy as np

from pagoda.artifacts import digest
from pagoda.data.base import to_nchw
from pagoda.data.npz import Npz, reading
from pagoda.errors import PagodaError

_KEYS = ("arr_0", "images", "samples")
_READ = 1 << 24  # bytes passed over at once


class ArrayImages:
    """One uint8 array of an ``.npz`` file, (n, h, w, 3), (n, 3, h, w) or grey (n, h, w).

    It is read in pieces, in ascending order: ADM's batches of 50,000 images do not fit in memory.
    One in Fortran's order has no such pieces and is held in memory.

    Args:
        path: the file.
        split: takes ``x_<split>``; None takes ``arr_0``, ``images`` or ``samples``.

    Raises:
        PagodaError: if the file is damaged, or holds no such array of images.
    """

    def __init__(self, path: Path, split: str | None) -> None:
        file, wanted = Npz(path), (f"x_{split}",) if split else _KEYS
        key = next((key for key in wanted if key in file.keys), None)
        if key is None:
            has = f"it has {', '.join(file.keys)}" if file.keys else "it is empty"
            raise PagodaError(f"{path} has no {' or '.join(wanted)}; {has}")
        self._member = file.member(key)
        self._member.check_images()
        self.where, self._shape = str(path), self._member.shape
        if not len(self):
            raise PagodaError(f"{path}: {key} holds no images")
        self._whole = self._member.array() if self._member.fortran else None
        self._stream: IO[bytes] | None = None
        self._next = 0
        self.resolution = self._as_rgb(np.zeros((1, *self._shape[1:]), np.uint8)).shape[2:]

    def __len__(self) -> int:
        return self._shape[0]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB images (n, 3, h, w) of ascending rows."""
        if self._whole is not None:
            return np.ascontiguousarray(self._as_rgb(self._whole[rows]))
        first, last = int(rows[0]), int(rows[-1])
        block = self._piece(first, last + 1)
        return np.ascontiguousarray(self._as_rgb(block[rows - first]))

    def card(self) -> dict[str, Any]:
        """SHA-256 of shape and pixels, however the file stores them; and the size."""
        content, step = hashlib.sha256(), max(1, _READ // (3 * math.prod(self.resolution)))
        for start in range(0, len(self), step):
            rows = np.arange(start, min(start + step, len(self)))
            content.update(self.read(rows).data)
        files = digest([len(self), *self.resolution, content.hexdigest()])
        return {"n": len(self), "files": files, "crop": "none", "size": self.resolution[0]}

    def _piece(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start:stop``, from where the last piece ended or else from the beginning."""
        size = math.prod(self._shape[1:])
        with reading(self._member.path, self._member.key):
            if self._stream is None or start < self._next:
                self._stream, self._next = self._member.open(), 0
            skip = (start - self._next) * size
            while skip > 0 and (part := self._stream.read(min(skip, _READ))):
                skip -= len(part)
            content = self._stream.read((stop - start) * size)
            if len(content) < (stop - start) * size:
                raise EOFError("it ends early")
        self._next = stop
        return np.frombuffer(content, np.uint8).reshape(-1, *self._shape[1:])

    def _as_rgb(self, block: np.ndarray) -> np.ndarray:
        images = to_nchw(block, self.where)
        return images.repeat(3, axis=1) if images.shape[1] == 1 else images
