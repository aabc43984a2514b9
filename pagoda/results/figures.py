"""Figures of a study, one a group of quantities: a point a seed, a line through the means."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from pagoda.results import style
from pagoda.results.intervals import t_interval
from pagoda.results.measured import generator_label
from pagoda.results.quantities import OWN, PARTS, STAGES, quantity
from pagoda.results.studies import StudyResults, StudyRow
from pagoda.results.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

_INKS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-", (0, (4.0, 1.5)), (0, (1.2, 1.2)), (0, (6.0, 1.5, 1.2, 1.5)),
)  # fmt: skip
_LOG_FROM = 8.0  # largest over smallest value of a positive metric
_PLAIN = FuncFormatter(lambda value, _: f"{value:.3g}")
_MAX_PANELS = 12
_NOT_DRAWN = frozenset({STAGES, PARTS})  # the study's own picture shows them as bars
_TITLE = 31  # characters of a panel's title at full size
_LONG = 34  # characters of an axis label that fit one line

Panel = tuple[str, str, str, int]  # metric, protocol, generator (empty: the arm's own), resolution
Curves = Mapping[str, Mapping[float, Sequence[float]]]  # by series: x -> a value a seed


def draw_study(study: StudyResults, group: str, path: Path) -> int | None:
    """Small multiples, a panel a metric, generator and resolution of one group of quantities.

    Args:
        study: with derived rows.
        group: of :data:`pagoda.results.quantities.GROUPS`.
        path: of the PNG.

    Returns:
        The figure's width in CSS pixels; None, and no file, if no panel has two arms.
    """
    drawn = [(p, curves_of(study, p)) for p in drawn_panels(study, group)]
    if not drawn:
        return None
    ticks = _ticks(study, [panel for panel, _ in drawn])
    with style.applied():
        size = (2.55, 2.15) if ticks is None else (2.55, 1.0 + 0.22 * len(ticks))
        room = 0.0 if ticks is None else 0.15 + 0.056 * max(map(len, ticks.values()))
        figure, axes = style.panels(len(drawn), 3, size, 0.48 if ticks is None else 0.12, room)
        for column, (ax, (panel, curves)) in enumerate(zip(axes, drawn, strict=True)):
            if ticks is None:
                _over_axis(ax, study, panel, curves)
            else:
                _by_arm(ax, panel, curves, ticks, named=column % 3 == 0)
        return style.save(figure, path)


def drawn_panels(study: StudyResults, group: str) -> list[Panel]:
    """The panels that have at least two arms, as many as fit a figure."""
    return [p for p in panels_of(study, group) if curves_of(study, p)][:_MAX_PANELS]


def panels_of(study: StudyResults, group: str) -> list[Panel]:
    """What of a group the card asks for, in its order; the teacher's own is no result of an arm."""
    first = {metric: i for i, metric in enumerate(study.card.metrics)}
    found = {panel_of(r) for r in _shown(study) if r.generator not in ("teacher", "real")}
    chosen = {p for p in found if p[0] in first and quantity(p[0]).group == group}
    return [] if group in _NOT_DRAWN else sorted(chosen, key=lambda p: (first[p[0]], p))


def curves_of(study: StudyResults, panel: Panel) -> dict[str, dict[float, list[float]]]:
    """Values of a panel by series and place on the axis; empty with fewer than two arms."""
    rows = [r for r in _shown(study) if panel_of(r) == panel]
    if len({r.arm for r in rows}) < 2:
        return {}
    curves: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        place = place_of(study, row)
        if place is not None:
            series = study.card.series.get(row.arm, "")
            curves[series][place].append(row.value * quantity(row.metric).scale)
    return {name: dict(sorted(points.items())) for name, points in curves.items()}


def place_of(study: StudyResults, row: StudyRow) -> float | None:
    """Where a row stands: on the axis, at its teacher's metric, or at its arm's number."""
    card = study.card
    if card.axis_metric:
        teachers = [r for r in study.rows if r.generator == "teacher"
                    and r.metric == card.axis_metric
                    and (r.metric != row.metric or r.protocol == row.protocol)]  # fmt: skip
        own = [r for r in teachers if r.arm == row.arm]
        values = [r.value for r in own or [r for r in teachers if r.axis == row.axis]]
        return math.fsum(values) / len(values) if values else None
    return row.axis if _numeric(study) else float(list(card.arms).index(row.arm))


def panel_of(row: StudyRow) -> Panel:
    """The panel, and the column, that a row belongs to."""
    generator = "" if row.generator in OWN else row.generator
    return row.metric, row.protocol, generator, row.resolution


def _shown(study: StudyResults) -> list[StudyRow]:
    """The rows; an arm that is a diffusion model and nothing else has that as its own generator."""
    if study.card.axis_metric:  # its teachers are places on the axis
        return list(study.rows)
    others = {r.arm for r in study.rows if r.generator not in ("teacher", "real", "none")}
    return [
        dataclasses.replace(r, generator="none")
        if r.generator == "teacher" and r.arm not in others else r
        for r in study.rows
    ]  # fmt: skip


def panel_title(panel: Panel) -> str:
    """Metric and size, and the generator if it is not the arm's own: ``FD ↓ 16×16``."""
    metric, _, generator, resolution = panel
    who = f" {generator_label(generator).lower()}," if generator else ""
    return f"{quantity(metric).label}{who} {resolution}×{resolution}"


def _numeric(study: StudyResults) -> bool:
    known = {r.arm: r.axis for r in study.rows}
    return bool(study.card.axis_label) and all(axis is not None for axis in known.values())


def _ticks(study: StudyResults, drawn: Sequence[Panel]) -> dict[float, str] | None:
    """Places and names of the arms that the panels have, or None for an axis of numbers."""
    if _numeric(study) or study.card.axis_metric:
        return None
    shown = {r.arm for r in _shown(study) if panel_of(r) in drawn}
    arms = study.card.arms
    return {float(i): label for i, (arm, label) in enumerate(arms.items()) if arm in shown}


def _over_axis(ax: Axes, study: StudyResults, panel: Panel, curves: Curves) -> None:
    card = study.card
    for i, (series, points) in enumerate(sorted(curves.items())):
        ink, marker = _INKS[i % len(_INKS)], _MARKERS[i % len(_MARKERS)]
        x = list(points)
        seeds = [(place, v) for place, values in points.items() for v in values]
        ax.plot(*zip(*seeds, strict=True), marker, color=ink, markersize=3.2, alpha=0.55,
                markeredgewidth=0)  # fmt: skip
        mean = [t_interval(values).mean for values in points.values()]
        dash = _DASHES[i % len(_DASHES)]
        ax.plot(x, mean, color=ink, linestyle=dash, linewidth=1.4, label=series or None)
    if card.axis_log and all(place > 0 for points in curves.values() for place in points):
        ax.set_xscale("log")
        _log_ticks(ax.xaxis, [place for points in curves.values() for place in points])
    else:
        whole = all(place == int(place) for points in curves.values() for place in points)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=whole))
    ax.xaxis.set_major_formatter(_PLAIN)
    label = f"teacher's {card.axis_metric}" if card.axis_metric else card.axis_label
    long = len(label) > _LONG
    ax.set_xlabel(textwrap.fill(label, _LONG + 6), fontsize=6.5 if long else 8, linespacing=0.95)
    _head(ax, panel)
    ax.set_ylabel(quantity(panel[0]).unit, fontsize=6.5, labelpad=1)
    _scale(ax, curves, vertical=True)
    if any(curves):
        ax.legend(loc="best", handlelength=2.4)


def _by_arm(
    ax: Axes, panel: Panel, curves: Curves, ticks: Mapping[float, str], *, named: bool
) -> None:
    at = {place: line for line, place in enumerate(ticks)}
    for i, points in enumerate(curves.values()):
        ink, marker = _INKS[i % len(_INKS)], _MARKERS[i % len(_MARKERS)]
        for place, values in points.items():
            y = at[place]
            ax.plot(values, [y] * len(values), marker, color=ink, markersize=3.6,
                    alpha=0.6, markeredgewidth=0)  # fmt: skip
            mean = t_interval(values).mean
            ax.plot([mean] * 2, [y - 0.28, y + 0.28], color=ink, linewidth=1.8)
    ax.set_ylim(len(ticks) - 0.5, -0.5)
    ax.set_yticks(range(len(ticks)), list(ticks.values()) if named else [""] * len(ticks))
    ax.tick_params(axis="y", length=0)
    _head(ax, panel)
    ax.set_xlabel(quantity(panel[0]).unit or panel[1])
    _scale(ax, curves, vertical=False)


def _head(ax: Axes, panel: Panel) -> None:
    """The title, smaller where it would run into the next panel."""
    title = panel_title(panel)
    size = 7.8 * min(1.0, _TITLE / len(title))
    ax.set_title(title, loc="left", fontweight="bold", fontsize=max(5.8, size))


def _scale(ax: Axes, curves: Curves, *, vertical: bool) -> None:
    values = [v for points in curves.values() for line in points.values() for v in line]
    axis = ax.yaxis if vertical else ax.xaxis
    if min(values) > 0 and max(values) > _LOG_FROM * min(values):
        (ax.set_yscale if vertical else ax.set_xscale)("log")
        _log_ticks(axis, values)
    else:
        axis.set_major_locator(MaxNLocator(4))
    axis.set_major_formatter(_PLAIN)


def _log_ticks(axis: Axis, values: Sequence[float]) -> None:
    near = max(values) < 100 * min(values)  # powers of ten alone might leave one tick, or none
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if near else (1.0,), numticks=6))
    axis.set_minor_locator(NullLocator())
