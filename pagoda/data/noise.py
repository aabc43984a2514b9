"""Gaussian noise as a function of (seed, stream, index), whatever the batch or the device."""

from __future__ import annotations

import math
import operator
import zlib
from typing import TYPE_CHECKING

import numpy as np

from pagoda.errors import PagodaError

if TYPE_CHECKING:
    from torch import Tensor


def standard_normal(
    seed: int, indices: np.ndarray, shape: tuple[int, ...], stream: str = "prior"
) -> np.ndarray:
    """Standard normal noise for each index.

    Args:
        seed: run seed.
        indices: (n,) whole numbers; row k depends on ``indices[k]`` alone.
        shape: shape of one row.
        stream: name of an independent stream.

    Returns:
        (n, *shape) float32.

    Raises:
        PagodaError: a seed below 0.
    """
    seed = operator.index(seed)  # one of numpy would lose its upper bits
    if seed < 0:
        raise PagodaError(f"there is no seed {seed}; seeds are whole numbers from 0")
    key = (seed << 32) | zlib.crc32(stream.encode())
    size = math.prod(shape)
    out = np.empty((len(indices), size), np.float32)
    for row, index in zip(out, indices, strict=True):
        bits = np.random.Philox(key=key, counter=[0, 0, 0, int(index)])
        np.random.Generator(bits).standard_normal(out=row, dtype=np.float32)
    return out.reshape(len(indices), *shape)


class NormalRows:
    """Rows of :func:`standard_normal`, 0 to n - 1, made when they are read.

    Args:
        seed: run seed.
        shape: (n, ...).
        stream: name of an independent stream.
    """

    def __init__(self, seed: int, shape: tuple[int, ...], stream: str) -> None:
        self._seed, self.shape, self._stream = seed, shape, stream

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        index = np.arange(len(self))[rows]
        return standard_normal(self._seed, index, self.shape[1:], self._stream)


def uniform(
    seed: int, indices: np.ndarray, low: float, high: float, stream: str
) -> np.ndarray:  # fmt: skip
    """Uniform numbers from ``low`` to ``high``, (n,) float32, each a function of seed and index."""
    normal = standard_normal(seed, indices, (1,), stream)[:, 0]
    share = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in normal.tolist()])
    return (low + (high - low) * share).astype(np.float32)


def dithered(images: Tensor, size: float, seed: int, keys: np.ndarray) -> Tensor:
    """Images with noise of standard deviation ``size``, that of each a function of seed and key."""
    import torch

    noise = standard_normal(seed, keys, tuple(images.shape[1:]), "invert")
    return images + size * torch.from_numpy(noise).to(images)
