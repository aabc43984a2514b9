"""The page of how cost grows, from what was measured: docs/cost.md and its figures.

    python -m benchmarks.cost_page [--training TRAINING.json] [--downsampling DOWNSAMPLING.json]
                                   [--docs DOCS]

The files are those of ``benchmarks.training --out`` and of ``benchmarks/data.py scaling --out``, by
default in benchmarks/measured/. Every figure of the page comes from them; a part that they lack is
not on the page.
"""

from __future__ import annotations

import argparse
import json
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from pagoda.results.style import BLACK, BLUE, VERMILION, applied, panels, save

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "benchmarks" / "measured"
DOCS = ROOT / "docs"

Measured = dict[str, Any]
Rates = Sequence[tuple[int, float, float, float]]
"""On the horizontal axis; images/s: median, lowest, highest."""

_LOOKS = {"teacher": (BLUE, "o"), "one step": (VERMILION, "s")}
_PANEL = (2.5, 2.1)  # inches


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--training", type=Path, default=MEASURED / "training.json")
    parser.add_argument("--downsampling", type=Path, default=MEASURED / "downsampling.json")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder that the page goes to")
    args = parser.parse_args()
    files = args.training, args.downsampling
    training, cut = (json.loads(f.read_text()) if f.is_file() else {} for f in files)
    if not training and not cut:
        raise SystemExit(f"neither {files[0]} nor {files[1]} is there; measure first")
    (args.docs / "images").mkdir(parents=True, exist_ok=True)
    (args.docs / "cost.md").write_text(page(training, cut))
    draw(training, cut, args.docs / "images")


def page(training: Measured, cut: Measured) -> str:
    """The text with its tables."""
    blocks: list[str] = [
        "# How cost grows",
        _wrapped(
            "Written by `python -m benchmarks.cost_page` from `benchmarks/measured/`: nothing here "
            "is typed by hand. How to measure anew: [benchmarks](../benchmarks/README.md). What a "
            "profile costs before it is run: [plan.md](plan.md)."
        ),
    ]
    if "rates" in training:
        blocks += _training_blocks(training)
    if "processes" in training:
        blocks += _process_blocks(training)
    if cut:
        blocks += _cut_blocks(cut)
    if "stages" in training:
        blocks += _memory_blocks(training)
    return "\n\n".join(blocks) + "\n"


def _training_blocks(training: Measured) -> list[str]:
    rows = training["rates"]
    lines = [
        (r["step"], f"{r['resolution']} x {r['resolution']}", r["batch"], _cells(_rate(r)))
        for r in sorted(rows, key=lambda r: (r["step"], r["resolution"], r["batch"]))
    ]
    return [
        "## Training, over resolution and batch",
        _wrapped(
            "Whole training steps (loss, gradients, optimiser, average of weights) on random "
            "images in one process: the teacher, and the one-step generator with its "
            "discriminator, which learns from a batch of inverted and one of prior latents and "
            "whose images/s count the inverted ones. Networks have the smoke profile's width and a "
            f"level more each doubling; fp32. {_where(training)} "
            f"{_load(training, 'rates')} Medians of {len(rows[0]['seconds'])} steps of each case, "
            "taken in turn after one round that is not counted; the range in brackets."
        ),
        "![Images a second over resolution, batch and processes](images/cost-training.png)",
        _table(["step", "resolution", "batch", "images/s (range)"], lines),
    ]


def _process_blocks(training: Measured) -> list[str]:
    rows = training["processes"]
    alone = _rate(rows[0])[0]
    lines = [
        (r["processes"], _cells(_rate(r)), f"{_rate(r)[0] / alone:.2f}") for r in rows
    ]  # fmt: skip
    first = rows[0]
    devices = "a GPU each" if training["machine"]["gpu"] else "one thread each, gloo"
    return [
        "## Training, over processes",
        _wrapped(
            f"The teacher's step at {first['resolution']}x{first['resolution']}, one batch of "
            f"{first['batch']} shared by a group of processes, {devices}; the groups one after the "
            f"other, medians of {len(first['seconds'])} steps. {_load(training, 'processes')}"
        ),
        _table(["processes", "images/s (range)", "over one"], lines),
    ]


def _cut_blocks(cut: Measured) -> list[str]:
    rows, once = cut["over_cores"], cut["one_pass"]
    alone = statistics.median(rows[0]["seconds"])
    lines = [
        (r["cores"], _cells(_cut_rate(r, cut["n"])),
         f"{alone / statistics.median(r['seconds']):.2f}") for r in rows
    ]  # fmt: skip
    apart, together = (statistics.median(once[key]) for key in ("apart", "together"))
    sides = ", ".join(map(str, once["resolutions"]))
    return [
        "## Downsampling, over cores",
        _wrapped(
            f"{cut['n']:,} photographs to {cut['resolution']}x{cut['resolution']} "
            f"(`{cut['recipe']}`), decoding and the start of the processes included, files in the "
            "page cache; medians of "
            f"{len(rows[0]['seconds'])} passes taken in turn. {cut['processor']}, "
            f"{_versions(cut['versions'])}; load at the end {cut['load']}."
        ),
        "![Images a second over cores](images/cost-downsampling.png)",
        _table(["cores", "images/s (range)", "over one"], lines),
        _wrapped(
            f"One pass over {once['n']:,} photographs for {sides} takes {together:.1f} s on one "
            f"core, a pass for each {apart:.1f} s: {apart / together:.2f} times as much."
        ),
    ]


def _memory_blocks(training: Measured) -> list[str]:
    stages, more = training["stages"], training.get("more_images")
    rows, header = stages["rows"], ["stage", "GiB"]
    columns = [{r["stage"]: f"{r['peak_gib']:.2f}" for r in rows}]
    if more:
        header.append("GiB, more images")
        columns.append({r["stage"]: f"{r['peak_gib']:.2f}" for r in more["rows"]})
    if any("peak_gpu_gib" in r for r in rows):
        header.append("GiB in use on the GPU")
        columns.append({r["stage"]: f"{r.get('peak_gpu_gib', 0):.2f}" for r in rows})
    lines = [(f"`{r['stage']}`", *(c.get(r["stage"], "") for c in columns)) for r in rows]
    text = (
        "Peak resident memory of each stage's largest process, PyTorch's own included, in the "
        f"smoke profile cut short ({_settings(stages['settings'])}), one run."
    )
    if more:
        text += (
            f" The third column has more images: {_settings(more['settings'])}. Where "
            "it is no larger, memory does not grow with the data."
        )
    blocks = ["## Peak memory of every stage", _wrapped(text), _table(header, lines)]
    if "studies" in training:
        variants = training["studies"]
        blocks += [
            _wrapped(
                "Studies: the last variant of each kind of steps, all variants of one study, and "
                f"what puts its results together ({_settings(variants['settings'])})."
            ),
            _table(
                ["stage", "GiB"],
                [(f"`{r['stage']}`", f"{r['peak_gib']:.2f}") for r in variants["rows"]],
            ),
        ]
    return [*blocks, "A store of a million images in 4 GiB: [benchmarks](../benchmarks/README.md)."]


def draw(training: Measured, cut: Measured, folder: Path) -> None:
    """Write the figures of the page."""
    drawn = [
        panel for panel, there in (
            (_over_resolution, "rates"), (_over_batch, "rates"), (_over_processes, "processes")
        ) if there in training
    ]  # fmt: skip
    with applied():
        if drawn:
            figure, axes = panels(len(drawn), len(drawn), _PANEL)
            for panel, ax in zip(drawn, axes, strict=True):
                panel(ax, training)
            save(figure, folder / "cost-training.png")
        if cut:
            figure, (ax,) = panels(1, 1, _PANEL)
            rates = [(r["cores"], *_cut_rate(r, cut["n"])) for r in cut["over_cores"]]
            _line(ax, rates, "downsampling", BLUE, "o")
            _ideal(ax, rates)
            _axes(ax, "Downsampling", "cores", [r[0] for r in rates])
            save(figure, folder / "cost-downsampling.png")


def _over_resolution(ax: Axes, training: Measured) -> None:
    rows = training["rates"]
    batch = _fixed(rows, "resolution", "batch")
    _lines(ax, [r for r in rows if r["batch"] == batch], "resolution")
    _axes(ax, f"Batch of {batch}", "resolution, pixels", [r["resolution"] for r in rows])
    ax.set_yscale("log")
    ax.legend()


def _over_batch(ax: Axes, training: Measured) -> None:
    rows = training["rates"]
    side = _fixed(rows, "batch", "resolution")
    shown = [r for r in rows if r["resolution"] == side]
    _lines(ax, shown, "batch")
    _axes(ax, f"{side} x {side} pixels", "batch, images", [r["batch"] for r in shown])
    ax.set_ylim(bottom=0)
    ax.legend(loc="lower right")


def _over_processes(ax: Axes, training: Measured) -> None:
    rows = training["processes"]
    rates = [(r["processes"], *_rate(r)) for r in rows]
    _line(ax, rates, "teacher", *_LOOKS["teacher"])
    _ideal(ax, rates)
    _axes(ax, f"One batch of {rows[0]['batch']}", "processes", [r[0] for r in rates])


def _fixed(rows: Sequence[Measured], along: str, held: str) -> int:
    """The value of ``held`` at which ``along`` takes most values."""
    values = {r[held]: len({q[along] for q in rows if q[held] == r[held]}) for r in rows}
    return int(max(values, key=lambda value: values[value]))


def _lines(ax: Axes, rows: Sequence[Measured], along: str) -> None:
    for step, (colour, marker) in _LOOKS.items():
        rates = sorted((r[along], *_rate(r)) for r in rows if r["step"] == step)
        _line(ax, rates, step, colour, marker)


def _line(ax: Axes, rates: Rates, label: str, colour: str, marker: str) -> None:
    x, middle, low, high = (list(column) for column in zip(*rates, strict=True))
    below = [m - v for m, v in zip(middle, low, strict=True)]
    above = [v - m for m, v in zip(middle, high, strict=True)]
    ax.errorbar(
        x, middle, yerr=[below, above], label=label, color=colour, marker=marker, markersize=4,
        linewidth=1.2, capsize=2,
    )  # fmt: skip


def _ideal(ax: Axes, rates: Rates) -> None:
    """What each further one would add if it did as much as the first."""
    x = [r[0] for r in rates]
    ax.plot(x, [v * rates[0][1] for v in x], color=BLACK, linestyle="--", linewidth=0.8,
            label="proportional")  # fmt: skip
    ax.set_ylim(bottom=0)
    ax.legend(loc="lower right")


def _axes(ax: Axes, title: str, across: str, ticks: Iterable[int]) -> None:
    places = sorted(set(ticks))
    ax.set_xscale("log", base=2)
    ax.set_xticks(places, [str(v) for v in places])
    ax.set_xticks([], minor=True)
    ax.set_title(title)
    ax.set_xlabel(across)
    ax.set_ylabel("images/s")


def _rate(row: Measured) -> tuple[float, float, float]:
    return _cut_rate(row, row["batch"])


def _cut_rate(row: Measured, images: int) -> tuple[float, float, float]:
    """Images a second: median, lowest, highest."""
    seconds = row["seconds"]
    middle, low, high = statistics.median(seconds), max(seconds), min(seconds)
    return images / middle, images / low, images / high


def _cells(rate: tuple[float, float, float]) -> str:
    middle, low, high = (f"{v:,.1f}" for v in rate)
    return f"{middle} ({low} to {high})"


def _table(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def _where(training: Measured) -> str:
    found = training["machine"]
    device = found["gpu"] or f"no GPU, {found['threads']} threads"
    return (
        f"{found['processor']}, {found['cores']} cores, {device}; {_versions(found['versions'])}."
    )


def _versions(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items() if version)


def _load(training: Measured, part: str) -> str:
    return f"Load at the start {training['load'][part]}."


def _settings(found: dict[str, Any]) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in found.items())


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 105, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    main()
