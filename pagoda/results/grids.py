"""Grids of samples as PNG: enlarged by whole factors where they can be, labelled, uncurated.

The first columns by latent index are shown, never chosen by how they look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pagoda.errors import PagodaError

_MAX_ROWS = 16  # classes
_MAX_WIDTH = 1800  # pixels
_LINE = 16  # images a line of a grid, at most
_MAX_PIXELS = 100_000_000  # of a grid
_NAME = 24  # letters of a class's name on a grid
_MIN_CELL, _MAX_CELL = 56, 128  # displayed size of an image, pixels
_GAP, _GROUP_GAP, _MARGIN = 3, 26, 14
_TYPE = 22
_SCALE = 1.6  # pixels of the file a CSS pixel
_INK, _GREY = (34, 34, 34), (122, 122, 122)
_PAPER, _CLEAR = (255, 255, 255), (255, 255, 255, 0)


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
    cell = min(_MAX_CELL, _whole_cell(largest))
    names = classes[: min(_MAX_ROWS, *(len(g.images) for g in groups))]
    room = _MAX_WIDTH - _left(names) - _MARGIN - (len(groups) - 1) * _GROUP_GAP
    fit = (room // len(groups) + _GAP) // (cell + _GAP)
    columns = max(1, min(fit, *(g.images.shape[1] for g in groups)))
    canvas = _painted(groups, names, columns, cell, clear=True)
    canvas.save(path, optimize=True)
    return Shown(round(canvas.width / _SCALE), len(names), columns)


def beside(groups: Sequence[Group], path: Path) -> Shown:
    """Draw every image of groups (rows, columns, 3, R, R) side by side, as large as fits.

    Small ones are enlarged by a whole factor, large ones made smaller.
    """
    columns = groups[0].images.shape[1]
    fit = (_MAX_WIDTH // len(groups) - _GROUP_GAP) // columns - _GAP
    cell = max(1, min(_MAX_CELL, _whole_cell(groups[0].images.shape[-1]), fit))
    rows = len(groups[0].images)
    canvas = _painted(groups, [""] * rows, columns, cell, clear=True)
    canvas.save(path, optimize=True)
    return Shown(round(canvas.width / _SCALE), rows, columns)


def tiles(sides: Sequence[NDArray[np.uint8]], path: Path) -> None:
    """Blocks of images (rows, columns, 3, R, R) beside each other, pixel for pixel, without text.

    Between images it is transparent; images above 128 pixels a side are made smaller.
    """
    side = sides[0].shape[-1]
    cell = side * max(1, 64 // side) if side <= _MAX_CELL else _MAX_CELL
    gap, group = cell // 16 + 1, cell // 3
    widths = [images.shape[1] * (cell + gap) - gap for images in sides]
    size = (sum(widths) + group * (len(sides) - 1), len(sides[0]) * (cell + gap) - gap)
    canvas, x = Image.new("RGBA", size), 0
    for images, width in zip(sides, widths, strict=True):
        for row, line in enumerate(images):
            for column, pixels in enumerate(line):
                place = (x + column * (cell + gap), row * (cell + gap))
                canvas.paste(_displayed(pixels, cell), place)
        x += width + group
    canvas.save(path, optimize=True)


def class_grid(images: NDArray[np.uint8], classes: Sequence[str], title: str) -> Image.Image:
    """All images (classes, n, 3, R, R), each class in lines of its own.

    Small ones are enlarged by a whole factor, and none is made smaller.

    Raises:
        PagodaError: as :func:`grid_columns`.
    """
    n, side = images.shape[1], images.shape[-1]
    columns = grid_columns(len(images), n, side)
    lines = -(-n // columns)
    filled = np.full((len(images), lines * columns, *images.shape[2:]), 255, np.uint8)
    filled[:, :n] = images
    names = [text for name in classes for text in (name[:_NAME], *[""] * (lines - 1))]
    group = Group(title, filled.reshape(-1, columns, *images.shape[2:]))
    return _painted([group], names, columns, _whole_cell(side))


def grid_columns(classes: int, n: int, side: int) -> int:
    """Images a line of a :func:`class_grid` of ``n`` images a class.

    Raises:
        PagodaError: it would have more than 100 million pixels.
    """
    cell = _whole_cell(side) + _GAP
    columns = max(1, min(n, _LINE, _MAX_WIDTH // cell))
    if classes * -(-n // columns) * columns * cell**2 > _MAX_PIXELS:
        raise PagodaError(
            f"{classes * n} images of {side}x{side} are too many for one picture; give fewer "
            "classes or seeds, or a folder or an .npz file instead of a .png"
        )
    return columns


def _whole_cell(side: int) -> int:
    """The displayed size of images that are enlarged by a whole factor."""
    return side * -(-_MIN_CELL // side)


def _left(names: Sequence[str]) -> int:
    """Pixels to the left of the images."""
    body = _font("DejaVuSans.ttf")
    return _MARGIN + max(int(body.getlength(name)) for name in names) + 10


def _painted(
    groups: Sequence[Group], names: Sequence[str], columns: int, cell: int, *, clear: bool = False
) -> Image.Image:
    """The first ``columns`` of every group, ``cell`` pixels a side, with a row a name.

    ``clear``: transparent between images, with letters that are read on white and on black.
    """
    head, body = _font("DejaVuSans-Bold.ttf"), _font("DejaVuSans.ttf")
    left = _left(names)
    starts = [left]
    for group in groups:
        width = max(columns * (cell + _GAP) - _GAP, int(head.getlength(group.title)))
        starts.append(starts[-1] + width + _GROUP_GAP)
    top = _MARGIN + _TYPE + 10
    size = (
        starts[-1] - _GROUP_GAP + _MARGIN,
        top + len(names) * (cell + _GAP) - _GAP + _MARGIN,
    )
    canvas = Image.new("RGBA", size, _CLEAR) if clear else Image.new("RGB", size, _PAPER)
    ink = _GREY if clear else _INK
    pen = ImageDraw.Draw(canvas)
    for row, name in enumerate(names):
        y = top + row * (cell + _GAP) + cell // 2
        pen.text((left - 10, y), name, ink, body, anchor="rm")
    for group, x in zip(groups, starts, strict=False):
        pen.text((x, _MARGIN), group.title, ink, head, anchor="lt")
        for row, line in enumerate(group.images[: len(names), :columns]):
            for column, pixels in enumerate(line):
                place = (x + column * (cell + _GAP), top + row * (cell + _GAP))
                canvas.paste(_displayed(pixels, cell), place)
    return canvas


def _displayed(pixels: NDArray[np.uint8], cell: int) -> Image.Image:
    """(3, R, R) at ``cell`` pixels: nearest neighbour up, area average down."""
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    method = Image.Resampling.BOX if image.width > cell else Image.Resampling.NEAREST
    return image.resize((cell, cell), method)


def _font(name: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_fonts() / name, _TYPE)


@cache
def _fonts() -> Path:
    """Matplotlib's letters, found without importing it, which a single picture would wait for."""
    package = find_spec("matplotlib")
    if package and package.origin:
        folder = Path(package.origin).with_name("mpl-data") / "fonts" / "ttf"
        if folder.is_dir():
            return folder
    import matplotlib  # a distribution that keeps its data elsewhere

    return Path(matplotlib.get_data_path(), "fonts", "ttf")
