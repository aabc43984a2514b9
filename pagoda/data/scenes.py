"""What is in each picture of the embedded set: parameters and colours.

A scene is a pure function of (seed, split, index). Its random numbers come from a counter-based
generator (SplitMix64, Steele et al. 2014), so a scene does not depend on which others are asked
for with it, nor on the resolution it is drawn at.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[Any]  # float64

CLASSES: tuple[str, ...] = (
    "disc", "square", "triangle", "ring", "plus", "star", "stripes", "checker", "crescent",
    "dumbbell",
)  # fmt: skip
"""Class names; the label of image ``index`` is ``index % 10``."""

LUMA = np.array([0.299, 0.587, 0.114])
"""Rec. 601 weights of red, green and blue."""

# Largest tilt a class, degrees: none may turn into another class (a square into a rhombus).
TILT = np.array([30.0, 22, 25, 30, 22, 34, 30, 22, 35, 40])
# Radius a class, as a fraction of the image width: bold patterns need room to be read at 8x8.
RADIUS = np.array([(0.22, 0.36), (0.23, 0.38), (0.25, 0.4), (0.25, 0.38), (0.25, 0.4),
                    (0.27, 0.4), (0.3, 0.4), (0.3, 0.4), (0.26, 0.38), (0.29, 0.4)])  # fmt: skip
_LIGHT_FROM, _RAMP_FROM = 0.625, 0.25  # turns: without variety light comes from the upper left
ROUND = (CLASSES.index("disc"), CLASSES.index("ring"))


@dataclass(frozen=True)
class Scenes:
    """Parameters of n scenes. Lengths are fractions of the image width, origin at its centre, x to
    the right, y down, angles in radians clockwise, colours in 0..1.

    ``mirror`` is +1 or -1 and multiplies x before anything is drawn, which makes the distribution
    of images symmetric under horizontal mirroring; all other fields describe the unmirrored scene.
    """

    label: NDArray[np.int64]
    mirror: Floats
    centre: Floats  # (n, 2)
    radius: Floats
    tilt: Floats
    light: Floats  # (n, 2), unit vector towards the light
    shading: Floats  # contrast of the directional light
    hue: Floats  # of the object, 0..1
    ground_hue: Floats
    is_light: NDArray[np.bool_]  # light object on dark ground, or the reverse
    colour: Floats  # (n, 3), object
    accent: Floats  # (n, 3), second colour of bold patterns
    ground: Floats  # (n, 3), middle of the background gradient
    ground_slope: Floats  # (n, 3), from the middle to either end
    gradient: Floats  # (n, 4): x, y, radial, fine weave

    def __getitem__(self, rows: object) -> Scenes:
        return Scenes(**{name: value[rows] for name, value in vars(self).items()})


def scenes(indices: ArrayLike, *, seed: int, split: str, variety: float = 1.0) -> Scenes:
    """The scenes of ``indices`` (n,) in ``split`` under ``seed``.

    ``variety`` in 0..1 is the fraction of its range that each random number but hue and mirroring
    spans: at 0 every image of a class is as large, upright, central and lit as the next one. Up to
    0.5 light objects lie on dark grounds; at 1 half of them do.
    """
    index = np.atleast_1d(np.asarray(indices, dtype=np.int64))
    u = uniforms(index, columns=17, seed=seed, split=split)
    calm = _around(0.5, u, variety)
    label = index % len(CLASSES)
    low, high = RADIUS[label].T
    radius = low + (high - low) * _around(1.0, u[:, 0], variety)
    room = np.minimum(0.1, 0.48 - radius)
    light = 2 * np.pi * _around(_LIGHT_FROM, u[:, 4], variety)
    return Scenes(
        label=label,
        mirror=np.where(u[:, 16] < 0.5, -1.0, 1.0),
        centre=(2 * calm[:, 1:3] - 1) * room[:, None],
        radius=radius,
        tilt=np.radians(TILT[label]) * (2 * calm[:, 3] - 1),
        light=np.stack([np.cos(light), np.sin(light)], axis=1),
        shading=0.16 + 0.14 * calm[:, 15],
        gradient=_gradients(u[:, 13:15], variety),
        **_colours(u[:, 5:13], variety),
    )


def uniforms(index: NDArray[np.int64], *, columns: int, seed: int, split: str) -> Floats:
    """Uniform numbers in [0, 1), (n, columns); row i depends on (seed, split, index[i]) only."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed], np.uint64) * golden + np.uint64(zlib.crc32(split.encode())))
        row = _mix(key + index.astype(np.uint64) * golden)
        steps = np.arange(1, columns + 1, dtype=np.uint64) * golden
        bits = _mix(row[:, None] + steps)
    return (bits >> np.uint64(11)) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _colours(u: Floats, variety: float) -> dict[str, NDArray[Any]]:
    """Object and background colours, from uniforms (n, 8).

    Contrast is guaranteed twice: luma differs by at least 0.3, hue by at least 65 degrees.
    """
    is_light = u[:, 0] < 1 - max(0.0, variety - 0.5)
    hue, ground_hue = u[:, 1], (u[:, 1] + 0.5 + 0.64 * (_around(0.5, u[:, 2], variety) - 0.5)) % 1
    u = _around(0.5, u, variety)
    luma = np.where(is_light, 0.58 + 0.2 * u[:, 3], 0.22 + 0.14 * u[:, 3])
    ground_luma = np.where(is_light, 0.14 + 0.14 * u[:, 4], 0.68 + 0.16 * u[:, 4])
    vivid, ground_vivid = 0.65 + 0.35 * u[:, 5], 0.35 + 0.45 * u[:, 6]
    swing, turn = np.where(is_light, 0.04, 0.06) + 0.04 * u[:, 7], 0.03
    ends = [_rgb(ground_hue + sign * turn, ground_vivid, ground_luma + sign * swing)
            for sign in (-1, 1)]  # fmt: skip
    return {
        "hue": hue,
        "ground_hue": ground_hue,
        "is_light": is_light,
        "colour": _rgb(hue, vivid, luma),
        "accent": _rgb(hue + 0.08, vivid, luma + 0.8 * (ground_luma - luma)),
        "ground": (ends[0] + ends[1]) / 2,
        "ground_slope": (ends[1] - ends[0]) / 2,
    }


def _gradients(u: Floats, variety: float) -> Floats:
    """Weights (n, 4) of the background's ramps along x and y, its glow and its fine weave."""
    angle = 2 * np.pi * _around(_RAMP_FROM, u[:, 0], variety)
    kind = np.where(u[:, 1] < variety, (3 * u[:, 1] / (variety or 1)).astype(int), 0)
    ramp = np.array([0.9, 0.35, 0.7])[kind]
    glow = np.where(kind == 1, np.where(u[:, 0] < 0.5, -0.65, 0.65), 0.0)
    weave = np.where(kind == 2, 0.3, 0.0)
    return np.stack([ramp * np.cos(angle), ramp * np.sin(angle), glow, weave], axis=1)


def _around(middle: float, u: Floats, variety: float) -> Floats:
    """Uniform numbers drawn towards ``middle``; untouched at variety 1."""
    return (1 - variety) * middle + variety * u


def _rgb(hue: Floats, saturation: Floats, luma: Floats) -> Floats:
    """RGB (n, 3) of a hue, darkened or mixed with white until it has the given luma."""
    k = (np.array([5.0, 3.0, 1.0]) + hue[:, None] * 6) % 6
    rgb = 1 - saturation[:, None] * np.clip(np.minimum(k, 4 - k), 0, 1)
    have, want = (rgb * LUMA).sum(1)[:, None], luma[:, None]
    darker = rgb * (want / have)
    lighter = rgb + (1 - rgb) * ((want - have) / np.maximum(1 - have, 1e-9))
    mixed: Floats = np.where(want < have, darker, lighter)
    return mixed
