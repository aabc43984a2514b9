"""Tables and figure of ``benchmarks.sampling_speed``: what was measured, and nothing else."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sampling_parts import REST, names
from benchmarks.sampling_variants import EAGER
from benchmarks.timing import Results, Row, median_interval
from pagoda import outputs
from pagoda.results import style

COLUMNS = (
    "name", "revision", "device", "gpu", "threads", "torch", "onnxruntime", "blas", "weights",
    "resolution", "batch", "implementation", "nfe", "repeats", "latency_ms", "latency_ms_low",
    "latency_ms_high", "images_per_s", "cpu_ms", "over_eager", "over_eager_low", "over_eager_high",
    "cpu_over_eager", "cpu_over_eager_low", "cpu_over_eager_high",
    "largest_difference",
)  # fmt: skip
_COLOURS = (style.BLACK, style.BLUE, style.PURPLE, style.SKY, style.ORANGE, style.VERMILION,
            style.GREEN, "#999999")  # fmt: skip


def write(results: Results, resolutions: list[int], folder: Path) -> str:
    """Put the tables and the figure into ``folder``; the page's text."""
    folder.mkdir(parents=True, exist_ok=True)
    timed = [row for row in results.rows if "nfe" in row]
    parts = [row for row in results.rows if "parts" in row]
    outputs.write_text(folder / "speed.csv", to_csv(COLUMNS, map(lines_of(results, timed), timed)))
    shares = [line for row in parts for line in part_lines(row, resolutions)]
    kept = [results.conditions["name"], results.conditions["revision"]]
    header = ("name", "revision", "resolution", "batch", "part", "ms", "ms_low", "ms_high", "share")
    outputs.write_text(folder / "parts.csv", to_csv(header, ([*kept, *line] for line in shares)))
    label = "ms an image" if results.conditions["device"] == "cuda" else "CPU ms an image"
    draw(parts, resolutions, label, folder / "parts.png")
    text = page(results, resolutions)
    outputs.write_text(folder / "speed.md", text)
    return text


def to_csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A table as CSV; empty where there is no value."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if v is None else v for v in line] for line in lines])
    return stream.getvalue()


def over_eager(row: Row, rows: Sequence[Row], key: str = "wall_s") -> tuple[float, float, float]:
    """A way's time over eager's of the same turn: median and its interval."""
    eager = next(r for r in rows if (r["case"], r["implementation"]) == (row["case"], EAGER))
    return median_interval([a / b for a, b in zip(row[key], eager[key], strict=True)])


def lines_of(results: Results, rows: Sequence[Row]) -> Any:
    """What makes a line of ``speed.csv`` of a row."""
    c = results.conditions

    def line(row: Row) -> list[Any]:
        median, low, high = median_interval(row["wall_s"])
        known = [c["name"], c["revision"], c["device"], c["gpu"], c["threads"],
                 c["versions"]["torch"], c["versions"]["onnxruntime"], c["blas"],
                 c["weights"]]  # fmt: skip
        return [
            *known, row["resolution"], row["batch"], row["implementation"], row["nfe"],
            len(row["wall_s"]), *(f"{1e3 * s:.4g}" for s in (median, low, high)),
            f"{row['images'] / median:.4g}", f"{1e3 * statistics.median(row['cpu_s']):.4g}",
            *(f"{x:.4g}" for key in ("wall_s", "cpu_s") for x in over_eager(row, rows, key)),
            row["apart"],
        ]  # fmt: skip

    return line


def part_lines(row: Row, resolutions: list[int]) -> list[list[Any]]:
    """Resolution, batch, part, ms with interval and share of the call, in the order of the call."""
    seconds, found = row["parts"], []
    whole = [sum(turn) for turn in zip(*seconds.values(), strict=True)]
    for name in names(resolutions):
        if name in seconds:
            share = statistics.median(s / w for s, w in zip(seconds[name], whole, strict=True))
            ms = (f"{1e3 * s:.4g}" for s in median_interval(seconds[name]))
            found.append([row["resolution"], row["batch"], name, *ms, f"{share:.3f}"])
    return found


def page(results: Results, resolutions: list[int]) -> str:
    """``speed.md``."""
    c, rows = results.conditions, results.rows
    timed = [row for row in rows if "nfe" in row]
    where = c["gpu"] if c["device"] == "cuda" else f"{c['threads']} of {c['cores']} CPU cores"
    versions = ", ".join(f"{name} {v}" for name, v in c["versions"].items() if v)
    lines = [
        f"# Speed of one step: {c['name']}", "",
        f"{where} ({c['processor']}), {versions}, BLAS: {c['blas']}; code {c['revision']}; weights "
        f"{c['weights']}, on which no time depends. All ways take turns, {c['repeats']} of them; "
        "times are medians with the 95 % interval of the median (order statistics). Ratios are to "
        "eager's time in the same turn, on the wall and of the processor, below 1 is faster; the "
        "processor's, of all threads, say more where other work shares the machine. "
        "NFE: network evaluations an image. The teacher makes images at the base resolution "
        "only; above it, the cascade of diffusion models is what a generator replaces.", "",
        "| images | batch | way | NFE | ms a batch | images/s | CPU ms | time over eager | "
        "CPU time over eager |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in timed:
        median, low, high = (1e3 * s for s in median_interval(row["wall_s"]))
        ratios = (over_eager(row, timed, key) for key in ("wall_s", "cpu_s"))
        cells = [
            "{0}x{0}".format(row["resolution"]), str(row["batch"]), row["implementation"],
            str(row["nfe"]), f"{median:,.2f} ({low:,.2f} to {high:,.2f})",
            f"{1e3 * row['images'] / median:,.1f}",
            f"{1e3 * statistics.median(row['cpu_s']):,.2f}",
            *("1" if row["implementation"] == EAGER else f"{m:.2f} ({a:.2f} to {b:.2f})"
              for m, a, b in ratios),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    apart = max((row["apart"] for row in timed if row["apart"] is not None), default=None)
    if apart is not None:
        lines += ["", f"Images of compiled, exported and ONNX differ from eager's by {apart:.1e} "
                      "at most, of values in [-1, 1]."]  # fmt: skip
    clock = "on the wall, each part waits for the one before it" if c["device"] == "cuda" else (
        "of the processor, all threads")  # fmt: skip
    lines += _missing(rows) + _cold(rows) + _parts(rows, resolutions, clock)
    return "\n".join(lines) + "\n"


def _missing(rows: Sequence[Row]) -> list[str]:
    whys = {row["implementation"]: row["why"] for row in rows if "why" in row}
    return ["", *(f"No {name}: {why}." for name, why in whys.items())] if whys else []


def _cold(rows: Sequence[Row]) -> list[str]:
    found = [row for row in rows if "user_s" in row]
    if not found:
        return []
    lines = ["", "## One image from a cold start", "",
             "A new process each, in turn, files in the page cache.", "",
             "| command | processes | s | user CPU s | system CPU s |",
             "|---|---:|---:|---:|---:|"]  # fmt: skip
    for row in found:
        cells = (median_interval(row[key]) for key in ("wall_s", "user_s", "system_s"))
        texts = [f"{m:.2f} ({low:.2f} to {high:.2f})" for m, low, high in cells]
        lines.append(f"| {row['implementation']} | {len(row['wall_s'])} | {' | '.join(texts)} |")
    return lines


def _parts(rows: Sequence[Row], resolutions: list[int], clock: str) -> list[str]:
    lines = ["", "## Where the time of a call goes", "", "![Parts of a call](parts.png)", "",
             f"Eager, float32, {clock}; each part without those inside it. {REST.capitalize()}: "
             "scaling of the latents and what is between parts.", "",
             "| images | batch | part | ms | share |", "|---|---:|---|---:|---:|"]  # fmt: skip
    for row in rows:
        found = part_lines(row, resolutions) if "parts" in row else []
        for side, batch, part, ms, low, high, share in found:
            cells = [f"{side}x{side}", str(batch), part, f"{ms} ({low} to {high})",
                     f"{float(share):.1%}"]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def draw(rows: Sequence[Row], resolutions: list[int], ylabel: str, path: Path) -> None:
    """Stacked bars: milliseconds an image of every part, a panel a batch, a bar a resolution."""
    batches = sorted({row["batch"] for row in rows})
    shown = names(resolutions)
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(shown)}
    hatches = {name: "///" * (i // len(_COLOURS)) for i, name in enumerate(shown)}
    with style.applied():
        figure, axes = style.panels(len(batches) + 1, len(batches) + 1, (2.2, 2.6))
        for panel, batch in zip(axes, batches, strict=False):
            for x, side in enumerate(resolutions):
                bottom = 0.0
                for row in rows:
                    if (row["batch"], row["resolution"]) != (batch, side):
                        continue
                    for name in shown:
                        values = row["parts"].get(name)
                        if values:
                            height = 1e3 * statistics.median(values) / batch
                            panel.bar(x, height, 0.7, bottom, color=colours[name],
                                      hatch=hatches[name], edgecolor="white",
                                      linewidth=0.3)  # fmt: skip
                            bottom += height
            panel.set_xticks(range(len(resolutions)), [f"{r}x{r}" for r in resolutions])
            panel.set_title(f"batch {batch}")
            panel.grid(axis="x", visible=False)
        axes[0].set_ylabel(ylabel)
        legend = axes[-1]
        legend.axis("off")
        for name in reversed(shown):
            legend.bar([0], [0], color=colours[name], hatch=hatches[name], edgecolor="white",
                       label=name)  # fmt: skip
        legend.legend(loc="center left", bbox_to_anchor=(-0.35, 0.5), handlelength=1.2)
        style.save(figure, path)
