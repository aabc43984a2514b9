"""Sample sheets as PNG: pixels enlarged by whole factors where they can be, labelled, uncurated.

The first columns by latent index are shown, never chosen by how they look.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pagoda.results.experiment import Evaluation, Experiment
from pagoda.results.measured import generator_label

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
class Sheet:
    """A sheet that was drawn.

    Attributes:
        width: CSS pixels at which its type is readable.
        classes: rows shown.
        columns: images a row of each group.
    """

    width: int
    classes: int
    columns: int


def draw_resolutions(experiment: Experiment, path: Path) -> Sheet:
    """Main generators: the same latents at every resolution, one group a resolution."""
    groups = [
        Group(f"{r}×{r}, {generator_label(e.main).lower()}", e.samples[0])
        for r, e in experiment.evaluations.items()
    ]
    return draw(groups, experiment.classes, path)


def draw_sheets(evaluation: Evaluation, classes: tuple[str, ...], path: Path) -> Sheet:
    """Every sheet of one resolution side by side, the same latents."""
    groups = [
        Group(generator_label(name), evaluation.samples[i])
        for i, name in enumerate(evaluation.sheets)
    ]
    return draw(groups, classes, path)


def draw_neighbours(evaluation: Evaluation, classes: tuple[str, ...], path: Path) -> Sheet:
    """The first samples of the main generator, each left of its nearest training image."""
    nearest = evaluation.neighbours[0]
    samples = evaluation.samples[0][:, : nearest.shape[1]]
    groups = [
        Group(f"latent {j}", np.stack([samples[:, j], nearest[:, j]], axis=1))
        for j in range(nearest.shape[1])
    ]
    return draw(groups, classes, path)


def draw(groups: list[Group], classes: tuple[str, ...], path: Path) -> Sheet:
    """Draw groups side by side, a row a class, every image at the same displayed size.

    As many of the first columns of each group are shown as fit the width, as many of the first
    classes as fit the height.
    """
    cell = _cell_size(max(g.images.shape[-1] for g in groups))
    head, body = _font("DejaVuSans-Bold.ttf"), _font("DejaVuSans.ttf")
    names = classes[: min(_MAX_ROWS, *(len(g.images) for g in groups))]
    left = _MARGIN + max(int(body.getlength(name)) for name in names) + 10
    columns = _columns_that_fit(groups, cell, left)
    starts = [left]
    for group in groups:
        width = columns * (cell + _GAP) - _GAP
        starts.append(starts[-1] + max(width, int(head.getlength(group.title))) + _GROUP_GAP)
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
        _paste(canvas, group.images[: len(names), :columns], cell, (x, top))
    canvas.save(path, optimize=True)
    return Sheet(round(size[0] / _SCALE), len(names), columns)


def _paste(
    canvas: Image.Image, images: NDArray[np.uint8], cell: int, corner: tuple[int, int]
) -> None:
    for row, line in enumerate(images):
        for column, pixels in enumerate(line):
            place = (corner[0] + column * (cell + _GAP), corner[1] + row * (cell + _GAP))
            canvas.paste(_displayed(pixels, cell), place)


def _displayed(pixels: NDArray[np.uint8], cell: int) -> Image.Image:
    """(3, R, R) at ``cell`` pixels: nearest neighbour up, area average down."""
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    method = Image.Resampling.BOX if image.width > cell else Image.Resampling.NEAREST
    return image.resize((cell, cell), method)


def _cell_size(resolution: int) -> int:
    """A whole multiple of the largest resolution, as long as that is small enough."""
    return min(_MAX_CELL, resolution * -(-_MIN_CELL // resolution))


def _columns_that_fit(groups: list[Group], cell: int, left: int) -> int:
    room = _MAX_WIDTH - left - _MARGIN - (len(groups) - 1) * _GROUP_GAP
    fit = (room // len(groups) + _GAP) // (cell + _GAP)
    return max(1, min(fit, *(g.images.shape[1] for g in groups)))


def _font(name: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), _TYPE)
