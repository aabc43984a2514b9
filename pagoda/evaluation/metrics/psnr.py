"""Peak signal-to-noise ratio of pairs of images.

    PSNR = 10 log10(255^2 / MSE)   in decibels

The mean squared error is over the pixels and channels of one image, so a set's figure is the mean
of its images' ratios, not the ratio of the pooled error.
"""

from __future__ import annotations

import numpy as np

from pagoda.evaluation.metrics.base import PairMetric
from pagoda.evaluation.metrics.image_pairs import check_pairs


def psnr(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """PSNR of each pair, (n,), in dB; infinity for equal images.

    Args:
        images, references: uint8, ``(n, channels, height, width)``.

    Raises:
        PagodaError: for another type or different shapes.
    """
    first, second = check_pairs(images, references)
    errors = [
        np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
        for a, b in zip(first, second, strict=True)
    ]
    with np.errstate(divide="ignore"):
        return np.asarray(10.0 * np.log10(255.0**2 / np.array(errors)))


PSNR = PairMetric("psnr", lambda *_: lambda x, y: {"psnr": psnr(x, y)}, 1)
