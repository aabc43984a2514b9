"""Structural similarity of pairs of images (Wang et al. 2004), by torchmetrics.

Means, variances and the covariance under a Gaussian window of 11 x 11 pixels, sigma 1.5::

    SSIM = (2 m_x m_y + C_1)(2 s_xy + C_2) / ((m_x^2 + m_y^2 + C_1)(s_x^2 + s_y^2 + C_2))

with C_1 = (0.01 * 255)^2 and C_2 = (0.03 * 255)^2, averaged over positions and channels.
"""

from __future__ import annotations

import numpy as np

from pagoda.errors import PagodaError
from pagoda.metrics.image_pairs import check_pairs

_WINDOW = 11


def ssim(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """SSIM of each pair, (n,), at most 1, in float64.

    Args:
        images, references: uint8, ``(n, channels, height, width)``, 11 pixels a side or more.

    Raises:
        PagodaError: for another type, different shapes or smaller images.
    """
    first, second = check_pairs(images, references)
    if min(first.shape[2:]) < _WINDOW:
        raise PagodaError(f"SSIM has a window of {_WINDOW} pixels; images are {first.shape[2:]}")
    import torch  # takes seconds, and only image metrics need it
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = []
    for a, b in zip(first, second, strict=True):
        x, y = (torch.from_numpy(i[None].astype(np.float64)) for i in (a, b))
        values.append(np.asarray(structural_similarity_index_measure(x, y, data_range=255.0)))
    return np.array(values, dtype=np.float64)
