"""Mean squared error of pairs of images, pixels in [-1, 1]."""

from __future__ import annotations

import numpy as np

from pagoda.evaluation.metrics.base import PairMetric


def mse(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Error of each pair of uint8 images ``(n, channels, height, width)``, (n,)."""
    return np.asarray(np.square((images.astype(np.float64) - references) / 127.5).mean((1, 2, 3)))


MSE = PairMetric("mse", lambda *_: lambda x, y: {"mse": mse(x, y)}, 0)
