"""Signed distance functions and surface patterns of the ten classes.

Each shape maps local coordinates ``u, v`` (n, R, R), in units of the object's radius, and the
width ``h`` (n, 1, 1) of a sample in the same units to a :class:`Surface`. Only operations that
IEEE 754 rounds exactly are used, so that a picture has the same bits on every machine and in
every batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]  # float32


class Surface(NamedTuple):
    """A shape at every sample: ``distance`` to its edge (negative inside, units of the radius),
    fine ``texture`` in -1..1, and the fraction of the second colour (None: there is none).
    """

    distance: Field
    texture: Field
    accent: Field | None = None


def wave(x: Field) -> Field:
    """A parabolic approximation of -sin(2 pi x), exact at every quarter period."""
    t: Field = x - np.floor(x)
    t -= np.float32(0.5)
    t *= np.float32(8) - np.float32(16) * np.abs(t)
    return t


def edge(signed: Field, h: Field) -> Field:
    """Fraction of a sample of width ``h`` that lies where ``signed`` is negative."""
    fraction: Field = np.clip(np.float32(0.5) - signed / h, np.float32(0), np.float32(1))
    return fraction


def bands(x: Field, h: Field) -> Field:
    """Bold bands: 1 where x is nearer to an odd multiple of 1/2 than to a whole number.

    ``h`` is the width of a sample in units of ``x``.
    """
    return edge(np.float32(0.25) - np.abs(x - np.floor(x + np.float32(0.5))), h)


def _length(x: Field, y: Field) -> Field:
    length: Field = np.sqrt(x * x + y * y)
    return length


def _disc(u: Field, v: Field, h: Field) -> Surface:
    rho = _length(u, v)
    return Surface(rho - np.float32(1), wave(rho * np.float32(3.5)))


def _square(u: Field, v: Field, h: Field) -> Surface:
    distance = np.maximum(np.abs(u), np.abs(v)) - np.float32(0.85)
    return Surface(distance, wave(u * np.float32(4)) * wave(v * np.float32(4)))


def _triangle(u: Field, v: Field, h: Field) -> Surface:
    a = np.abs(u)
    slanted = a * np.float32(0.874) - v * np.float32(0.486) - np.float32(0.46)
    distance = np.maximum(slanted, v - np.float32(0.72))
    # Beyond a corner the nearest point is the corner: (0, -0.9465) above, (0.9267, 0.72) below.
    along = a * np.float32(0.486) + v * np.float32(0.874)
    distance = np.where(along < -0.8273, _length(a, v + np.float32(0.9465)), distance)
    beyond = (along > 1.0797) & (a > 0.9267)
    distance = np.where(beyond, _length(a - np.float32(0.9267), v - np.float32(0.72)), distance)
    return Surface(distance, wave(v * np.float32(4)))


def _ring(u: Field, v: Field, h: Field) -> Surface:
    rho = _length(u, v)
    distance = np.abs(rho - np.float32(0.76)) - np.float32(0.25)
    return Surface(distance, wave((u + v) * np.float32(2.6)))


def _plus(u: Field, v: Field, h: Field) -> Surface:
    a, b = np.abs(u), np.abs(v)
    distance = np.maximum(np.maximum(a, b) - np.float32(0.98), np.minimum(a, b) - np.float32(0.31))
    return Surface(
        distance, wave(u * np.float32(3.3) + np.float32(0.5)) * wave(v * np.float32(3.3))
    )


def _star(u: Field, v: Field, h: Field) -> Surface:
    """Five points, folded onto half of one arm; the two sides of an arm are two facets."""
    facet = np.sign(u)
    x, y = np.abs(u), -v
    for kx, ky in ((0.809017, -0.587785), (-0.809017, -0.587785)):
        cut = x * np.float32(kx) + y * np.float32(ky)
        facet = np.where(cut > 0, -facet, facet)
        cut = np.maximum(cut, np.float32(0)) * np.float32(2)
        x, y = x - cut * np.float32(kx), y - cut * np.float32(ky)
    facet = np.where(x < 0, -facet, facet)
    x, y = np.abs(x), y - np.float32(1.05)
    # Distance to the line from the tip (0, 0) to the notch between two arms, or to the tip.
    side = x * np.float32(0.862) + y * np.float32(0.507)
    below = x * np.float32(0.507) > y * np.float32(0.862)
    return Surface(np.where(below, side, _length(x, y)), facet)


def _stripes(u: Field, v: Field, h: Field) -> Surface:
    outer = np.maximum(np.abs(u), np.abs(v))
    corner = (np.abs(u) + np.abs(v)) * np.float32(0.7071) - np.float32(1.14)
    distance = np.maximum(outer - np.float32(0.95), corner)
    bold = bands(v * np.float32(1.3), h * np.float32(1.3))
    return Surface(distance, wave(u * np.float32(4.5)), bold)


def _checker(u: Field, v: Field, h: Field) -> Surface:
    distance = np.maximum(np.abs(u), np.abs(v)) - np.float32(0.9)
    across = bands(u * np.float32(0.833), h * np.float32(0.833))
    down = bands(v * np.float32(0.833), h * np.float32(0.833))
    bold = across + down - np.float32(2) * across * down
    return Surface(distance, wave((u - v) * np.float32(3)), bold)


def _crescent(u: Field, v: Field, h: Field) -> Surface:
    u = u - np.float32(0.2)
    w = u - np.float32(0.62)
    distance = np.maximum(_length(u, v) - np.float32(1), np.float32(0.8) - _length(w, v))
    # Between the tips (0.6, +-0.8) and beyond them, the nearest point is a tip.
    b = np.abs(v)
    open_side = u * np.float32(0.8) - b * np.float32(0.6) > np.float32(0.62) * np.maximum(
        np.float32(0.8) - b, np.float32(0)
    )
    distance = np.where(open_side, _length(u - np.float32(0.6), b - np.float32(0.8)), distance)
    return Surface(distance, wave(u * np.float32(3)) * wave(v * np.float32(2.5)))


def _dumbbell(u: Field, v: Field, h: Field) -> Surface:
    a = np.abs(u)
    w = a - np.float32(0.62)
    ball = _length(w, v) - np.float32(0.42)
    bar = np.maximum(w, np.abs(v) - np.float32(0.15))
    return Surface(np.minimum(ball, bar), wave(a * np.float32(4.5)))


SHAPES: tuple[Callable[[Field, Field, Field], Surface], ...] = (
    _disc, _square, _triangle, _ring, _plus, _star, _stripes, _checker, _crescent, _dumbbell,
)  # fmt: skip
"""One shape a class, in the order of :data:`pagoda.data.scenes.CLASSES`."""

PERIOD = np.array([0.29, 0.25, 0.25, 0.27, 0.3, 9.0, 0.22, 0.24, 0.33, 0.22])
"""Shortest period of each class's texture, units of the radius (facets have none)."""
