"""High-frequency energy: how much of an image's detail a generator keeps.

With the discrete Fourier transform F of an image, channel by channel::

    fraction = sum_{|f| > f_0} |F(f)|^2 / sum_{f != 0} |F(f)|^2,     |f| = sqrt(f_x^2 + f_y^2)

Frequencies are in cycles per pixel: 0.5 along an axis is Nyquist's. The mean colour is left out.

Two measures, for two questions. The fraction, of one image and all its channels, does not change
with contrast: how is an image's power spread over scales? The energy, of luminance over a set and
in absolute units, does: its ratio to that of real images says how much detail a generator makes.
"""

from __future__ import annotations

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import PairMetric
from pagoda.evaluation.metrics.image_pairs import check_images, check_pairs

_LUMA = np.array([0.299, 0.587, 0.114])
_HALF_NYQUIST = 0.25  # cycles per pixel


def high_frequency_fractions(images: np.ndarray, above: float = _HALF_NYQUIST) -> np.ndarray:
    """Fraction of the power above a radial frequency, (n,) in [0, 1]; 0 for an image of one colour.

    Args:
        images: ``(n, channels, height, width)`` of any real type; the scale does not matter.
        above: f_0 in cycles per pixel; the default is half of Nyquist's.

    Raises:
        PagodaError: for another shape, or NaN or infinity.
    """
    images = check_images(images)
    if not 0 <= above < 0.5**0.5:
        raise PagodaError(f"no frequency of an image lies above {above} cycles per pixel; use 0.25")
    high = _above(above, *images.shape[2:])
    rounding = (4 * np.finfo(np.float64).eps) ** 2  # what is left of one colour by Parseval
    fractions = np.zeros(len(images))
    for i, image in enumerate(images):
        values = image.astype(np.float64)
        values -= values.mean(axis=(1, 2), keepdims=True)
        power = np.sum(np.abs(np.fft.fft2(values)) ** 2, axis=0)
        whole = power.sum()
        if whole > rounding * image.size * np.sum(image.astype(np.float64) ** 2):
            fractions[i] = power[high].sum() / whole
    return fractions


def _above(frequency: float, height: int, width: int) -> np.ndarray:
    """(height, width) which terms of a discrete Fourier transform lie above a radial frequency."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    # Frequencies that are equal on paper, such as 16/64 and 0.25, must fall on one side.
    return np.asarray(radius > frequency * (1 + 1e-12))


def high_frequency_energies(images: np.ndarray) -> np.ndarray:
    """(n,) energy of luminance of each uint8 image above half Nyquist's frequency, in [-1, 1].

    By Parseval's theorem: the power spectrum of each image, summed over frequencies of radius
    above 1/4 cycle a pixel and divided by (r^2)^2, is the mean square of that part of the image.
    """
    return np.array([_energy(image / 127.5) for image in check_images(images)])


def high_frequency_energy(images: np.ndarray) -> float:
    """Mean of :func:`high_frequency_energies`."""
    return float(np.mean(high_frequency_energies(images)))


def high_frequency_error(images: np.ndarray, targets: np.ndarray) -> float:
    """Mean squared error of luminance of uint8 images above half the Nyquist frequency."""
    pairs = zip(*check_pairs(images, targets), strict=True)
    return float(np.mean([_energy((a.astype(np.float64) - b) / 127.5) for a, b in pairs]))


def _energy(pixels: np.ndarray) -> float:
    """Of one image (3, r, r); a constant added to it changes nothing."""
    if len(pixels) != len(_LUMA):
        raise PagodaError(f"luminance is of {len(_LUMA)} channels; the images have {len(pixels)}")
    luma = np.einsum("c,chw->hw", _LUMA, pixels)
    high = _above(_HALF_NYQUIST, *luma.shape)
    return float(np.sum(np.abs(np.fft.fft2(luma)[high]) ** 2) / luma.size**2)


def _pairs(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Fractions of both sets, the error, and the ratio of the sets' energies."""
    first, second = high_frequency_energies(x), high_frequency_energies(y)
    errors = [high_frequency_error(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    return {
        "hf_share": high_frequency_fractions(x),
        "hf_share_second": high_frequency_fractions(y),
        "hf_mse": np.array(errors),
        "hf_ratio": np.stack([first, second], axis=1),
    }


HF = PairMetric("hf", lambda *_: _pairs, 3, square=True)
