"""Frechet distance between Gaussians fitted to features.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

(Dowson and Landau 1982; FID when the features are Inception's, Heusel et al. 2017, eq. 6.)
The last trace never goes through a matrix square root. With any factors ``S = A A^T`` it is a
nuclear norm, which is a sum of square roots of the eigenvalues of a Gram matrix::

    tr (S1 S2)^(1/2) = |A1^T A2|_* = sum_i sqrt(lambda_i(A1^T S2 A1))

Factors come from Cholesky's with pivoting, which stops at the numerical rank (n <= d, dead or
constant features), or are the centred features themselves. A Gram matrix squares the singular
values, so its small eigenvalues may be lost in the rounding of the large ones. Pivoting puts its
rows in falling order of size, though, and tridiagonalisation from the large end keeps small
eigenvalues of such a matrix to many digits. How many is measured each time (:func:`_root_sum`);
where they are too few, a QR decomposition of ``A1^T A2`` makes a Gram matrix that is nearly
diagonal, and singular values are the last resort.

The name of the distance is the features': FID only with Inception's pooled features, sFID with its
spatial ones (Nash et al. 2021), FD-DINOv2 with DINOv2's. The arithmetic is one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import lapack

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.arrays import Arrays, arrays_on
from pagoda.evaluation.metrics.statistics import (
    Moments,
    check_definite,
    check_statistics,
    covariance_factor,
    feature_moments,
)

_ALLOWED = 5e-11  # largest estimate of the relative error of the last trace


def frechet_distance(
    mean1: np.ndarray,
    cov1: np.ndarray,
    mean2: np.ndarray,
    cov2: np.ndarray,
    factor1: np.ndarray | None = None,
    device: str | None = None,
    factor2: np.ndarray | None = None,
) -> float:
    """Frechet distance (squared 2-Wasserstein distance) between two Gaussians, never below 0.

    Args:
        mean1, mean2: ``(d,)``.
        cov1, cov2: ``(d, d)``, symmetric and positive semi-definite.
        factor1, factor2: factors ``A``, ``S = A A^T``, where they are at hand.
        device: where torch does the arithmetic, in float64; None for numpy.

    Raises:
        PagodaError: if shapes disagree, anything is NaN or infinite, or a matrix is no covariance.
    """
    mean1, cov1 = check_statistics(mean1, cov1, "the first set", definite=False)
    mean2, cov2 = check_statistics(mean2, cov2, "the second set", definite=False)
    if mean2.size != mean1.size:
        raise PagodaError(
            f"features differ in dimension: means {mean1.size} and {mean2.size}, covariances "
            f"{cov1.shape} and {cov2.shape}; compare statistics of one feature network"
        )
    cross = trace_sqrt_product(cov1, cov2, factor1, device, factor2)
    return _distance(mean1 - mean2, np.trace(cov1) + np.trace(cov2), cross)


def trace_sqrt_product(
    cov1: np.ndarray,
    cov2: np.ndarray,
    factor1: np.ndarray | None = None,
    device: str | None = None,
    factor2: np.ndarray | None = None,
) -> float:
    """``tr (S1 S2)^(1/2)`` of two symmetric positive semi-definite matrices, see the module.

    A factor of full rank shows that a matrix is positive, and positive eigenvalues then that the
    other one is; without these, it is checked.

    Raises:
        PagodaError: if a matrix without a factor has negative eigenvalues.
    """
    one, two = (cov1, factor1, "the first set"), (cov2, factor2, "the second set")
    if factor2 is not None and (factor1 is None or factor2.shape[1] < factor1.shape[1]):
        one, two = two, one
    first = _checked_factor(*one)
    if not first.size:  # constant features: a covariance of zeros
        return 0.0
    with arrays_on(device) as arrays:
        values = arrays.eigenvalues(_congruence(first, two[0], arrays, device))
    scale = float(cov1.diagonal().max() * cov2.diagonal().max())
    cross = _root_sum(values, scale)
    if cross is not None and first.shape == cov1.shape:
        return cross
    second = _checked_factor(*two)
    if first.shape == second.shape == cov1.shape:
        pivots = [_triangle(factor)[0].diagonal() for factor in (first, second)]
        cross = _root_sum(values, scale, 2 * np.log(pivots).sum())
    return nuclear_norm(first.T @ second) if cross is None else cross


def _checked_factor(covariance: np.ndarray, factor: np.ndarray | None, what: str) -> np.ndarray:
    if factor is not None:
        return factor
    factor = covariance_factor(covariance)
    if factor.shape != covariance.shape:
        check_definite(covariance, what)
    return factor


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of singular values; 0 for a matrix without rows or columns."""
    if 0 in matrix.shape:
        return 0.0
    tall = matrix if len(matrix) >= matrix.shape[1] else matrix.T
    upper = np.asarray(np.linalg.qr(tall, mode="r"))
    gram = upper @ upper.T  # nearly diagonal, unlike upper.T @ upper
    falling = np.argsort(-gram.diagonal(), kind="stable")
    with arrays_on(None) as arrays:
        values = arrays.eigenvalues(gram[np.ix_(falling, falling)])
    pivots = np.abs(upper.diagonal())
    cross = _root_sum(values, 0.0, 2 * np.log(pivots).sum()) if pivots.all() else None
    return float(np.linalg.svd(upper, compute_uv=False).sum()) if cross is None else cross


def frechet_distance_of_features(
    features1: np.ndarray, features2: np.ndarray, device: str | None = None
) -> float:
    """Frechet distance between sets of features ``(n, d)`` and ``(m, d)``, ddof 1; where n <= d the
    rows are the factor of their covariance.

    Raises:
        PagodaError: if shapes disagree, a set has fewer than 2 rows, or anything is not finite.
    """
    return frechet_distance_to_features(feature_moments(features1), features2, device)


def frechet_distance_to_features(
    reference: Moments, features: np.ndarray, device: str | None = None
) -> float:
    """As :func:`frechet_distance_of_features`, from statistics of the first set."""
    found = feature_moments(features)
    factor = reference.cholesky if reference.factor is None else reference.factor
    return frechet_distance(
        reference.mean, reference.covariance, found.mean, found.covariance, factor, device,
        found.factor,
    )  # fmt: skip


def _distance(delta: np.ndarray, traces: float, cross: float) -> float:
    value = float(delta @ delta + traces - 2.0 * cross)
    # equal sets leave a few units of rounding of the traces, which are no distance
    return value if value > 8 * np.finfo(np.float64).eps * traces else 0.0


def _congruence(factor: np.ndarray, matrix: np.ndarray, arrays: Arrays, device: str | None) -> Any:
    """Lower triangle of ``A^T S A``; LAPACK's product of a third of the work where A is square."""
    if device is None and factor.shape == matrix.shape:
        lower, order = _triangle(factor)
        if not np.triu(lower, 1).any():
            return lapack.dsygst(matrix[np.ix_(order, order)].T, lower, itype=2, lower=1)[0]
    a, s = (arrays.put(m, np.float64) for m in (factor, matrix))
    return a.T @ s @ a


def _triangle(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of :func:`covariance_factor` in the order of the pivots, and that order."""
    zeros = (factor[:, ::-1] != 0).argmax(axis=1)  # at the end of each row
    order = np.argsort(-zeros, kind="stable")
    return factor[order], order


def _root_sum(
    values: np.ndarray, scale: float = 0.0, log_determinant: float | None = None
) -> float | None:
    """Sum of the square roots of eigenvalues, None where rounding could spoil it.

    An eigenvalue ``v`` is off by about ``eps * max(v)`` at most (or ``eps * scale``, where what
    the matrix was made of is larger), so its root by that over ``2 sqrt(v)``. For a matrix graded
    from large to small it is off by far less: how much less is told by the determinant, which
    triangular factors give with other rounding. Where the two differ by ``r``, relatively, so do
    the smallest eigenvalues, about, and ``r sqrt(v) / 2`` is an estimate for each root. Errors
    have random signs, so they add up in squares.
    """
    if not values[0] > 0:
        return None
    roots, eps = np.sqrt(values), np.finfo(np.float64).eps
    off = 0.5 * eps * max(values[-1], scale) / roots
    if log_determinant is not None:
        difference = abs(np.log(values).sum() - log_determinant) + eps * len(values)
        off = np.minimum(off, 0.5 * difference * roots)
    return float(roots.sum()) if np.linalg.norm(off) <= _ALLOWED * roots.sum() else None
