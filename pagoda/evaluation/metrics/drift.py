"""How far objects move between two resolutions of a generator (PaGoDA figure 3).

The output of a grown generator is averaged down to the resolution below and compared with what the
generator below makes of the same latent. Where growth keeps the picture, the best match is at
displacement zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.image_pairs import check_images

REACH = 2
"""Pixels that a displacement is looked for; images below are larger than twice that."""

_CHUNK = 64  # images in float64 at a time
_FLAT = 1e-7  # costs that differ by less show no texture


@dataclass(frozen=True)
class Drift:
    """Displacements of n images from their counterparts one resolution below.

    Attributes:
        pixels: (n,) length of the displacement, in pixels of the lower resolution.
        mse: (n,) mean squared difference without any shift, pixels in [-1, 1].
    """

    pixels: np.ndarray
    mse: np.ndarray


def drift(high: np.ndarray, low: np.ndarray, reach: int = REACH) -> Drift:
    """Displacement of every high-resolution image from its low-resolution counterpart.

    The centre of each low-resolution image, ``reach`` pixels inside the border, is looked for
    within ``reach`` pixels of its place in the averaged-down image, by least squares, and the best
    whole shift is refined by a parabola through its neighbours on each axis. An image without any
    texture matches everywhere and counts as unmoved. Images are uint8, (n, 3, k r, k r) and
    (n, 3, r, r) with r > 2 reach.

    Raises:
        PagodaError: for shapes that do not belong together, or images too small to look in.
    """
    high, low = check_images(high), check_images(low)
    size, r = high.shape[-1], low.shape[-1]
    if high.shape[:2] != low.shape[:2] or size % r or r <= 2 * reach:
        raise PagodaError(
            f"images of {high.shape} and {low.shape} do not show a drift of {reach} pixels; use as "
            f"many of a multiple of the lower size, which is above {2 * reach}"
        )
    parts = [slice(start, start + _CHUNK) for start in range(0, len(low), _CHUNK)]
    pixels, mse = zip(*(_drift(high[part], low[part], reach) for part in parts), strict=True)
    return Drift(np.concatenate(pixels), np.concatenate(mse))


def _drift(high: np.ndarray, low: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    down, below = shrink(high, low.shape[-1]), _scaled(low)
    inner = below.shape[-1] - 2 * reach
    template = below[..., reach : reach + inner, reach : reach + inner]
    span = range(2 * reach + 1)
    windows = [[down[..., y : y + inner, x : x + inner] for x in span] for y in span]
    cost = np.array(
        [[np.square(w - template).mean((1, 2, 3)) for w in row] for row in windows]
    )  # (y, x, n)
    shifts = np.array([_best(image, reach) for image in cost.transpose(2, 0, 1)])
    return np.hypot(shifts[:, 0], shifts[:, 1]), np.square(down - below).mean((1, 2, 3))


def shrink(images: np.ndarray, resolution: int) -> np.ndarray:
    """uint8 images averaged down over whole boxes, (n, 3, resolution, resolution) in [-1, 1]."""
    n, c, size, _ = images.shape
    k = size // resolution
    boxes = _scaled(images).reshape(n, c, resolution, k, resolution, k)
    return np.asarray(boxes.mean((3, 5)))


def _scaled(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float64) / 127.5 - 1.0


def _best(cost: np.ndarray, reach: int) -> tuple[float, float]:
    """(y, x) of the least cost, refined; the middle of the table is no displacement."""
    if np.ptp(cost) <= _FLAT:
        return 0.0, 0.0
    y, x = np.unravel_index(cost.argmin(), cost.shape)
    return (
        float(y - reach + _vertex(cost[:, x], int(y))),
        float(x - reach + _vertex(cost[y], int(x))),
    )


def _vertex(values: np.ndarray, i: int) -> float:
    """Offset in [-1/2, 1/2] of the minimum of the parabola through ``i`` and its neighbours."""
    if i in (0, len(values) - 1):
        return 0.0
    before, here, after = values[i - 1 : i + 2].astype(float)
    bend = before - 2 * here + after
    return 0.0 if bend <= 0 else float(np.clip((before - after) / (2 * bend), -0.5, 0.5))
