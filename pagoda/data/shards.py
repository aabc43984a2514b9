"""One long array in several memory-mapped ``.npy`` files of equal length, the last one shorter.

A set of millions of rows is a few dozen files instead of a file a row, and no file is too big to
copy, hash or cache by itself.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pagoda.artifacts import Artifact

LARGE = 1 << 30
"""Bytes from which a mapped array counts as one that memory may not hold: 1 GiB."""


def shard_names(name: str, rows: int, shard: int) -> list[str]:
    """File names of ``rows`` rows: ``name.npy`` if one file of ``shard`` rows holds them all.

    Otherwise ``name-00000-of-00003.npy`` and so on.
    """
    count = max(1, -(-rows // shard))
    if count == 1:
        return [f"{name}.npy"]
    return [f"{name}-{i:05d}-of-{count:05d}.npy" for i in range(count)]


class ShardedArray:
    """Reads and writes rows of an array that lies in several parts.

    Args:
        parts: arrays of equal row shape and dtype; all but the last have the same length.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts = list(parts)
        self._size = max(1, len(self.parts[0]))
        self.dtype = self.parts[0].dtype
        self.shape = (sum(map(len, self.parts)), *self.parts[0].shape[1:])

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """A copy of the rows of a slice or of a list of indices, none of them negative."""
        index = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        out = np.empty((len(index), *self.shape[1:]), self.dtype)
        for part, here, inside in self._split(index):
            out[here] = self.parts[part][inside]
        return out

    def __setitem__(self, rows: slice, values: np.ndarray) -> None:
        for part, here, inside in self._split(np.arange(len(self))[rows]):
            self.parts[part][inside] = values[here]

    def flush(self, rows: slice) -> None:
        """Hand the parts that hold these rows to the disk."""
        for part, _, _ in self._split(np.arange(len(self))[rows]):
            if isinstance(memory := self.parts[part], np.memmap):
                memory.flush()

    def _split(self, index: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Parts; of each, which of the indices lie in it, and which rows of it they are."""
        owner = index // self._size
        for part in np.unique(owner):
            here = owner == part
            yield int(part), here, index[here] - part * self._size


def create_shards(
    folder: Path, name: str, dtype: type | str, shape: tuple[int, ...], shard: int
) -> ShardedArray:
    """New files in ``folder``; whole ones that exist are opened instead.

    Their space is taken at once: writing to a mapping of a sparse file on a full disk kills the
    process. A file appears under its name when that is done.

    Raises:
        OSError: if the disk is too full.
    """
    parts = []
    for i, file in enumerate(shard_names(name, shape[0], shard)):
        path, form = folder / file, (min(shard, shape[0] - i * shard), *shape[1:])
        try:
            part = np.load(path, mmap_mode="r+", allow_pickle=False)
        except (FileNotFoundError, EOFError, ValueError):  # none, or what a power cut left
            part = None
        if part is None or (part.shape, part.dtype) != (form, np.dtype(dtype)):
            partial = path.with_suffix(".partial")
            np.lib.format.open_memmap(partial, "w+", np.dtype(dtype), form).flush()
            if hasattr(os, "posix_fallocate"):
                with partial.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, partial.stat().st_size)
            partial.rename(path)
            part = np.load(path, mmap_mode="r+")
        parts.append(part)
    return ShardedArray(parts)


def open_rows(artifact: Artifact, name: str) -> np.ndarray | ShardedArray:
    """``<name>.npy`` of an artifact, or its shards as one array; memory-mapped, read-only."""
    if (artifact.path / f"{name}.npy").is_file():
        return artifact.array(name)
    files = sorted(artifact.path.glob(f"{name}-*-of-*.npy"))
    return ShardedArray([artifact.array(f.stem) for f in files])


def read_at_random(rows: Any) -> None:
    """Tell the system that rows of a mapped array, or of one in parts, will be read at random.

    It then reads the pages that are asked for and nothing around them. Where an array is larger
    than memory, what is read around a row is thrown away before it is used. Below :data:`LARGE`
    the advice is not given: there reading around is how the array gets into memory.
    """
    parts = [p for p in getattr(rows, "parts", [rows]) if isinstance(p, np.memmap)]
    if sum(part.nbytes for part in parts) < LARGE or not hasattr(mmap, "MADV_RANDOM"):
        return
    for part in parts:
        memory: mmap.mmap = part._mmap  # type: ignore[attr-defined]
        memory.madvise(mmap.MADV_RANDOM)
