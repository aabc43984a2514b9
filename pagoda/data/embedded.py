"""The embedded image set: procedural, class-labelled, captioned, nothing to download.

Ten classes that differ in shape and texture, with random pose, size, colours, background and
light. Images are drawn natively at any power-of-two resolution: the scene does not depend on the
resolution, so cutting a drawn image down is a real downsampling operation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pagoda.data.captions import captions
from pagoda.data.scenes import CLASSES, Floats, Scenes, scenes
from pagoda.data.shapes import PERIOD, SHAPES, Field, edge, wave
from pagoda.errors import PagodaError

__all__ = ["CLASSES", "SEED", "captions", "render"]

SEED = 0
"""Seed of the one embedded set that every experiment uses, so that distances compare."""

_CHUNK = 1 << 15  # samples worked on at once: small enough for the processor's cache
_OUTLINE = 0.022  # width of the outline, fraction of the image
_SHADOW = 0.11  # reach of the contact shadow, fraction of the image
_TEXTURE = 0.13  # amplitude of the object's fine texture
_WEAVE = 0.083  # period of the background's weave, fraction of the image
# How far the highlight sits from the centre, in radii: on the body of each shape.
_HIGHLIGHT = np.array([0.45, 0.4, 0.25, 0.76, 0.1, 0.15, 0.4, 0.4, 0.6, 0.5])


def render(
    indices: ArrayLike, *, resolution: int, seed: int, split: str, variety: float = 1.0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw images of the embedded set.

    Args:
        indices: which images, (n,) whole numbers >= 0; any order, repeats allowed.
        resolution: width and height R in pixels, a power of two from 8 to 512.
        seed: seed of the set.
        split: name of the split; each has scenes of its own.

    Returns:
        Images (n, 3, R, R), uint8 RGB in 0..255, and labels (n,), ``index % 10``. Image i depends
        on (seed, split, indices[i], resolution) only, whatever else is drawn in the same call.

    Raises:
        PagodaError: if the resolution is not allowed.
    """
    if resolution not in (8, 16, 32, 64, 128, 256, 512):
        raise PagodaError(
            f"resolution {resolution} of the embedded set; it must be a power of two, 8 to 512"
        )
    scene = scenes(indices, seed=seed, split=split, variety=variety)
    images = np.empty((len(scene.label), 3, resolution, resolution), np.uint8)
    step = max(1, _CHUNK // resolution**2)
    for label in range(len(CLASSES)):
        rows = np.flatnonzero(scene.label == label)
        for start in range(0, len(rows), step):
            chunk = rows[start : start + step]
            images[chunk] = _draw(scene[chunk], label, resolution)
    return images, scene.label


def _draw(s: Scenes, label: int, resolution: int) -> NDArray[np.uint8]:
    """Draw scenes of one class: 2x2 samples a pixel, each antialiased, then box-filtered.

    Every colour is a weighted sum of a few constant colours. The box filter is linear, so it is
    applied to the weights, and colours are mixed once a pixel instead of once a sample.
    """
    pixel = 1 / resolution
    grid = (np.arange(resolution) + 0.5) * pixel - 0.5
    total: list[Field] = []
    for dy in (-pixel / 4, pixel / 4):
        for dx in (-pixel / 4, pixel / 4):
            part = _weights(s, label, grid + dx, grid + dy, pixel / 2)
            total = [a + b for a, b in zip(total, part, strict=True)] if total else part
    ground, shine, *inks = total
    slope = ground * _backdrop(s, grid, pixel)
    colours = [s.ground, s.ground_slope, np.ones_like(s.ground), s.colour, s.accent]
    out = np.empty((len(s.label), 3, resolution, resolution), np.uint8)
    for c in range(3):
        value = np.full_like(ground, 0.5)
        for weight, colour in zip((ground, slope, shine, *inks), colours, strict=False):
            value += weight * _f32(colour[:, c, None, None] * (255 / 4))
        out[:, c] = np.clip(value, 0, 255)
    return out


def _weights(s: Scenes, label: int, x: Floats, y: Floats, h: float) -> list[Field]:
    """Weights (n, R, R) of background, white, object colour and, if the class has it, accent.

    Args:
        x: columns (R,), y: rows (R,): centres of the samples. h: width of a sample.
    """
    r, (cx, cy), (lx, ly) = _cube(s.radius), _cube(s.centre), _cube(s.light)
    px, py = (_cube(s.mirror) * x - cx) / r, (y[:, None] - cy) / r
    cos, sin = np.cos(_cube(s.tilt)), np.sin(_cube(s.tilt))
    u, v = _f32(px * cos) + _f32(py * sin), _f32(py * cos) - _f32(px * sin)
    lit = _f32(px * lx) + _f32(py * ly)
    k = _HIGHLIGHT[label]
    spot = _f32((px - k * lx) ** 2 / 0.1) + _f32((py - k * ly) ** 2 / 0.1)

    width = _f32(h / r)
    distance, texture, accent = SHAPES[label](u, v, width)
    inside = edge(distance, width)
    outline = inside - edge(distance + _f32(_OUTLINE / r), width)
    near = np.maximum(np.float32(1) - np.abs(distance) * _f32(r / _SHADOW), np.float32(0))
    shade = np.clip(np.float32(0.26) - np.float32(0.2) * lit, np.float32(0.08), np.float32(0.5))
    ground = (np.float32(1) - inside) * (np.float32(1) - shade * near * near)

    fine = _f32(_TEXTURE * _seen(h / (r * PERIOD[label])))
    body = np.float32(1) + _f32(_cube(s.shading)) * lit + fine * texture
    body *= inside - np.float32(0.5) * outline
    shine = np.maximum(np.float32(1) - spot, np.float32(0))
    shine *= shine * np.float32(0.55)
    body -= shine * body
    shine *= inside
    if accent is None:
        return [ground, shine, body]
    second = body * accent
    return [ground, shine, body - second, second]


def _backdrop(s: Scenes, grid: Floats, pixel: float) -> Field:
    """Position (n, R, R) on the background's gradient, -1 and 1 being its ends."""
    x, y = _cube(s.mirror) * grid, grid[:, None]
    gx, gy, glow, weave = _cube(s.gradient)
    level = _f32(2 * gx * x - glow * (6 * x * x - 0.9)) + _f32(2 * gy * y - glow * 6 * y * y)
    fine = _f32(weave * _seen(pixel / _WEAVE))
    level += wave(_f32(x / _WEAVE)) * wave(_f32(y / _WEAVE)) * fine
    return level


def _seen(cycles: Floats | float) -> Floats:
    """Contrast that a sine keeps under a box filter ``cycles`` periods wide, 0 beyond one."""
    contrast: Floats = np.where(np.less(cycles, 1), np.sinc(cycles), 0.0)
    return contrast


def _cube(values: Floats) -> Floats:
    """(n,) -> (n, 1, 1) and (n, k) -> (k, n, 1, 1), to go with (n, R, R)."""
    return values.T[..., None, None]


def _f32(values: Floats) -> Field:
    return np.asarray(values, np.float32)
