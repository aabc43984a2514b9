"""High-frequency energy: how much fine detail images hold, and so how blurred they are."""

from __future__ import annotations

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_CHUNK = 1024


def high_frequency_energy(images: np.ndarray) -> float:
    """Mean energy of luminance above half the Nyquist frequency, a pixel, pixels in [-1, 1].

    By Parseval's theorem: the power spectrum of each image, summed over frequencies of radius
    above 1/4 cycle a pixel and divided by (r^2)^2, is the mean square of that part of the image.

    Args:
        images: (n, 3, r, r) uint8.
    """
    chunks = range(0, len(images), _CHUNK)
    total = 0.0
    for start in chunks:
        pixels = images[start : start + _CHUNK].astype(np.float32) / 127.5 - 1.0
        total += _energy(pixels) * len(pixels)
    return total / len(images)


def _energy(pixels: np.ndarray) -> float:
    size = pixels.shape[-1]
    frequency = np.fft.fftfreq(size)
    high = np.hypot(frequency[:, None], frequency[None, :]) > 0.25
    luma = np.einsum("c,nchw->nhw", _LUMA, pixels)
    power = np.square(np.abs(np.fft.fft2(luma)[:, high])).sum(1)
    return float(power.mean()) / size**4


def high_frequency_error(images: np.ndarray, targets: np.ndarray) -> float:
    """Mean squared error of luminance above half the Nyquist frequency, pixels in [-1, 1].

    Both (n, 3, r, r) uint8.
    """
    return _energy(images.astype(np.float32) / 127.5 - targets.astype(np.float32) / 127.5)
