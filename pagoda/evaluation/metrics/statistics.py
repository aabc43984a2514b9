"""Mean and covariance of features in one pass, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import lapack

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.arrays import arrays_on

_LARGEST = 1e100  # squares of larger features, summed over dimensions, may be beyond float64


@dataclass(frozen=True)
class Moments:
    """Mean ``(d,)`` and covariance ``(d, d)`` (ddof 1) of ``n`` rows (0: unknown), float64.

    Attributes:
        factor: ``A``, ``(d, n - 1)``, with ``covariance = A A^T``, where n <= d makes that thin and
            the rows were at hand; else None.
    """

    n: int
    mean: np.ndarray
    covariance: np.ndarray
    factor: np.ndarray | None = None

    @cached_property
    def cholesky(self) -> np.ndarray:
        """:func:`covariance_factor` of the covariance, made once."""
        return covariance_factor(self.covariance)


def check_numbers(array: np.ndarray, what: str, kinds: str = "fiu") -> np.ndarray:
    """An array that numpy computes with as with real numbers: of one of its letters ``kinds``.

    Raises:
        PagodaError: for anything else, such as objects, complex numbers or torch's bfloat16.
    """
    try:
        array = np.asarray(array)
    except (TypeError, ValueError) as error:  # ragged lists; torch's bfloat16
        raise PagodaError(f"{what} are no plain array of numbers: {error}") from error
    if array.dtype.kind not in kinds:
        raise PagodaError(f"{what} are of type {array.dtype}; give them as float32 or float64")
    return array


def check_features(features: np.ndarray, what: str = "features") -> np.ndarray:
    """A finite, non-empty matrix ``(n, d)`` of real numbers.

    Raises:
        PagodaError: for anything else.
    """
    array = check_numbers(features, what)
    if array.ndim != 2 or not array.size:
        raise PagodaError(f"{what} have shape {array.shape}; a non-empty (n, d) matrix is needed")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise PagodaError(
            f"{what} hold NaN or infinity, first in row {row}; "
            "check the images and the network that made them"
        )
    if (most := np.abs([array.max(), array.min()], dtype=np.float64).max()) > _LARGEST:
        raise PagodaError(f"{what} reach {most:.1g}; check the network that made them")
    return array


def covariance_factor(covariance: np.ndarray) -> np.ndarray:
    """A factor ``A``, ``(d, rank)``, with ``S = A A^T``, by Cholesky's with pivoting.

    It stops where nothing is left on the diagonal but rounding, ``t = d * eps`` of its maximum (d
    at least 64). Rows of ``A`` in the order of the pivots make a lower triangle, columns of falling
    size.

    What is left off makes ``tr (S1 S2)^(1/2)`` smaller by ``sqrt((d - rank) t tr S2)`` at most: a
    nuclear norm of stacked factors is no more than the sum of theirs. It comes near that only where
    S2 is large in the very directions in which S1 is rounding.
    """
    tolerance = max(len(covariance), 64) * np.finfo(np.float64).eps * covariance.diagonal().max()
    # the transpose, which is equal, has LAPACK's layout
    lower, pivots, rank, _ = lapack.dpstrf(covariance.T, tol=tolerance, lower=1)
    factor = np.empty((len(lower), rank))
    factor[pivots - 1] = np.tril(lower[:, :rank])
    return factor


def contrasts(centred: np.ndarray) -> np.ndarray:
    """Factor ``C`` of the covariance, ``S = C^T C``, of ``n - 1`` rows, from ``n`` centred rows.

    A Householder reflection takes the direction in which centred rows sum to zero to the first
    row, which vanishes: what is left has full rank unless the features repeat.
    """
    n = len(centred)
    rest = centred[1:] + centred[0] / (np.sqrt(n) - 1)
    rest /= np.sqrt(n - 1)
    return np.asarray(rest)


def check_statistics(
    mean: np.ndarray, covariance: np.ndarray, what: str, definite: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """A mean ``(d,)`` and a covariance ``(d, d)`` as float64, the latter exactly symmetric.

    Rounding is forgiven as far as a file of float32 numbers has it: entries mirrored to within 1e-6
    of the largest one. ``definite``: eigenvalues are checked too (:func:`check_definite`).

    Raises:
        PagodaError: for other shapes, types that are no floats, NaN or infinity, or a matrix that
            is no covariance.
    """
    mean, covariance = (
        check_numbers(a, f"the mean and covariance of {what}", "f") for a in (mean, covariance)
    )
    dim = mean.size
    if mean.ndim != 1 or not dim or covariance.shape != (dim, dim):
        raise PagodaError(
            f"{what}: mean of shape {mean.shape} and covariance of shape {covariance.shape} do not "
            "belong together; (d,) and (d, d) are needed"
        )
    mean, covariance = (np.asarray(a, np.float64) for a in (mean, covariance))
    largest = max(covariance.max(), -covariance.min())
    for name, values in (("mean", mean), ("covariance", largest)):
        if not np.isfinite(values).all():
            raise PagodaError(f"{what}: the {name} holds NaN or infinity; features were not finite")
    if not np.array_equal(covariance, covariance.T):
        if np.abs(covariance - covariance.T).max() > 1e-6 * largest:
            raise PagodaError(
                f"{what}: the covariance is not symmetric, so it is none; make it anew"
            )
        covariance = (covariance + covariance.T) / 2
    if definite:
        check_definite(covariance, what)
    return mean, covariance


def check_definite(covariance: np.ndarray, what: str) -> None:
    """Check eigenvalues down to -1e-7 of the trace, which float32 numbers in a file may leave.

    It takes a Cholesky factorisation of the matrix with that much added to its diagonal.

    Raises:
        PagodaError: if one is below that.
    """
    if not covariance.any():
        return
    trace = float(np.trace(covariance))
    shifted = covariance.copy()
    shifted[np.diag_indices(len(shifted))] += 1e-7 * trace
    try:
        if trace > 0:
            np.linalg.cholesky(shifted)
            return
    except np.linalg.LinAlgError:
        pass
    raise PagodaError(
        f"{what}: the covariance has negative eigenvalues, so it is none; make it anew"
    )


class RunningMoments:
    """Streaming mean and covariance by the merge rule of Chan, Golub and LeVeque (1979).

    For blocks A and B with scatter matrices M (sums of centred outer products) and
    ``delta = mean_B - mean_A``::

        mean = mean_A + delta n_B / n
        M    = M_A + M_B + delta delta^T n_A n_B / n

    Rows are gathered in a buffer of fixed size before each merge, so that the result has the same
    bits however the rows were cut into batches. Memory: the buffer and two ``(d, d)`` matrices.

    Args:
        dim: of the features.
        buffer_rows: rows gathered before a merge.
        device: where torch makes the products, in float64; None for numpy. ``M`` stays there.
    """

    def __init__(self, dim: int, buffer_rows: int = 4096, device: str | None = None) -> None:
        self._buffer = np.empty((buffer_rows + 1, dim), dtype=np.float64)  # and one for delta
        self._room = buffer_rows
        self._held = 0
        self._n = 0
        self._mean = np.zeros(dim)
        self._device = device
        self._scatter: Any = None  # where the products are made
        self._factor: np.ndarray | None = None

    def update(self, features: np.ndarray) -> None:
        """Take in features ``(n, d)`` of any float type.

        Raises:
            PagodaError: for the wrong shape, NaN or infinity.
        """
        features = check_features(features)
        dim = self._mean.size
        if features.shape[1] != dim:
            raise PagodaError(f"features are {features.shape[1]}-d, the statistics {dim}-d")
        start = 0
        while start < len(features):
            room = self._room - self._held
            rows = features[start : start + room]
            self._buffer[self._held : self._held + len(rows)] = rows
            self._held += len(rows)
            start += len(rows)
            if self._held == self._room:
                self._flush()

    def moments(self) -> Moments:
        """Statistics of everything seen so far.

        Raises:
            PagodaError: with fewer than two rows, which have no covariance.
        """
        self._flush()
        if self._n < 2:
            raise PagodaError(f"{self._n} images have no covariance; use 2 or more")
        with arrays_on(self._device) as arrays:
            covariance = arrays.get(self._scatter / (self._n - 1))
        return Moments(self._n, self._mean.copy(), covariance, self._factor)

    def _flush(self) -> None:
        if not self._held:
            return
        block = self._buffer[: self._held + 1]
        mean = block[:-1].mean(axis=0)
        block[:-1] -= mean
        total = self._n + self._held
        few = self._n == 0 and 2 <= total <= mean.size
        self._factor = contrasts(block[:-1]).T if few else None
        delta = mean - self._mean
        # The last term of M is that of one more row.
        block[-1] = delta * np.sqrt(self._n * self._held / total)
        with arrays_on(self._device) as arrays:
            rows = arrays.put(block, np.float64)
            scatter = rows.T @ rows  # numpy calls dsyrk: half the work of a general product
            if self._scatter is None:
                self._scatter = scatter
            else:
                self._scatter += scatter
        self._mean += delta * (self._held / total)
        self._n, self._held = total, 0


def feature_moments(features: np.ndarray) -> Moments:
    """Moments of a matrix ``(n, d)`` in memory, as :class:`RunningMoments` has them."""
    running = RunningMoments(check_features(features).shape[1])
    running.update(features)
    return running.moments()
