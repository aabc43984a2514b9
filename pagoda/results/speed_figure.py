"""Figure of the study of speed: stacked bars of base and growth, or decoder (paper, figure 9)."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from pagoda.results import style
from pagoda.results.blocks import Figure
from pagoda.results.labels import generator_label, generator_order, quantity
from pagoda.results.numbers import listed
from pagoda.rows import Row, grouped

SPEED = "speed.png"
_KINDS = ("part_seconds", "part_flops")
_COLOURS = {"base": style.BLACK, "growth": style.BLUE, "decoder": style.VERMILION}
_LONGEST = 2.6  # of an axis, over the first bar: one that is longer ends there
_COLUMNS = 6
_TITLE = 26  # characters of a title's line


def draw_speed(rows: Sequence[Row], variants: Mapping[str, str], folder: Path) -> Figure:
    """A panel a variant and quantity, a bar a way, stacked by part, with its sum above.

    Args:
        rows: with ``part_seconds_<part>`` and ``part_flops_<part>`` of each way, a generator.
        variants: reader's names, in order.
        folder: of the picture.
    """
    batch = {r.variant: r.n for r in rows}
    order = sorted(variants, key=lambda v: batch.get(v, 0))  # a line a batch, where sizes agree
    kept = [("part_seconds", v, _stacked(rows, "part_seconds", v)) for v in order]
    for variant in variants:
        found = _stacked(rows, "part_flops", variant)
        counted = [f for kind, _, f in kept if kind == "part_flops"]
        if found and found not in counted:  # the same whatever the batch
            kept.append(("part_flops", variant, found))
    ways = sorted({way for _, _, found in kept for way in found}, key=generator_order)
    letters = {way: chr(ord("A") + i) for i, way in enumerate(ways)}
    with style.applied():
        figure, axes = style.panels(len(kept), _COLUMNS, (1.75, 1.9), left=0.5)
        for axis, (kind, variant, found) in zip(axes, kept, strict=True):
            unit = quantity(kind).unit
            title = textwrap.fill(variants[variant], _TITLE)
            axis.set_title(title, loc="left", fontsize=6)
            axis.set_ylabel(unit, fontsize=6.5, labelpad=1)
            _bars(axis, found, letters, quantity(kind).scale)
        axes[0].legend(handles=[Patch(color=c, label=p) for p, c in _COLOURS.items()],
                       loc="upper left", ncols=3, fontsize=5, handlelength=0.7,
                       handletextpad=0.3, columnspacing=0.6, borderaxespad=0.1)  # fmt: skip
        width = style.save(figure, folder / SPEED)
    named = "; ".join(f"{letter}: {generator_label(way)}" for way, letter in letters.items())
    timed = [r for r in rows if r.metric.startswith("part_seconds")]
    return Figure(
        SPEED,
        f"Time and compute of one step, by part: base, then growth or a decoder. {named}. Figures "
        "above bars are their sums; a bar that two white strokes cross is longer than the axis. "
        "Times are medians of turns of all parts in one process, the median over seeds "
        f"{listed(sorted({r.training_seed or 0 for r in rows}))}; a bar is missing where a call "
        f"would take too long, and is counted. Compute an image is the same of every batch and is "
        f"shown once. Code `{rows[0].revision}`, on "
        f"{listed(r.device for r in timed)}.",
        "Stacked bars of the time and the compute of one step in pixels and on codes",
        width,
        plot=True,
    )


def _stacked(rows: Sequence[Row], kind: str, variant: str) -> dict[str, dict[str, float]]:
    """{way: {part: value}} of the ways of which both parts are known; the median over seeds."""
    own = [r for r in rows if r.variant == variant and r.metric.startswith(f"{kind}_")]
    found: dict[str, dict[str, float]] = {}
    by_part = grouped(own, lambda r: (r.generator, r.metric.removeprefix(f"{kind}_")))
    for (way, part), several in by_part.items():
        found.setdefault(way, {})[part] = statistics.median(r.number for r in several)
    ways = sorted((way for way, parts in found.items() if len(parts) > 1), key=generator_order)
    return {way: found[way] for way in ways}


def _bars(
    axis: Axes, found: Mapping[str, Mapping[str, float]], letters: Mapping[str, str], scale: float
) -> None:
    axis.grid(axis="x", visible=False)
    axis.set_xticks(range(len(found)), [letters[way] for way in found])
    if not found:
        axis.set_yticks([])
        axis.text(0.5, 0.5, "counted, not timed", ha="center", fontsize=6,
                  transform=axis.transAxes)  # fmt: skip
        return
    sums = [scale * sum(parts.values()) for parts in found.values()]
    top = min(_LONGEST * sums[0], max(sums))
    for i, parts in enumerate(found.values()):
        bottom = 0.0
        for part, value in sorted(parts.items()):  # base comes first
            axis.bar(i, scale * value, 0.7, bottom, color=_COLOURS[part], linewidth=0)
            bottom += scale * value
        axis.text(i, min(bottom, top), _told(bottom), ha="center", va="bottom", fontsize=5)
    ceiling = 1.25 * top
    if max(sums) > top:  # white over what is left out, below the figure above it
        axis.axhspan(top, ceiling, color="white", zorder=1.5)
        for i, total in enumerate(sums):
            if total > top:  # the break of an axis: two strokes across the bar
                for low in (0.86, 0.91):
                    axis.plot([i - 0.42, i + 0.42], [low * top, (low + 0.04) * top],
                              color="white", linewidth=1.2)  # fmt: skip
    axis.set_ylim(0, ceiling)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _told(v)))


def _told(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
