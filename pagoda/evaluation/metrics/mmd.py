"""Maximum mean discrepancy with a Gaussian kernel: CMMD where the features are CLIP's.

    k(x, y) = exp(-|x - y|^2 / (2 sigma^2))

(Jayasumana et al. 2024 use sigma = 10, times 1000, on unit-length embeddings of CLIP ViT-L/14 at
336 pixels.) The V-statistic, theirs, is never negative; the U-statistic has no bias.

With unit vectors and sigma = 10 every kernel value is near 1, and three means near 1 that are
subtracted lose their digits. ``k - 1`` is summed instead: the ones cancel exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.arrays import arrays_on
from pagoda.evaluation.metrics.base import Comparison, Metric, is_clip
from pagoda.evaluation.metrics.discrepancy import centre_of, check_sides, discrepancy
from pagoda.rows import Row


def gaussian_mmd(
    x: np.ndarray,
    y: np.ndarray,
    sigma: float = 10.0,
    scale: float = 1000.0,
    unbiased: bool = False,
    device: str | None = None,
) -> float:
    """``scale`` times the squared discrepancy of features ``(n, d)`` and ``(m, d)``, in float64.

    ``sigma`` is in the features' units; for CMMD these are divided by their lengths.

    Raises:
        PagodaError: if dimensions disagree, a side has too few rows, anything is not finite, or
            sigma is not above 0.
    """
    x, y = check_sides(x, y, 1 + unbiased)
    if not sigma > 0:
        raise PagodaError(f"a Gaussian kernel has no width of {sigma}; use one above 0")
    with arrays_on(device) as arrays:

        def kernel(left: Any, right: Any) -> Any:
            found = left @ right.T
            found *= -2.0
            found += arrays.row_products(left, left)[:, None]
            found += arrays.row_products(right, right)
            found *= -0.5 / sigma**2
            return arrays.expm1(found)

        return scale * discrepancy(x, y, centre_of(x, y), kernel, unbiased, arrays)


def _mmd(c: Comparison) -> Row:
    """As cmmd-pytorch: V-statistic, times 1000; CLIP's features at unit length."""
    clip, width = is_clip(c.made.extractor), c.settings.mmd_width
    real, made = c.real.kept, c.made.features
    if clip:
        real, made = (
            f / np.linalg.norm(f.astype(np.float64), axis=1, keepdims=True) for f in (real, made)
        )
    value = gaussian_mmd(real, made, width, device=c.device)
    return c.row("cmmd" if clip else "mmd", value, len(real), w=width)


MMD = Metric(
    "mmd", {"cmmd": "CMMD", "mmd": "MMD"}, _mmd, ("features", "real"), alias="cmmd", owner="CLIP",
    place=22,
)  # fmt: skip
