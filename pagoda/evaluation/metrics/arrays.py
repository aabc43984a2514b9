"""Dense arithmetic of the metrics: numpy, or torch on a named device where one is given.

The metrics are written once, over what numpy arrays and torch tensors share (``@``, slices,
in-place arithmetic); the few operations that differ are methods here. torch is imported only when
a device is asked for. Float32 products never use TF32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy import linalg

from pagoda.errors import PagodaError

_FEW = 8  # up to this many, repeated minima beat a partition


class Arrays:
    """What the metrics need beyond the operators that numpy and torch share; here by numpy."""

    def eigenvalues(self, a: Any) -> np.ndarray:
        """Of a symmetric matrix, in rising order; reads its lower triangle, destroys ``a``."""
        return np.asarray(linalg.eigvalsh(a, overwrite_a=True, check_finite=False))

    def put(self, array: np.ndarray, dtype: type[np.floating[Any]]) -> Any:
        """A contiguous copy or view in ``dtype``, where the arithmetic runs."""
        return np.ascontiguousarray(array, dtype)

    def get(self, array: Any) -> np.ndarray:
        """The same values as a numpy array."""
        return np.asarray(array)

    def transposed(self, a: Any) -> Any:
        """A contiguous copy of the transpose."""
        return a.T.copy()

    def row_products(self, a: Any, b: Any) -> Any:
        """``sum_j a_ij b_ij``, (rows,)."""
        return np.einsum("ij,ij->i", a, b)

    def row_counts(self, flags: Any) -> Any:
        """Number of true values in each row."""
        return np.count_nonzero(flags, axis=1)

    def count(self, flags: Any) -> int:
        """Number of true values."""
        return int(np.count_nonzero(flags))

    def where(self, flags: Any) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the true values of a matrix."""
        return np.divmod(np.flatnonzero(flags), flags.shape[1])

    def smallest(self, a: Any, k: int) -> Any:
        """The k smallest values of each row, or all where there are fewer; destroys ``a``."""
        k = min(k, a.shape[1])
        if k > _FEW:
            return np.partition(a, k - 1, axis=1)[:, :k]
        every, found = np.arange(len(a)), np.empty((len(a), k), a.dtype)
        for i in range(k):
            where = a.argmin(axis=1)
            found[:, i] = a[every, where]
            a[every, where] = np.inf
        return found

    def expm1(self, a: Any) -> Any:
        """``exp(a) - 1`` in place."""
        return np.expm1(a, out=a)


class _Torch(Arrays):
    def __init__(self, device: str) -> None:
        import torch  # takes seconds, so only where a device is named

        self.torch = torch
        try:
            self._device = torch.device(device)
            torch.zeros(1, device=self._device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise PagodaError(f"metrics cannot run on device '{device}': {reason}") from error

    def eigenvalues(self, a: Any) -> np.ndarray:
        return self.get(self.torch.linalg.eigvalsh(a))

    def put(self, array: np.ndarray, dtype: type[np.floating[Any]]) -> Any:
        host = self.torch.from_numpy(np.array(array, dtype))  # a copy: torch wants it writable
        return host.to(self._device)

    def get(self, array: Any) -> np.ndarray:
        return np.asarray(array.cpu().numpy())

    def transposed(self, a: Any) -> Any:
        return a.T.clone(memory_format=self.torch.contiguous_format)

    def row_products(self, a: Any, b: Any) -> Any:
        return (a * b).sum(dim=1)

    def row_counts(self, flags: Any) -> Any:
        return flags.sum(dim=1)

    def count(self, flags: Any) -> int:
        return int(flags.sum())

    def where(self, flags: Any) -> tuple[np.ndarray, np.ndarray]:
        i, j = self.torch.nonzero(flags, as_tuple=True)
        return self.get(i), self.get(j)

    def smallest(self, a: Any, k: int) -> Any:
        return a.topk(min(k, a.shape[1]), dim=1, largest=False).values

    def expm1(self, a: Any) -> Any:
        return a.expm1_()


@contextmanager
def arrays_on(device: str | None) -> Iterator[Arrays]:
    """Arithmetic by numpy (None), or by torch on ``device`` ("cpu", "cuda", "cuda:1").

    Raises:
        PagodaError: if torch cannot use the device.
    """
    if device is None:
        yield Arrays()
        return
    found = _Torch(device)
    before = found.torch.get_float32_matmul_precision()
    found.torch.set_float32_matmul_precision("highest")  # TF32 keeps 10 bits: radii would be noise
    try:
        with found.torch.inference_mode():
            yield found
    finally:
        found.torch.set_float32_matmul_precision(before)


def working_type(*features: np.ndarray) -> type[np.floating[Any]]:
    """float64 if any of the features are (or are integers), else float32."""
    small = all(f.dtype in (np.float16, np.float32) for f in features)
    return np.float32 if small else np.float64


def tiles(n: int, size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` that cover ``range(n)``."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
