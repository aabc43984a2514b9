"""Pictures that only some studies have: the same latents through the resolutions, costs by part."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pagoda.results import style
from pagoda.results.quantities import item_order
from pagoda.results.studies import StudyFigure

_COLUMNS = 10
_COLOURS = (
    style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILION, "#8c8c8c",
)  # fmt: skip
# In black and white, colours are told apart by these.
_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "||||")
_CELL = 0.55  # inches of a picture in a sheet
_TITLE = 0.24  # inches between two rows


def draw_same_latents(
    blocks: Mapping[str, Sequence[np.ndarray]], folder: Path, samples: int
) -> StudyFigure:
    """A block an arm, a row a resolution, a column a latent; every picture at the same size.

    Args:
        blocks: by arm, (n, 3, r, r) uint8 of each resolution, lowest first, same latents.
        samples: images of the measurement that the first ones are shown of.
    """
    lines = [(name, images) for name, block in blocks.items() for images in block]
    count = min(_COLUMNS, *(len(images) for _, images in lines))
    with style.applied():
        row = _CELL + _TITLE  # closer than panels with axis labels
        size = count * _CELL, len(lines) * row
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        largest = max(block[-1].shape[-1] for block in blocks.values())
        for i, (name, images) in enumerate(lines):
            axis = figure.add_axes((0, 1 - (i + 1) * row / size[1], 1, _CELL / size[1]))
            _strip(axis, images[:count], largest)
            axis.set_title(f"{name}, {images.shape[-1]}×{images.shape[-1]}", loc="left", pad=2)
        width = style.save(figure, folder / "same_latents.png")
    return StudyFigure(
        file="same_latents.png",
        caption=f"The same {count} prior latents through the resolutions, by arm: the first "
        f"{count} of {samples} samples, uncurated, one class a column, first training seed, "
        "evaluation seed of the profile. Objects that stay where they are from row to row show "
        "growth without drift.",
        alt="Samples of every arm at every resolution, the same latents in the same columns",
        width=width,
    )


def _strip(axis: Axes, images: np.ndarray, side: int) -> None:
    k = side // images.shape[-1]
    large = images.repeat(k, axis=2).repeat(k, axis=3).transpose(0, 2, 3, 1)
    axis.imshow(np.concatenate(list(large), axis=1), interpolation="nearest", aspect="equal")
    axis.axis("off")


def draw_parts(
    rows: Sequence[Mapping[str, Any]], arms: Mapping[str, str], folder: Path
) -> StudyFigure:
    """Training compute by stage, time of every sampler, and of one step by part; first seed."""
    first = min(row["seed"] for row in rows)
    rows = [row for row in rows if row["seed"] == first]
    training, sampling, parts = (
        {label: table[arm] for arm, label in arms.items() if arm in table}
        for table in (
            _table(rows, "stage_flops", 1e-12), _samplers(rows), _table(rows, "part_seconds", 1e3)
        )
    )  # fmt: skip
    with style.applied():
        figure, axes = style.panels(3, 1, (6.2, 1.75), left=2.3)
        for axis, table, title, unit in zip(
            axes, (training, sampling, parts),
            ("Training compute by stage", "Sampling at the target", "One step, by part"),
            ("TFLOP", "ms an image, logarithmic", "ms an image"), strict=True,
        ):  # fmt: skip
            (_dots if table is sampling else _bars)(axis, table)
            axis.set_title(title, loc="left")
            axis.set_xlabel(unit)
        width = style.save(figure, folder / "cost.png")
    batch = ", ".join(str(n) for n in sorted({r["n"] for r in _timed(rows)}))
    return StudyFigure(
        file="cost.png",
        caption="Training compute by stage, counted on the networks (convolutions, matrix products "
        "and attention; optimiser and data not); time of an image at the target by sampler, and of "
        f"one-step sampling by part of the generator (median of 5 batches of {batch}; times vary "
        f"between machines and runs). Seed {first}; code `{rows[0]['revision']}`, on "
        f"{rows[0]['device']}.",
        alt="Stacked bars of training compute by stage and of sampling time by part",
        width=width,
    )


def _samplers(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """{arm: {generator: ms an image}} at the highest resolution."""
    timed = _timed(rows)
    top = max(row["resolution"] for row in timed)
    return {r["arm"]: {r["generator"]: 1e3 * r["value"]} for r in timed if r["resolution"] == top}


def _timed(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["metric"] == "seconds_per_image"]


def _table(
    rows: Sequence[Mapping[str, Any]], metric: str, scale: float
) -> dict[str, dict[str, float]]:
    """{arm: {stage or part: value}} of one kind of metric, summed over resolutions where equal."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["metric"] != metric and not row["metric"].startswith(f"{metric}_"):
            continue
        part = row["metric"].removeprefix(f"{metric}_")
        if part == metric:
            part = row["protocol"].removeprefix(f"{metric}_")
            if part in ("grow", "cascade"):
                part = f"{part} {row['resolution']}"
        parts = found.setdefault(row["arm"], {})
        parts[part] = parts.get(part, 0.0) + scale * row["value"]
    return found


def _bars(axis: Axes, table: Mapping[str, Mapping[str, float]]) -> None:
    names = sorted({part for parts in table.values() for part in parts}, key=_stack_order)
    looks = dict(zip(names, itertools.cycle(zip(_COLOURS, _HATCHES, strict=True)), strict=False))
    start = np.zeros(len(table))
    for name in names:
        values = np.array([parts.get(name, 0.0) for parts in table.values()])
        colour, hatch = looks[name]
        axis.barh(list(table), values, left=start, color=colour, hatch=hatch, edgecolor="white",
                  linewidth=0.0, label=name, height=0.6)  # fmt: skip
        start += values
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlim(0, 1.45 * float(start.max()))  # room for the legend
    axis.legend(loc="center right", handlelength=2.0, labelspacing=0.3)


def _stack_order(name: str) -> tuple[int, int]:
    """Stages as they run, parts as an image passes them: ``grow 16``, ``level-16``, ``head``."""
    stem, _, size = name.replace("-", " ").partition(" ")
    return item_order(stem)[0] + (stem == "head"), int(size or 0)


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
