"""How good an edit is: errors in a hole, jumps at its seam, how answers differ, paths."""

from __future__ import annotations

import numpy as np

from pagoda.evaluation.metrics.image_pairs import check_pairs


def hole_psnr(images: np.ndarray, references: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """PSNR of each pair of uint8 images over the pixels of its hole, (n,), in dB.

    Args:
        images, references: (n, 3, h, w).
        hole: (n, 1, h, w), true inside; every image has one.
    """
    first, second = check_pairs(images, references)
    inside = np.broadcast_to(hole, first.shape)
    squares = np.square(first.astype(np.float64) - second)
    errors = np.where(inside, squares, 0).sum((1, 2, 3)) / inside.sum((1, 2, 3))
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255.0**2 / errors))


def seam_jump(images: np.ndarray, references: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """How much more images jump across the edge of a hole than the originals do, (n,).

    Mean over neighbours, one inside and one outside, of |difference| in [-1, 1], minus that of the
    reference: a visible seam is well above 0, a blurred one below.
    """
    first, second = check_pairs(images, references)
    pairs = zip(first, second, hole, strict=True)
    return np.array([_jumps(a, m) - _jumps(b, m) for a, b, m in pairs])


def _jumps(image: np.ndarray, hole: np.ndarray) -> float:
    found = []
    for axis in (1, 2):
        across = np.diff(hole.astype(np.int8), axis=axis)[0] != 0
        found.append(np.abs(np.diff(image / 127.5, axis=axis))[:, across].ravel())
    return float(np.concatenate(found).mean())


def diversity(features: np.ndarray) -> np.ndarray:
    """Mean distance of the answers to each question from each other, (n,).

    Args:
        features: (n, k, d) of k answers, 2 or more.
    """
    apart = np.linalg.norm(features[:, :, None] - features[:, None], axis=-1)
    k = features.shape[1]
    return np.asarray(apart.sum((1, 2)) / (k * (k - 1)))


def succession(hits: np.ndarray) -> float:
    """A rate that is neither 0 nor 1: (k + 1) / (n + 2), Laplace's rule of succession."""
    return float((np.count_nonzero(hits) + 1) / (len(hits) + 2))


def path_length(first: np.ndarray, second: np.ndarray, step: float) -> float:
    """Perceptual path length (Karras et al. 2019): |f(t) - f(t + e)|^2 / e^2.

    As in StyleGAN2-ADA, values below the 1st and above the 99th percentile are left out.

    Args:
        first, second: (n, d) features at t and at t + e.
        step: e.
    """
    values = np.square(first.astype(np.float64) - second).sum(1) / step**2
    low = np.percentile(values, 1, method="lower")
    high = np.percentile(values, 99, method="higher")
    return float(values[(values >= low) & (values <= high)].mean())
