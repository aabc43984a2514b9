"""Errors of pairs of images, pixel by pixel: MSE and PSNR, and the checks of pairs.

    MSE = mean (x - y)^2, pixels in [-1, 1];        PSNR = 10 log10(255^2 / mean (x - y)^2), in dB

Means are over the pixels and channels of one image, so a set's PSNR is the mean of its images'
ratios, not the ratio of the pooled error.
"""

from __future__ import annotations

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import PairMetric
from pagoda.evaluation.metrics.statistics import check_numbers


def check_images(images: np.ndarray, what: str = "images") -> np.ndarray:
    """A finite, non-empty batch ``(n, channels, height, width)``.

    Raises:
        PagodaError: for anything else.
    """
    array = check_numbers(images, what)
    if array.ndim != 4 or not array.size:
        raise PagodaError(
            f"{what} have shape {array.shape}; (n, channels, height, width) is needed"
        )
    if not np.isfinite(array).all():
        raise PagodaError(f"{what} hold NaN or infinity; check the generator that made them")
    return array


def check_pairs(images: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two batches of uint8 images of equal shape: pixel metrics are of images as they are saved.

    Raises:
        PagodaError: for another type or different shapes.
    """
    first, second = check_images(images), check_images(references)
    if first.dtype != np.uint8 or second.dtype != np.uint8:
        raise PagodaError(f"images are {first.dtype} and {second.dtype}; compare uint8 images")
    if first.shape != second.shape:
        raise PagodaError(f"images are {first.shape} and {second.shape}; use equal shapes")
    return first, second


def mse(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """MSE of each pair of uint8 images, (n,)."""
    first, second = check_pairs(images, references)
    return np.asarray(np.square((first.astype(np.float64) - second) / 127.5).mean((1, 2, 3)))


def psnr(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """PSNR of each pair of uint8 images, (n,), in dB; infinity for equal ones."""
    first, second = check_pairs(images, references)
    errors = [
        np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
        for a, b in zip(first, second, strict=True)
    ]
    with np.errstate(divide="ignore"):
        return np.asarray(10.0 * np.log10(255.0**2 / np.array(errors)))


MSE = PairMetric("mse", lambda *_: lambda x, y: {"mse": mse(x, y)}, 0)
PSNR = PairMetric("psnr", lambda *_: lambda x, y: {"psnr": psnr(x, y)}, 1)
