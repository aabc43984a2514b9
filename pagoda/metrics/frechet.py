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
"""

from __future__ import annotations

import numpy as np

from pagoda.errors import PagodaError
from pagoda.metrics.statistics import check_features

_FAST_BOUND = 1e-11  # largest relative error allowed to the eigenvalue form


def frechet_distance(
    mean1: np.ndarray,
    cov1: np.ndarray,
    mean2: np.ndarray,
    cov2: np.ndarray,
    factor1: np.ndarray | None = None,
) -> float:
    """Frechet distance (squared 2-Wasserstein distance) between two Gaussians.

    Args:
        mean1, mean2: means, ``(d,)``.
        cov1, cov2: covariances, ``(d, d)``, symmetric and positive semi-definite.
        factor1: :func:`covariance_factor` of ``cov1``, to save it when many distances share it.

    Returns:
        The distance, in squared units of the features; never below 0.

    Raises:
        PagodaError: if shapes disagree or anything is NaN or infinite.
    """
    mean1, mean2 = (_checked(m, 1, "mean") for m in (mean1, mean2))
    cov1, cov2 = (_checked(c, 2, "covariance") for c in (cov1, cov2))
    dim = mean1.size
    if mean2.size != dim or cov1.shape != (dim, dim) or cov2.shape != (dim, dim):
        raise PagodaError(
            f"features differ in dimension: means {mean1.size} and {mean2.size}, covariances "
            f"{cov1.shape} and {cov2.shape}; compare statistics of one feature network"
        )
    cross = trace_sqrt_product(cov1, cov2, factor1)
    delta = mean1 - mean2
    return max(0.0, float(delta @ delta + np.trace(cov1) + np.trace(cov2) - 2.0 * cross))


def trace_sqrt_product(
    cov1: np.ndarray, cov2: np.ndarray, factor1: np.ndarray | None = None
) -> float:
    """``tr (S1 S2)^(1/2)`` of two symmetric positive semi-definite matrices, see the module."""
    factor1 = covariance_factor(cov1) if factor1 is None else factor1
    if not factor1.size:  # constant features: a covariance of zeros
        return 0.0
    inner = factor1.T @ cov2 @ factor1
    values = np.linalg.eigvalsh((inner + inner.T) / 2)
    if values[0] > 0:
        roots = np.sqrt(values)
        # d sqrt(v) = dv / (2 sqrt(v)), and eigvalsh is off by about eps * max(v) in each v
        bound = np.finfo(np.float64).eps * values[-1] * np.sum(0.5 / roots)
        if bound <= _FAST_BOUND * roots.sum():
            return float(roots.sum())
    return nuclear_norm(factor1.T @ covariance_factor(cov2))


def covariance_factor(covariance: np.ndarray) -> np.ndarray:
    """A factor ``A`` with ``S = A A^T``: Cholesky's, or from eigenvectors where S is singular.

    Eigenvalues below ``d * eps * max`` are rounding noise, as for ``numpy.linalg.matrix_rank``,
    and are dropped: ``A`` is ``(d, rank)`` then.
    """
    tolerance = len(covariance) * np.finfo(np.float64).eps
    try:
        factor = np.linalg.cholesky(covariance)
        if factor.diagonal().min() ** 2 > tolerance * covariance.diagonal().max():
            return factor
    except np.linalg.LinAlgError:
        pass  # singular: the eigenvectors below serve
    values, vectors = np.linalg.eigh(covariance)
    kept = values > tolerance * max(float(values[-1]), 0.0)
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of singular values; 0 for a matrix without rows or columns."""
    return float(np.linalg.svd(matrix, compute_uv=False).sum()) if matrix.size else 0.0


def frechet_distance_of_features(features1: np.ndarray, features2: np.ndarray) -> float:
    """Frechet distance between two sets of features ``(n, d)`` and ``(m, d)``, ddof 1.

    With fewer rows than dimensions the ``(d, d)`` matrices are never formed: centred features are
    factors of the covariance, so the cross term is ``|X Y^T|_* / sqrt((n-1)(m-1))``. It is exact
    there, and far cheaper.

    Raises:
        PagodaError: if shapes disagree, a set has fewer than 2 rows, or anything is not finite.
    """
    centred, means = [], []
    for features in (features1, features2):
        rows = check_features(features).astype(np.float64)
        if len(rows) < 2:
            raise PagodaError("one image has no covariance; use 2 or more on each side")
        means.append(rows.mean(axis=0))
        centred.append((rows - means[-1]) / np.sqrt(len(rows) - 1))
    (x, y), dim = centred, means[0].size
    if y.shape[1] != dim:
        raise PagodaError(f"features are {dim}-d and {y.shape[1]}-d; use one feature network")
    if max(len(x), len(y)) > dim:
        return frechet_distance(means[0], x.T @ x, means[1], y.T @ y)
    delta = means[0] - means[1]
    return max(
        0.0,
        float(delta @ delta + np.sum(x * x) + np.sum(y * y) - 2 * nuclear_norm(x @ y.T)),
    )


def _checked(array: np.ndarray, ndim: int, what: str) -> np.ndarray:
    array = np.asarray(array, dtype=np.float64)
    if array.ndim != ndim or not array.size:
        raise PagodaError(f"the {what} has shape {array.shape}; {ndim} axes are needed")
    if not np.isfinite(array).all():
        raise PagodaError(f"the {what} holds NaN or infinity; its features were not finite")
    return array
