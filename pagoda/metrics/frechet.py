"""Frechet distance between Gaussians fitted to features.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

(Dowson and Landau 1982; FID when the features are Inception's, Heusel et al. 2017, eq. 6.)
The last trace never goes through a matrix square root. Two identities are used::

    tr (S1 S2)^(1/2) = sum_i sqrt(lambda_i(L^T S2 L))     with S1 = L L^T
                     = |A1^T A2|_*  (nuclear norm)         with S = A A^T for any factor A

The first is the fast one. It squares singular values, so it loses half the digits of those that
are near zero: a sum over noise eigenvalues of 1e-16 adds 1e-8 each. It is therefore used only
where its own error bound is small; otherwise the nuclear norm is, which is right for
rank-deficient covariances (n <= d, dead or constant features).

The name of the distance is the features': FID only with Inception's pooled features, sFID with its
spatial ones (Nash et al. 2021), FD-DINOv2 with DINOv2's. The arithmetic is one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.metrics.arrays import Arrays, arrays_on, tiles
from pagoda.metrics.statistics import Moments, check_features, check_statistics, feature_moments

_FAST_BOUND = 1e-12  # largest relative error allowed to the eigenvalue form
_PANEL = 256  # columns of a triangular product made at a time


def frechet_distance(
    mean1: np.ndarray,
    cov1: np.ndarray,
    mean2: np.ndarray,
    cov2: np.ndarray,
    factor1: np.ndarray | None = None,
    device: str | None = None,
) -> float:
    """Frechet distance (squared 2-Wasserstein distance) between two Gaussians.

    Args:
        mean1, mean2: means, ``(d,)``.
        cov1, cov2: covariances, ``(d, d)``, symmetric and positive semi-definite.
        factor1: :func:`covariance_factor` of ``cov1``, to save it when many distances share it.
        device: where torch does the arithmetic, in float64; None for numpy.

    Returns:
        The distance, in squared units of the features; never below 0.

    Raises:
        PagodaError: if shapes disagree, anything is NaN or infinite, or a matrix is no covariance.
    """
    mean1, cov1 = check_statistics(mean1, cov1, "the first set", definite=factor1 is None)
    mean2, cov2 = check_statistics(mean2, cov2, "the second set")
    if mean2.size != mean1.size:
        raise PagodaError(
            f"features differ in dimension: means {mean1.size} and {mean2.size}, covariances "
            f"{cov1.shape} and {cov2.shape}; compare statistics of one feature network"
        )
    cross = trace_sqrt_product(cov1, cov2, factor1, device)
    delta = mean1 - mean2
    return max(0.0, float(delta @ delta + np.trace(cov1) + np.trace(cov2) - 2.0 * cross))


def trace_sqrt_product(
    cov1: np.ndarray,
    cov2: np.ndarray,
    factor1: np.ndarray | None = None,
    device: str | None = None,
) -> float:
    """``tr (S1 S2)^(1/2)`` of two symmetric positive semi-definite matrices, see the module."""
    with arrays_on(device) as arrays:
        first, second = (arrays.put(c, np.float64) for c in (cov1, cov2))
        factor = _factor(first, arrays) if factor1 is None else arrays.put(factor1, np.float64)
        if 0 in factor.shape:  # constant features: a covariance of zeros
            return 0.0
        fast = _root_sum(_congruence(factor, second), arrays)
        if fast is not None:
            return fast
        return _nuclear_norm(factor.T @ _factor(second, arrays), arrays)


def covariance_factor(covariance: np.ndarray) -> np.ndarray:
    """A factor ``A`` with ``S = A A^T``: Cholesky's, or from eigenvectors where S is singular.

    Eigenvalues below ``d * eps * max`` are rounding noise, as for ``numpy.linalg.matrix_rank``,
    and are dropped: ``A`` is ``(d, rank)`` then.
    """
    with arrays_on(None) as arrays:
        return np.asarray(_factor(covariance, arrays))


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of singular values; 0 for a matrix without rows or columns."""
    with arrays_on(None) as arrays:
        return _nuclear_norm(matrix, arrays)


def frechet_distance_of_features(
    features1: np.ndarray, features2: np.ndarray, device: str | None = None
) -> float:
    """Frechet distance between two sets of features ``(n, d)`` and ``(m, d)``, ddof 1.

    With fewer rows than dimensions the ``(d, d)`` matrices are never formed: centred features are
    factors of the covariance, so the cross term is ``|X Y^T|_* / sqrt((n-1)(m-1))``. It is exact
    there, and far cheaper.

    Args:
        features1, features2: the sets.
        device: where torch does the arithmetic, in float64; None for numpy.

    Raises:
        PagodaError: if shapes disagree, a set has fewer than 2 rows, or anything is not finite.
    """
    contrasts, means = [], []
    for features in (features1, features2):
        rows = check_features(features).astype(np.float64)
        if len(rows) < 2:
            raise PagodaError("one image has no covariance; use 2 or more on each side")
        means.append(rows.mean(axis=0))
        contrasts.append(_contrasts(rows - means[-1]))
    (x, y), dim = contrasts, means[0].size
    if y.shape[1] != dim:
        raise PagodaError(f"features are {dim}-d and {y.shape[1]}-d; use one feature network")
    if max(len(x), len(y)) >= dim:
        return frechet_distance(means[0], x.T @ x, means[1], y.T @ y, device=device)
    with arrays_on(device) as arrays:
        cross = _cross_term(arrays.put(x, np.float64), arrays.put(y, np.float64), arrays)
    delta = means[0] - means[1]
    return max(0.0, float(delta @ delta + np.sum(x * x) + np.sum(y * y) - 2 * cross))


def frechet_distance_to_features(
    reference: Moments,
    features: np.ndarray,
    factor: np.ndarray | None = None,
    device: str | None = None,
) -> float:
    """Frechet distance from statistics of a reference to features ``(n, d)``, ddof 1.

    Args:
        reference: statistics of the reference.
        features: the other set; with n <= d its covariance is never formed.
        factor: :func:`covariance_factor` of the reference, to save it when it is used again.
        device: where torch does the arithmetic, in float64; None for numpy.

    Raises:
        PagodaError: if shapes disagree, there are fewer than 2 rows, or anything is not finite.
    """
    rows = check_features(features)
    if len(rows) > reference.mean.size or len(rows) < 2:
        moments = feature_moments(rows)
        return frechet_distance(
            reference.mean, reference.covariance, moments.mean, moments.covariance, factor, device
        )
    if rows.shape[1] != reference.mean.size:
        raise PagodaError(
            f"features are {rows.shape[1]}-d and the reference is {reference.mean.size}-d; "
            "use one feature network"
        )
    rows = rows.astype(np.float64)
    mean = rows.mean(axis=0)
    x = _contrasts(rows - mean)
    with arrays_on(device) as arrays:
        if factor is None:
            factor = arrays.get(_factor(arrays.put(reference.covariance, np.float64), arrays))
        cross = 0.0
        if factor.size:
            first = arrays.put(factor, np.float64)
            cross = _cross_term(arrays.put(x, np.float64), first.T, arrays)
    delta = reference.mean - mean
    traces = float(np.trace(reference.covariance) + np.sum(x * x))
    return max(0.0, float(delta @ delta) + traces - 2 * cross)


def _contrasts(centred: np.ndarray) -> np.ndarray:
    """Factor ``C`` of the covariance, ``S = C^T C``, of ``n - 1`` rows, from ``n`` centred rows.

    A Householder reflection takes the direction in which centred rows sum to zero to the first
    row, which vanishes: what is left has full rank unless the features repeat.
    """
    n = len(centred)
    rest = centred[1:] + centred[0] / (np.sqrt(n) - 1)
    rest /= np.sqrt(n - 1)
    return np.asarray(rest)


def _cross_term(x: Any, y: Any, arrays: Arrays) -> float:
    """``|X Y^T|_*``, by the smaller of its Gram matrices where that is accurate."""
    products = x @ y.T if len(x) <= len(y) else y @ x.T
    fast = _root_sum(products @ products.T, arrays)
    return _nuclear_norm(products, arrays) if fast is None else fast


def _congruence(factor: Any, matrix: Any) -> Any:
    """Lower triangle of ``L^T S L``, in a third of the work where L is lower triangular."""
    dim = len(matrix)
    parts = tiles(dim, _PANEL)
    if factor.shape[1] != dim or any(bool((factor[: p.start, p] != 0).any()) for p in parts):
        return factor.T @ matrix @ factor
    product = 1.0 * matrix  # room for the result; the upper triangle is never read
    for part in parts:
        below = slice(part.start, dim)
        product[below, part] = factor[below, below].T @ (matrix[below, below] @ factor[below, part])
    return product


def _root_sum(matrix: Any, arrays: Arrays) -> float | None:
    """Sum of the square roots of the eigenvalues, None where rounding could spoil it.

    Only the lower triangle of the matrix is read.
    """
    values = arrays.get(arrays.linalg.eigvalsh(matrix))
    if not values[0] > 0:
        return None
    roots = np.sqrt(values)
    # d sqrt(v) = dv / (2 sqrt(v)), and eigvalsh is off by about eps * max(v) in each v
    bound = np.finfo(np.float64).eps * values[-1] * np.sum(0.5 / roots)
    return float(roots.sum()) if bound <= _FAST_BOUND * roots.sum() else None


def _factor(covariance: Any, arrays: Arrays) -> Any:
    tolerance = len(covariance) * np.finfo(np.float64).eps
    try:
        factor = arrays.linalg.cholesky(covariance)
        if factor.diagonal().min() ** 2 > tolerance * covariance.diagonal().max():
            return factor
    except arrays.linalg_error:
        pass  # singular: the eigenvectors below serve
    values, vectors = arrays.linalg.eigh(covariance)
    kept = values > tolerance * max(float(values[-1]), 0.0)
    return vectors[:, kept] * values[kept] ** 0.5


def _nuclear_norm(matrix: Any, arrays: Arrays) -> float:
    return 0.0 if 0 in matrix.shape else float(arrays.linalg.svdvals(matrix).sum())
