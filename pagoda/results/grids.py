"""Grids of samples as PNG: enlarged by whole factors where they can be, labelled, uncurated.

The first columns by latent index are shown, never chosen by how they look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_MAX_ROWS = 16  # classes
_MAX_WIDTH = 1800  # pixels
_MIN_CELL, _MAX_CELL = 56, 128  # displayed size of an image, pixels
_GAP, _GROUP_GAP, _MARGIN = 3, 26, 14
_TYPE = 22
_SCALE = 1.6  # pixels of the file a CSS pixel
_INK = (34, 34, 34)


@dataclass(frozen=True)
class Group:
    """Columns that belong together: a heading over images (classes, columns, 3, R, R) uint8."""

    title: str
    images: NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """A grid that was drawn."""

    width: int  # CSS pixels at which its type is readable
    classes: int  # rows
    columns: int  # images a row of each group


def draw(groups: Sequence[Group], classes: Sequence[str], path: Path) -> Shown:
    """Draw groups side by side, a row a class, every image at the same displayed size.

    As many of the first columns of each group are shown as fit the width, as many of the first
    classes as fit the height.
    """
    largest = max(g.images.shape[-1] for g in groups)
    cell = min(_MAX_CELL, largest * -(-_MIN_CELL // largest))  # a whole multiple, if small enough
    head, body = _font("DejaVuSans-Bold.ttf"), _font("DejaVuSans.ttf")
    names = classes[: min(_MAX_ROWS, *(len(g.images) for g in groups))]
    left = _MARGIN + max(int(body.getlength(name)) for name in names) + 10
    room = _MAX_WIDTH - left - _MARGIN - (len(groups) - 1) * _GROUP_GAP
    fit = (room // len(groups) + _GAP) // (cell + _GAP)
    columns = max(1, min(fit, *(g.images.shape[1] for g in groups)))
    starts = [left]
    for group in groups:
        width = max(columns * (cell + _GAP) - _GAP, int(head.getlength(group.title)))
        starts.append(starts[-1] + width + _GROUP_GAP)
    top = _MARGIN + _TYPE + 10
    size = (
        starts[-1] - _GROUP_GAP + _MARGIN,
        top + len(names) * (cell + _GAP) - _GAP + _MARGIN,
    )
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    for row, name in enumerate(names):
        y = top + row * (cell + _GAP) + cell // 2
        pen.text((left - 10, y), name, _INK, body, anchor="rm")
    for group, x in zip(groups, starts, strict=False):
        pen.text((x, _MARGIN), group.title, _INK, head, anchor="lt")
        for row, line in enumerate(group.images[: len(names), :columns]):
            for column, pixels in enumerate(line):
                place = (x + column * (cell + _GAP), top + row * (cell + _GAP))
                canvas.paste(_displayed(pixels, cell), place)
    canvas.save(path, optimize=True)
    return Shown(round(size[0] / _SCALE), len(names), columns)


def _displayed(pixels: NDArray[np.uint8], cell: int) -> Image.Image:
    """(3, R, R) at ``cell`` pixels: nearest neighbour up, area average down."""
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    method = Image.Resampling.BOX if image.width > cell else Image.Resampling.NEAREST
    return image.resize((cell, cell), method)


def _font(name: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), _TYPE)
