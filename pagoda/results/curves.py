"""Learning curves of a stage and Fréchet distances of an experiment, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from pagoda.results import style
from pagoda.results.experiment import History
from pagoda.results.labels import generator_label, generator_order
from pagoda.results.numbers import number
from pagoda.results.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from pagoda.rows import Row

_SMOOTH_FROM = 40  # rows; a shorter curve is drawn as it is
_SMOOTH_FRACTION = 0.05  # of the rows, averaged by the thick line
_LOG_FROM = 4.0  # largest over smallest value, from which a positive loss gets a logarithmic axis
_PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}")


class _Line(NamedTuple):
    key: str
    label: str
    color: str
    dash: str | tuple[int, tuple[float, ...]] = "-"


class _Panel(NamedTuple):
    title: str
    lines: tuple[_Line, ...]
    log: bool = False
    exact: bool = False  # a schedule: smoothing would bend its corners


_DASHED, _DOTTED = (0, (4.0, 1.5)), (0, (1.2, 1.2))
_PANELS = (
    _Panel("Loss", (
        _Line("loss", "total", BLACK),
        _Line("loss_rec", "reconstruction", BLUE, _DASHED),
        _Line("loss_dstl", "noise to data", VERMILION, _DASHED),
        _Line("loss_features", "in features", GREEN, _DOTTED),
    ), log=True),
    _Panel("Adversarial losses", (
        _Line("loss_adv", "generator", ORANGE),
        _Line("loss_d", "discriminator", PURPLE, _DASHED),
    )),
    _Panel("Discriminator logits", (
        _Line("logit_real", "real", BLUE),
        _Line("logit_fake", "generated", VERMILION, _DASHED),
    )),
    _Panel("Accuracy", (
        _Line("accuracy", "training batch", GREEN),
        _Line("test_accuracy", "held out", BLACK, _DASHED),
    )),
    _Panel("Gradient norm", (_Line("grad_norm", "generator or denoiser", GREEN),), log=True),
    _Panel("Adversarial weight λ", (_Line("lambda", "λ", ORANGE),), exact=True),
    _Panel("Learning rate", (_Line("lr", "learning rate", SKY),), exact=True),
)  # fmt: skip
_COLORS = {
    "teacher": BLACK, "student": BLUE, "grown": BLUE, "real": GREEN,
    "upsampled_base": VERMILION, "ungrown": ORANGE,
}  # fmt: skip
_MARKERS = {
    "teacher": "D", "student": "o", "grown": "o", "real": "s",
    "upsampled_base": "^", "ungrown": "v", "untrained_teacher_weights": "X", "untrained": "X",
}  # fmt: skip


def draw_history(history: History, path: Path) -> int | None:
    """Small multiples of a stage's curves over images seen.

    Returns:
        The figure's width in CSS pixels; None, and no file, for a stage without two points of
        any curve.
    """
    known = {line.key for panel in _PANELS for line in panel.lines} | {"images_per_second"}
    others = [_Panel(key.replace("_", " ").capitalize(), (_Line(key, key, PURPLE),))
              for key in history.names() if key not in known]  # fmt: skip
    drawn = [
        (panel, lines)
        for panel in (*_PANELS, *others)
        if (lines := [line for line in panel.lines if len(history.curve(line.key)[0]) > 1])
    ]
    if not drawn:
        return None
    with style.applied():
        figure, axes = style.panels(len(drawn), 3, (2.5, 1.95))
        for ax, (panel, lines) in zip(axes, drawn, strict=True):
            for line in lines:
                _plot(ax, *history.curve(line.key), line, smooth=not panel.exact)
            values = np.concatenate([history.curve(line.key)[1] for line in lines])
            _finish(ax, panel, values, legend=len(lines) > 1)
            ax.set_xlim(0, history.images)
        return style.save(figure, path)


def draw_distances(rows: Sequence[Row], path: Path) -> int:
    """Fréchet distances of one protocol, a panel a resolution, on one logarithmic axis.

    Returns:
        The figure's width in CSS pixels.
    """
    names = sorted({r.generator for r in rows}, key=generator_order)
    resolutions = sorted({r.size for r in rows})
    positive = [r.number for r in rows if r.number > 0]
    limits = (min(positive) / 2, max(positive) * 12) if positive else (0.1, 10.0)
    with style.applied():
        size = (2.05, 0.72 + 0.19 * len(names))
        figure, axes = style.panels(len(resolutions), 3, size, left=0.12, label_room=1.75)
        for column, (ax, res) in enumerate(zip(axes, resolutions, strict=True)):
            _dots(ax, [r for r in rows if r.resolution == res], names)
            ax.set_title(f"{res}×{res}", loc="left", fontweight="bold")
            ax.set_xscale("log")
            ax.set_xlim(limits)
            ax.xaxis.set_major_locator(LogLocator(numticks=5))
            ax.xaxis.set_major_formatter(_PLAIN)
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_ylim(len(names) - 0.4, -0.6)
            labels = [generator_label(n) if column % 3 == 0 else "" for n in names]
            ax.set_yticks(range(len(names)), labels)
            ax.tick_params(axis="y", length=0)
            ax.set_xlabel("Fréchet distance, lower is better")
        return style.save(figure, path)


def _plot(
    ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], line: _Line, *, smooth: bool
) -> None:
    if not smooth or len(x) < _SMOOTH_FROM:
        ax.plot(x, y, color=line.color, linestyle=line.dash, linewidth=1.2, label=line.label)
        return
    ax.plot(x, y, color=line.color, alpha=0.25, linewidth=0.6)
    window = max(3, round(len(y) * _SMOOTH_FRACTION))
    mean = pd.Series(y).rolling(window, min_periods=1, center=True).mean()
    ax.plot(x, mean, color=line.color, linestyle=line.dash, linewidth=1.4, label=line.label)


def _finish(ax: Axes, panel: _Panel, values: NDArray[np.float64], *, legend: bool) -> None:
    ax.set_title(panel.title, loc="left", fontweight="bold")
    ax.set_xlabel("images seen")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    if panel.log and 0 < _LOG_FROM * values.min() < values.max():
        ax.set_yscale("log")
        if values.max() < 100 * values.min():
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_minor_locator(NullLocator())
    elif np.ptp(values) <= 1e-6 * np.abs(values).max():
        ax.set_ylim(*sorted((0.0, 2 * float(values[0]))))
    ax.yaxis.set_major_formatter(_PLAIN)
    if legend:
        ax.legend(loc="best", handlelength=2.2)


def _dots(ax: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    for row in rows:
        y = names.index(row.generator)
        color = _COLORS.get(row.generator, "#777777")
        marker = _MARKERS.get(row.generator, "X")
        ax.plot([row.number], [y], marker, color=color, markersize=5, markeredgewidth=0)
        ax.annotate(
            number(row.number), (row.number, y), (5, 0), textcoords="offset points",
            va="center", fontsize=6.5,
        )  # fmt: skip
