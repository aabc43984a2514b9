"""Figures of a study: small multiples by group of quantities, the same latents, costs by part."""

from __future__ import annotations

import dataclasses
import itertools
import math
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from pagoda.results import style
from pagoda.results.blocks import Figure
from pagoda.results.labels import (
    OWN,
    PARTS,
    PATHS,
    REAL,
    RESTORED,
    STAGES,
    TRANSFERRED,
    generator_label,
    generator_within,
    in_a_sentence,
    item_order,
    quantity,
)
from pagoda.results.numbers import listed, t_interval
from pagoda.results.studies import StudyCard, StudyResults
from pagoda.rows import Row, grouped

_INKS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY,
         style.BLACK)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Any, ...] = ("-", (0, (4.0, 1.5)), (0, (1.2, 1.2)), (0, (6.0, 1.5, 1.2, 1.5)))
_BARS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILION, "#8c8c8c")
_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "||||")  # in black and white
_LOG_FROM = 8.0  # largest over smallest value of a positive metric
_PLAIN = FuncFormatter(
    lambda value, _: f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
)
_MAX_PANELS = 12
_NOT_DRAWN = frozenset({STAGES, PARTS, RESTORED, TRANSFERRED, PATHS})  # others have more to say
_TITLE = 31  # characters of a panel's title at full size
_SMALL, _LARGE = 5.8, 7.8  # points of a title; one that no size fits has two lines
_LONG = 34  # characters of an axis label that fit one line
_LABEL = 0.056  # inches of a character of a variant's label beside an axis
_COLUMNS = 10  # latents of a grid
_CELL, _GAP = 0.55, 0.24  # inches of a picture in a grid, and between two rows

Panel = tuple[str, str, str, int]  # metric, protocol, generator (empty: the variant's), resolution
Curves = Mapping[str, Mapping[float, Sequence[float]]]  # by series: x -> a value a seed


def draw_study(study: StudyResults, group: str, path: Path) -> tuple[int, int] | None:
    """Small multiples, a panel a metric, generator and resolution of one group of quantities.

    Args:
        study: with derived rows.
        group: of :data:`pagoda.results.labels.GROUPS`.
        path: of the PNG.

    Returns:
        The figure's width in CSS pixels, and how many panels are left out because they have one
        variant or do not fit; None, and no file, if no panel has two variants.
    """
    known = panels_of(study, group)
    curves = {panel: curves_of(study, rows) for panel, rows in known.items()}
    drawn = [panel for panel in known if curves[panel]][:_MAX_PANELS]
    if not drawn:
        return None
    by_name = _by_names(study)
    lines: list[dict[float, str]] = []  # names of the variants that a row of panels has values of
    for start in range(0, len(drawn) if by_name else 0, 3):
        variants = enumerate(study.card.variants.items())
        shown = {r.variant for panel in drawn[start : start + 3] for r in known[panel]}
        lines.append({float(i): label for i, (v, label) in variants if v in shown})
    heights = [1.0 + 0.22 * len(ticks) for ticks in lines]
    left = 0.12 if by_name else 0.48
    room = 0.15 + 0.056 * max(len(n) for ticks in lines for n in ticks.values()) if lines else 0.0
    with style.applied():
        figure, axes = style.panels(len(drawn), 3, (2.55, 2.15), left, room, heights)
        for column, (ax, panel) in enumerate(zip(axes, drawn, strict=True)):
            metric, protocol, generator, resolution = panel
            who = f" {generator_within(generator)}," if generator else ""
            title = f"{quantity(metric).label}{who} {resolution}×{resolution}"
            several = len({p[1] for p in drawn if p[0] == metric}) > 1  # feature networks, say
            below = by_name and not quantity(metric).unit
            if several and not below:
                title += f", {protocol}"
            font = max(_SMALL, _LARGE * min(1.0, _TITLE / len(title)))
            title = textwrap.fill(title, int(_TITLE * _LARGE / _SMALL))
            ax.set_title(title, loc="left", fontweight="bold", fontsize=font)
            if by_name:
                _by_variant(ax, panel, curves[panel], lines[column // 3], named=column % 3 == 0)
            else:
                _over_axis(ax, study.card, panel, curves[panel])
        return style.save(figure, path), len(known) - len(drawn)


def panels_of(study: StudyResults, group: str) -> dict[Panel, list[Row]]:
    """What of a group the card asks for, in its order; no panel of teachers or real images.

    Over a numeric axis with one curve, a teacher that has a value at several places has a curve
    beside it.
    """
    if group in _NOT_DRAWN:
        return {}
    card, rows = study.card, list(study.rows)
    if not card.axis_metric:  # a variant that is a diffusion model and nothing else has it as own
        others = {r.variant for r in rows if r.generator not in {"teacher", "none", *REAL}}
        rows = [
            dataclasses.replace(r, generator="none")
            if r.generator == "teacher" and r.variant not in others else r
            for r in rows
        ]  # fmt: skip
    first = {metric: i for i, metric in enumerate(card.metrics) if quantity(metric).group == group}
    shown = (r for r in rows if r.metric in first and r.generator not in REAL)
    own = {*OWN, "teacher"}
    found = grouped(shown, lambda r: (
        r.metric, r.protocol, "" if r.generator in own else r.generator, r.size))  # fmt: skip
    curve = _numeric(study) and not card.axis_metric and len({*card.series.values()}) < 2
    found = {
        panel: [r for r in rows if r.generator != "teacher" or (curve and _along(rows))]
        for panel, rows in found.items()
        if any(r.generator != "teacher" for r in rows)
    }
    return dict(sorted(found.items(), key=lambda entry: (first[entry[0][0]], entry[0])))


def _along(rows: Sequence[Row]) -> bool:
    """Whether the teacher and what learns from it have values at more than one place each."""
    places = grouped(rows, lambda r: r.generator == "teacher")
    return all(len({r.axis for r in places.get(which, [])}) > 1 for which in (True, False))


def curves_of(study: StudyResults, rows: Sequence[Row]) -> Curves:
    """Values of a panel by series and place on the axis; empty with fewer than two variants, and
    where they have an axis of names and no two differ.
    """
    values = {v: tuple(r.number for r in own) for v, own in grouped(rows, _variant).items()}
    if len(values) < 2 or (_by_names(study) and len({*values.values()}) < 2):
        return {}
    curves: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    beside = any(row.generator == "teacher" for row in rows)
    for row in rows:
        if (place := _place(study, row)) is not None:
            series = study.card.series.get(row.variant, "")
            series = generator_label(row.generator) if beside else series
            curves[series][place].append(row.number * quantity(row.metric).scale)
    return {name: dict(sorted(points.items())) for name, points in curves.items()}


def _variant(row: Row) -> str:
    return row.variant


def _place(study: StudyResults, row: Row) -> float | None:
    """Where a row stands: on the axis, at its teacher's metric, or at its variant's number."""
    card = study.card
    if not card.axis_metric:
        return row.axis if _numeric(study) else float(list(card.variants).index(row.variant))
    teachers = study.teachers_of(row)
    own = [r for r in teachers if r.variant == row.variant]
    values = [r.number for r in own or [r for r in teachers if r.axis == row.axis]]
    return math.fsum(values) / len(values) if values else None


def _by_names(study: StudyResults) -> bool:
    return not study.card.axis_metric and not _numeric(study)


def _numeric(study: StudyResults) -> bool:
    known = {r.variant: r.axis for r in study.rows}
    return bool(study.card.axis_label) and all(axis is not None for axis in known.values())


def _over_axis(ax: Axes, card: StudyCard, panel: Panel, curves: Curves) -> None:
    for i, (series, points) in enumerate(sorted(curves.items())):
        ink, marker = _INKS[i % len(_INKS)], _MARKERS[i % len(_MARKERS)]
        seeds = [(place, v) for place, values in points.items() for v in values]
        ax.plot(*zip(*seeds, strict=True), marker, color=ink, markersize=3.2, alpha=0.55,
                markeredgewidth=0)  # fmt: skip
        mean = [t_interval(values).mean for values in points.values()]
        ax.plot(list(points), mean, color=ink, linestyle=_DASHES[i % len(_DASHES)], linewidth=1.4,
                label=series or None)  # fmt: skip
    places = [place for points in curves.values() for place in points]
    if card.axis_log and min(places) > 0:
        ax.set_xscale("log")
        _log_ticks(ax.xaxis, places)
    else:
        whole = all(place == int(place) for place in places)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=whole))
    ax.xaxis.set_major_formatter(_PLAIN)
    label = card.axis_label
    if card.axis_metric:
        label = f"teacher's {in_a_sentence(card.axis_metric)}"
    font = 6.5 if len(label) > _LONG else 8
    ax.set_xlabel(textwrap.fill(label, _LONG + 6), fontsize=font, linespacing=0.95)
    ax.set_ylabel(quantity(panel[0]).unit, fontsize=6.5, labelpad=1)
    _scale(ax, curves, vertical=True)
    if any(curves):
        ax.legend(loc="best", handlelength=2.4)


def _by_variant(
    ax: Axes, panel: Panel, curves: Curves, ticks: Mapping[float, str], *, named: bool
) -> None:
    at = {place: line for line, place in enumerate(ticks)}
    for i, points in enumerate(curves.values()):
        ink, marker = _INKS[i % len(_INKS)], _MARKERS[i % len(_MARKERS)]
        for place, values in points.items():
            y = at[place]
            ax.plot(values, [y] * len(values), marker, color=ink, markersize=3.6,
                    alpha=0.6, markeredgewidth=0)  # fmt: skip
            ax.plot([t_interval(values).mean] * 2, [y - 0.28, y + 0.28], color=ink, linewidth=1.8)
    ax.set_ylim(len(ticks) - 0.5, -0.5)
    ax.set_yticks(range(len(ticks)), list(ticks.values()) if named else [""] * len(ticks))
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(quantity(panel[0]).unit or panel[1])
    _scale(ax, curves, vertical=False)


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


def draw_same_latents(
    blocks: Mapping[str, Sequence[np.ndarray]], folder: Path, samples: int
) -> Figure:
    """A block a variant, a row a resolution, a column a latent; every picture at the same size.

    Args:
        blocks: by variant, (n, 3, r, r) uint8 of each resolution, lowest first, same latents.
        folder: of the picture.
        samples: images of the measurement that the first ones are shown of.
    """
    lines = [(f"{name}, {images.shape[-1]}×{images.shape[-1]}", images)
             for name, block in blocks.items() for images in block]  # fmt: skip
    count, width = _draw_lines(lines, folder / "same_latents.png")
    return Figure(
        "same_latents.png",
        f"The same {count} prior latents through the resolutions, by variant: the first {count} of "
        f"{samples} samples, uncurated, one class a column, first training seed, evaluation seed "
        "of the profile. Objects that stay where they are from row to row show growth without "
        "drift.",
        "Samples by variant and resolution, the same latents in the same columns",
        width,
    )


def draw_edits(lines: Sequence[tuple[str, np.ndarray]], folder: Path, images: int) -> Figure:
    """A row a way of editing, under the originals and what was seen of them; a column an image.

    Args:
        lines: by label, (n, 3, r, r) uint8 of the same images.
        folder: of the picture.
        images: of the measurement that the first ones are shown of.
    """
    count, width = _draw_lines(lines, folder / "edits.png")
    return Figure(
        "edits.png",
        f"The first {count} of {images} held-out images, in the order of the data set, none "
        "selected, and what became of them; first seed. A path has its frames in a row.",
        "The same held-out images in the same columns, edited in a different way in every row",
        width,
    )


def _draw_lines(lines: Sequence[tuple[str, np.ndarray]], path: Path) -> tuple[int, int]:
    """How many pictures a line has, and the width of the file in CSS pixels."""
    count = min(_COLUMNS, *(len(images) for _, images in lines))
    side = max(images.shape[-1] for _, images in lines)
    with style.applied():
        size = count * _CELL, len(lines) * (_CELL + _GAP)
        figure = Drawing(figsize=size)
        FigureCanvasAgg(figure)
        for i, (name, images) in enumerate(lines):
            bottom = 1 - (i + 1) * (_CELL + _GAP) / size[1]
            axis = figure.add_axes((0, bottom, 1, _CELL / size[1]))
            k = side // images.shape[-1]
            large = images[:count].repeat(k, axis=2).repeat(k, axis=3).transpose(0, 2, 3, 1)
            strip = np.concatenate(list(large), axis=1)
            axis.imshow(strip, interpolation="nearest", aspect="equal")
            axis.axis("off")
            axis.set_title(name, loc="left", pad=2)
        return count, style.save(figure, path)


def draw_parts(rows: Sequence[Row], variants: Mapping[str, str], folder: Path) -> Figure:
    """Training compute by stage, time of each variant's own sampler at the target, and of one step
    by part; first seed.
    """
    first = min(row.training_seed or 0 for row in rows)
    rows = [row for row in rows if row.training_seed == first]
    timed = [row for row in rows if row.metric == "seconds_per_image"]
    top = max(row.size for row in timed)
    own = [r for r in timed if r.size == top and r.generator in (*OWN, "teacher")]
    samplers = {r.variant: {r.generator: 1e3 * r.number} for r in own}
    drawn: list[tuple[str, str, Mapping[str, Mapping[str, float]], Callable[..., None]]] = [
        ("Training compute by stage", "TFLOP", _summed(rows, "stage_flops", 1e-12), _bars),
        ("Sampling at the target", "ms an image, logarithmic", samplers, _dots),
        ("One step, by part", "ms an image", _summed(rows, "part_seconds", 1e3), _bars),
    ]
    with style.applied():
        left = max(2.3, 0.15 + _LABEL * max(map(len, variants.values())))
        figure, axes = style.panels(3, 1, (left + 3.9, 1.75), left=left)
        for axis, (title, unit, table, draw) in zip(axes, drawn, strict=True):
            draw(axis, {label: table[v] for v, label in variants.items() if v in table})
            axis.set_title(title, loc="left")
            axis.set_xlabel(unit)
        width = style.save(figure, folder / "cost.png")
    return Figure(
        "cost.png",
        "Training compute by stage, counted on the networks (convolutions, matrix products and "
        "attention; optimiser and data not); time of an image at the target by sampler, and of "
        "one-step sampling by part of the generator (median of 5 batches of "
        f"{listed(sorted({r.n for r in timed}))}; times vary between machines and runs). "
        f"Seed {first}; code {listed(sorted({f'`{r.revision}`' for r in rows}))}, on "
        f"{listed(sorted({r.device for r in rows}))}.",
        "Stacked bars of training compute by stage and of sampling time by part",
        width,
        plot=True,
    )


def _summed(rows: Sequence[Row], metric: str, scale: float) -> dict[str, dict[str, float]]:
    """{variant: {stage or part: value}} of one kind of metric; growth by resolution."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in (r for r in rows if r.metric == metric or r.metric.startswith(f"{metric}_")):
        part = row.metric.removeprefix(f"{metric}_")
        if part == metric:
            part = row.protocol.removeprefix(f"{metric}_")
            part += f" {row.resolution}" * (part in ("grow", "cascade"))
        found[row.variant][part] += scale * row.number
    return found


def _bars(axis: Axes, table: Mapping[str, Mapping[str, float]]) -> None:
    def order(name: str) -> tuple[int, int]:  # as stages run, and as an image passes the parts
        stem, _, size = name.replace("-", " ").partition(" ")
        return item_order(stem)[0] + (stem == "head"), int(size or 0)

    names = sorted({part for parts in table.values() for part in parts}, key=order)
    looks = itertools.cycle(zip(_BARS, _HATCHES, strict=True))
    start = np.zeros(len(table))
    for name, (colour, hatch) in zip(names, looks, strict=False):
        values = np.array([parts.get(name, 0.0) for parts in table.values()])
        axis.barh(list(table), values, left=start, color=colour, hatch=hatch, edgecolor="white",
                  linewidth=0.0, label=name, height=0.6)  # fmt: skip
        start += values
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlim(0, 1.45 * float(start.max()))  # room for the legend
    axis.legend(loc="center right", handlelength=2.0, labelspacing=0.3)


def _dots(axis: Axes, table: Mapping[str, Mapping[str, float]]) -> None:
    """Points with their values: a bar on a logarithmic axis would have no true length."""
    times = {name: value for name, values in table.items() for value in values.values()}
    axis.plot(list(times.values()), list(times), "o", color=style.BLUE)
    for name, value in times.items():
        axis.annotate(f"{value:.3g}", (value, name), (6, 0), textcoords="offset points",
                      va="center", fontsize=7)  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlim(min(times.values()) / 3, max(times.values()) * 3)
    axis.set_ylim(len(times) - 0.5, -0.5)
