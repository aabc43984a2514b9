"""Structural similarity of pairs of images (Wang et al. 2004).

Means, variances and the covariance under a Gaussian window of 11 x 11 pixels, sigma 1.5::

    SSIM = (2 m_x m_y + C_1)(2 s_xy + C_2) / ((m_x^2 + m_y^2 + C_1)(s_x^2 + s_y^2 + C_2))

with C_1 = (0.01 * 255)^2 and C_2 = (0.03 * 255)^2, averaged over channels and the
positions at which the window lies inside the image, as in the authors' code, scikit-image and piq.
(torchmetrics reflects the image beyond its border and counts windows there.)
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import PairMetric
from pagoda.evaluation.metrics.image_pairs import check_pairs

WINDOW = 11
"""Side of the window, pixels; images are no smaller."""

_OFFSETS = np.arange(WINDOW) - WINDOW // 2
_GAUSSIAN = np.exp(-(_OFFSETS**2) / (2 * 1.5**2))
_WEIGHTS = _GAUSSIAN / _GAUSSIAN.sum()
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """SSIM of each pair of uint8 images of 11 pixels a side or more, (n,), at most 1, in float64.

    Raises:
        PagodaError: for another type, different shapes or smaller images.
    """
    first, second = check_pairs(images, references)
    if min(first.shape[2:]) < WINDOW:
        raise PagodaError(f"SSIM has a window of {WINDOW} pixels; images are {first.shape[2:]}")
    return np.array([_ssim(a, b) for a, b in zip(first, second, strict=True)])


def _ssim(first: np.ndarray, second: np.ndarray) -> float:
    x, y = first.astype(np.float64), second.astype(np.float64)
    mean_x, mean_y, xx, yy, xy = (_blurred(v) for v in (x, y, x * x, y * y, x * y))
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    alike = (2 * product + _C1) * (2 * (xy - product) + _C2)
    return float(np.mean(alike / ((squares + _C1) * (xx + yy - squares + _C2))))


def _blurred(images: np.ndarray) -> np.ndarray:
    """Weighted means at the valid positions, (c, h - 10, w - 10)."""
    rows = sliding_window_view(images, WINDOW, axis=-2) @ _WEIGHTS
    return np.asarray(sliding_window_view(rows, WINDOW, axis=-1) @ _WEIGHTS)


SSIM = PairMetric("ssim", lambda *_: lambda x, y: {"ssim": ssim(x, y)}, 2,
                  least=-1.0, most=1.0)  # fmt: skip
