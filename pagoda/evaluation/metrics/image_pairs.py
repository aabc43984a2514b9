"""Checks that images can be compared pixel by pixel."""

from __future__ import annotations

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.statistics import check_numbers


def check_images(images: np.ndarray, what: str = "images") -> np.ndarray:
    """Return ``images`` as an array after checking that it is a finite, non-empty NCHW batch.

    Raises:
        PagodaError: if it is not.
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
