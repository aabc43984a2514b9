"""What a picture of the embedded set shows, read from its pixels by comparison with drawn shapes.

For each class, size, tilt and place there is a template: how much of the background, of its two
ramps, of the object's two colours, of light across and down it, of its outline and of its texture
each pixel has. An image is a weighted sum of
these with unknown colours; the template that leaves the least squared error is what it shows, and
the weights are its colours. A grid of templates comes first, then a search from the best of each of
the likeliest classes. Nothing is learned, so no network can please the reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagoda.data.scenes import CLASSES, LUMA, RADIUS, ROUND, TILT
from pagoda.data.shapes import SHAPES, edge
from pagoda.errors import PagodaError

Array = NDArray[Any]

SIDE = 32
"""Side that larger images are averaged down to; smaller ones show too little of a shape."""

_RADII, _TILTS, _PLACES = 3, 5, (-0.06, 0.0, 0.06)
_LIKELY = 4  # classes that are searched further
_ROUNDS = 7
_AT_ONCE = 64
_PARTS = 9
_OUTLINE = 0.022  # width of the outline, fraction of the image
_APART = 0.3  # least that a second colour differs, of how far the background does
_MIRRORED = CLASSES.index("crescent")  # the only shape that is not its own mirror image


@dataclass(frozen=True)
class Seen:
    """What each of n pictures shows; fields as of :class:`pagoda.data.scenes.Scenes`.

    Attributes:
        label, radius: (n,) class and size.
        tilt: (n,) radians clockwise, as seen.
        hue, ground_hue: (n,) of object and background, 0..1.
        is_light: (n,) whether the object outshines the background.
        light: (n, 2) towards the brighter side of the object, any length.
        error: (n,) mean squared error of the template, pixels in 0..1.
    """

    label: Array
    radius: Array
    tilt: Array
    hue: Array
    ground_hue: Array
    is_light: Array
    light: Array
    error: Array


def read(images: Array) -> Seen:
    """What images (n, 3, r, r) uint8 show.

    Raises:
        PagodaError: images smaller than 32 pixels a side, or not of a multiple of that.
    """
    side = images.shape[-1]
    if side < SIDE or side % SIDE:
        raise PagodaError(f"images are {side}x{side}; they are read at {SIDE} or a multiple of it")
    blocks = images.reshape(len(images), 3, SIDE, side // SIDE, SIDE, side // SIDE)
    x = (blocks.mean((3, 5)) / 255).reshape(len(images), 3, -1)
    starts = range(0, len(x), _AT_ONCE)
    parts = [_read(x[start : start + _AT_ONCE]) for start in starts]
    return Seen(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _read(x: Array) -> tuple[Array, ...]:
    """Fields of :class:`Seen` for a few images (n, 3, pixels)."""
    n, (pose, label, basis) = len(x), _grid()
    flat = basis.reshape(-1, basis.shape[2]) @ x.astype(np.float32).reshape(-1, x.shape[2]).T
    kept = np.square(flat.reshape(len(label), -1, n, 3)).sum((1, 3))  # of |x|^2
    of_class = np.stack([np.where((label == y)[:, None], kept, -1).argmax(0)
                         for y in range(len(CLASSES))])  # fmt: skip
    best = np.take_along_axis(kept, of_class, 0)
    likely = np.argsort(-best, axis=0)[:_LIKELY]
    found = [_searched(x, of_class[row, np.arange(n)], pose, label) for row in likely]
    errors = np.stack([error for _, error, _ in found])
    win = errors.argmin(0)
    at = np.arange(n)
    poses = np.stack([p for p, _, _ in found])[win, at]
    colours = np.stack([c for _, _, c in found])[win, at]  # (n, parts, 3)
    labels = label[of_class[likely, at]][win, at]
    ground, body = colours[:, 0], colours[:, 3]
    mirror = poses[:, 4]
    light = np.stack([mirror * (colours[:, 5] @ LUMA), colours[:, 6] @ LUMA], 1)
    error = errors[win, at] / (3 * x.shape[2])
    return (labels, poses[:, 0], mirror * poses[:, 1], hue(body), hue(ground),
            body @ LUMA > ground @ LUMA, light, error)  # fmt: skip


def _searched(x: Array, start: Array, pose: Array, label: Array) -> tuple[Array, Array, Array]:
    """From templates ``start`` (n,) of images, better ones: poses, squared errors, colours."""
    n, own = len(x), label[start]
    now = pose[start].copy()
    radii, tilts = (RADIUS[own, 1] - RADIUS[own, 0]) / _RADII, np.radians(TILT[own]) / 2
    spread = np.stack([radii, tilts, np.full(n, 0.04), np.full(n, 0.04)], axis=1)
    step, at = spread / 2, np.arange(n)
    moves = np.concatenate([np.eye(4), -np.eye(4)])
    low, high = RADIUS[own].T[:, :, None]
    (error,), (colour,) = (np.moveaxis(found, 1, 0) for found in _fitted(x, now[:, None], own))
    for _ in range(_ROUNDS):
        tried = np.repeat(now[:, None], len(moves), 1)
        tried[:, :, :4] += moves * step[:, None]
        tried[:, :, 0] = np.clip(tried[:, :, 0], low, high)
        errors, colours = _fitted(x, tried, own)
        best = errors.argmin(1)
        better = errors[at, best] < error
        now[better], error[better], colour[better] = (
            found[at, best][better] for found in (tried, errors, colours)
        )
        step[~better] /= 2
    return now, error, colour


def _fitted(x: Array, poses: Array, label: Array) -> tuple[Array, Array]:
    """Least squared error (n, m) of images by templates of poses (n, m, 5), and colours."""
    n, m = poses.shape[:2]
    gram, seen = np.empty((n, m, _PARTS, _PARTS)), np.empty((n, m, _PARTS, 3))
    for y in np.unique(label):
        rows = label == y
        parts = _parts(int(y), poses[rows].reshape(-1, 5)).reshape(-1, m, _PARTS, SIDE * SIDE)
        gram[rows] = parts @ parts.transpose(0, 1, 3, 2)
        seen[rows] = parts @ x[rows, None].transpose(0, 1, 3, 2).astype(np.float32)
    gram += 1e-3 * np.eye(_PARTS)
    colours = np.linalg.solve(gram, seen)
    errors = np.square(x).sum((1, 2))[:, None] - (colours * seen).sum((2, 3))
    ground, body, second = (colours[:, :, i] for i in (0, 3, 4))
    apart = np.linalg.norm(second - body, axis=2) > _APART * np.linalg.norm(ground - body, axis=2)
    one_colour = gram[:, :, 4, 4] < 1e-3 + 1e-6
    return np.where(apart | one_colour, errors, np.square(x).sum()), colours


@cache
def _grid() -> tuple[Array, Array, Array]:
    """Poses (t, 5), classes (t,) and orthonormal bases (t, parts, pixels) of the first grid."""
    poses, labels = [], []
    for y in range(len(CLASSES)):
        low, high = RADIUS[y]
        tilts = np.radians(TILT[y]) * (np.linspace(-1, 1, _TILTS) if y not in ROUND
                                           else np.zeros(1))  # fmt: skip
        mirrors = (1.0, -1.0) if y == _MIRRORED else (1.0,)
        for i in range(_RADII):
            radius = low + (high - low) * (i + 0.5) / _RADII
            own = [(radius, t, cx, cy, m) for t in tilts for cx in _PLACES for cy in _PLACES
                   for m in mirrors]  # fmt: skip
            poses += own
            labels += [y] * len(own)
    pose, label = np.array(poses), np.array(labels)
    basis = np.empty((len(pose), _PARTS, SIDE * SIDE), np.float32)
    for y in range(len(CLASSES)):
        rows = label == y
        parts = _parts(y, pose[rows]) + 1e-6 * np.eye(_PARTS, SIDE * SIDE)
        basis[rows] = np.linalg.qr(parts.transpose(0, 2, 1))[0].transpose(0, 2, 1)
    return pose, label, basis


def _parts(label: int, poses: Array) -> Array:
    """(m, parts, pixels) of poses (m, 5): see the module's text.

    A pose is radius, tilt, place across and down, and +1, or -1 for a mirrored scene.
    """
    radius, tilt, cx, cy, mirror = poses.T.astype(np.float32)[:, :, None, None]
    grid = ((np.arange(SIDE) + 0.5) / SIDE - 0.5).astype(np.float32)
    x, y = grid[None, None], grid[None, :, None]
    px, py = mirror * (x - cx) / radius, (y - cy) / radius
    cos, sin = np.cos(tilt), np.sin(tilt)
    u, v = px * cos + py * sin, py * cos - px * sin
    width = 1 / (SIDE * radius)
    distance, texture, accent = SHAPES[label](u, v, width)
    inside = edge(distance, width)
    ground = 1 - inside
    second = inside * np.float32(0) if accent is None else inside * accent
    outline = inside - edge(distance + np.float32(_OUTLINE) / radius, width)
    out = np.empty((len(poses), _PARTS, SIDE, SIDE), np.float32)
    for i, part in enumerate((ground, ground * x, ground * y, inside - second, second, inside * px,
                              inside * py, outline, inside * texture)):  # fmt: skip
        out[:, i] = part
    return out.reshape(len(poses), _PARTS, SIDE * SIDE)


def hue(rgb: Array) -> Array:
    """(n,) in [0, 1) of colours (n, 3); 0 of greys."""
    high, low = rgb.max(1), rgb.min(1)
    span = np.maximum(high - low, 1e-9)
    r, g, b = rgb.T
    sixths = np.select(
        [high == r, high == g], [(g - b) / span % 6, (b - r) / span + 2], (r - g) / span + 4
    )
    return np.asarray(sixths / 6 % 1)
