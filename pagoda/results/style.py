"""How figures look: Okabe-Ito colours, print-sized type, no pyplot (its import is slow)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Okabe & Ito 2008, "Color Universal Design", without the yellow that print loses.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000",
)  # fmt: skip
INK, FAINT = "#222222", "#d9d9d9"
_DPI = 180
_RIGHT, _BOTTOM, _TOP = 0.14, 0.42, 0.26  # inches around a panel

_RC: dict[Any, Any] = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "axes.edgecolor": "#666666",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@contextmanager
def applied() -> Iterator[None]:
    """The style, for as long as a figure is drawn and saved."""
    with matplotlib.rc_context(_RC):
        yield


def panels(
    count: int,
    columns: int,
    size: tuple[float, float],
    left: float = 0.48,
    label_room: float = 0.0,
    heights: Sequence[float] = (),
) -> tuple[Figure, list[Axes]]:
    """A grid of ``count`` axes, ``columns`` a row, laid out in inches.

    A fixed layout is four times faster than one fitted to the text.

    Args:
        size: width and height of a panel with its title and labels.
        left: part of a panel's width, left of its axes.
        label_room: extra width at the left of the figure, for long tick labels.
        heights: of the panels of each row, in place of that of ``size``.
    """
    columns = min(count, columns)
    tall = list(heights) or [size[1]] * -(-count // columns)
    width, height = columns * size[0] + label_room, sum(tall)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = []
    for i in range(count):
        x = label_room + (i % columns) * size[0] + left
        y = height - sum(tall[: i // columns + 1]) + _BOTTOM
        inner = (size[0] - left - _RIGHT, tall[i // columns] - _BOTTOM - _TOP)
        box = (x / width, y / height, inner[0] / width, inner[1] / height)
        axes.append(figure.add_axes(box))
    return figure, axes


def save(figure: Figure, path: Path) -> int:
    """Write a PNG of at most 256 colours without dates or versions: equal figures, equal files.

    Returns:
        Its width in CSS pixels at which 1 pt of type is 1.33 pixels.
    """
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    return round(figure.get_size_inches()[0] * 96)
