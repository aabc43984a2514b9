"""Pictures that only some studies have: the same latents through the resolutions, costs by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pagoda.report import style
from pagoda.report.studies import StudyFigure

_COLUMNS = 10
_COLOURS = (
    style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILION, "#8c8c8c",
)  # fmt: skip
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
    """Training compute by stage, time of every sampler, and of one step by part."""
    training = {arms[a]: v for a, v in _table(rows, "stage_flops", 1e-12).items()}
    sampling = {arms[a]: v for a, v in _samplers(rows).items()}
    parts = {arms[a]: v for a, v in _table(rows, "part_seconds", 1e3).items()}
    with style.applied():
        figure, axes = style.panels(3, 1, (6.2, 1.75), left=2.3)
        for axis, table, title, unit in zip(
            axes, (training, sampling, parts),
            ("Training compute by stage", "Sampling at the target", "One step, by part"),
            ("TFLOP", "ms an image, logarithmic", "ms an image"), strict=True,
        ):  # fmt: skip
            _bars(axis, table, legend=table is not sampling)
            axis.set_title(title, loc="left")
            axis.set_xlabel(unit)
        axes[1].set_xscale("log")
        times = [value for bars in sampling.values() for value in bars.values()]
        axes[1].set_xlim(min(times) / 3, max(times) * 3)  # a bar that starts at its end is none
        width = style.save(figure, folder / "cost.png")
    return StudyFigure(
        file="cost.png",
        caption="Training compute by stage, counted on the networks (convolutions, matrix products "
        "and attention; optimiser and data not); time of an image at the target by sampler, and of "
        "one-step sampling by part of the generator (median of 5 batches; times vary between "
        "machines and runs).",
        alt="Stacked bars of training compute by stage and of sampling time by part",
        width=width,
    )


def _samplers(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """{arm: {generator: ms an image}} at the highest resolution."""
    timed = [row for row in rows if row["metric"] == "seconds_per_image"]
    top = max(row["resolution"] for row in timed)
    return {r["arm"]: {r["generator"]: 1e3 * r["value"]} for r in timed if r["resolution"] == top}


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


def _bars(axis: Axes, table: Mapping[str, Mapping[str, float]], legend: bool) -> None:
    names = list(dict.fromkeys(part for parts in table.values() for part in parts))
    colours = dict(zip(names, _COLOURS * (1 + len(names) // len(_COLOURS)), strict=False))
    start = np.zeros(len(table))
    for name in names:
        values = np.array([parts.get(name, 0.0) for parts in table.values()])
        colour = colours[name] if legend else style.BLUE
        axis.barh(list(table), values, left=start, color=colour, label=name, height=0.6)
        start += values
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    if legend:
        axis.set_xlim(0, 1.45 * float(start.max()))  # room for the legend
        axis.legend(loc="center right", handlelength=1.0, labelspacing=0.2)
