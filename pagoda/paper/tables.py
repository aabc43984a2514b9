"""The paper's tables: published rows from CSV, measured rows from results, never in one column.

A column is a metric under one protocol. Published figures share the column of their metric, as
their sources print them; a measured value stands in the column of its protocol, even where both
measure the same thing, because evaluators differ. A cell without a value stays empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pagoda.paper.published import PRIMARY, USER, Published
from pagoda.paper.runs import Run
from pagoda.report.document import Cell, Table
from pagoda.report.experiment import Row
from pagoda.report.results import DISTANCES, METRICS, generator_label, number, value_cell

_MARKS = {PRIMARY: "", "secondary": "†", USER: "‡"}
_ARROWS = {"FID": "↓", "FD-DINOv2": "↓", "IS": "↑", "Recall": "↑", "Precision": "↑"}
_GUIDANCE_ORDER = {"no": 0, "": 1, "yes": 2}
_KEY = (
    "† quoted by others than the authors; ‡ from a user's own file; empty: nobody could source it; "
    "two values in a cell: the sources differ. Guidance and NFE as the sources print them, empty "
    "where they do not say."
)
_SCALED = (
    "**Scaled-down runs** are marked so: other data, sizes and features than the paper's. Their "
    "columns name their own protocols and cannot be set against published columns."
)


@dataclass
class Line:
    """One row in the making: its first cells and the values by column."""

    head: tuple[str, ...]
    rank: tuple[object, ...] = ()
    cells: dict[str, list[Cell]] = field(default_factory=dict)

    def add(self, column: str, cell: Cell) -> None:
        """Put a value into a column; equal texts of several sources become one."""
        self.cells.setdefault(column, []).append(cell)

    def cell(self, column: str) -> Cell:
        """All values of a column as one cell."""
        found = self.cells.get(column, [])
        texts = list(dict.fromkeys(c.text for c in found))
        return Cell(" / ".join(texts), "; ".join(dict.fromkeys(c.title for c in found)))


class Columns:
    """Names of measured columns: values that do not compare get different ones.

    A protocol's name holds metric, features and n. Two profiles can use one name for features and
    reference sets of their own; then the name of the profile, and if that is not enough the
    reference's fingerprint, tells them apart.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._held: dict[tuple[str, int], dict[tuple[str, str], set[str]]] = {}
        for run in runs:
            for row in run.rows:
                by_reference = self._held.setdefault((row.protocol, row.resolution), {})
                by_reference.setdefault((row.reference, row.features), set()).add(run.profile)

    def name(self, label: str, run: Run, row: Row) -> str:
        """Name of the column for a row of a run."""
        held = self._held[row.protocol, row.resolution]
        more = "" if len(held) == 1 else f", {run.profile}"
        if sum(run.profile in profiles for profiles in held.values()) > 1:
            more += f", reference {row.reference[:6]}, features {row.features[:6]}"
        return f"{label} `{row.protocol}`{more}"


def imagenet_table(published: Sequence[Published], runs: Sequence[Run], resolution: int) -> Table:
    """FID, IS, recall and NFE at one resolution of ImageNet, with and without guidance."""
    rows = [p for p in published if p.table == "table1_imagenet" and p.resolution == resolution]
    return _method_table(
        rows, ("FID", "IS", "Recall", "Precision"), runs, resolution,
        f"**ImageNet {resolution}×{resolution}**, class-conditional, as published: FID, inception "
        "score, recall and precision over 50,000 images by the evaluator of each source.",
    )  # fmt: skip


def dino_table(published: Sequence[Published], runs: Sequence[Run], resolution: int) -> Table:
    """FID and FD-DINOv2 at 64 or 512."""
    name = {64: "table6_fddino64", 512: "table7_fddino512"}[resolution]
    rows = [p for p in published if p.table == name]
    paper = next(p for p in published if p.method == "PaGoDA" and p.resolution == resolution)
    return _method_table(
        [*rows, paper], ("FID", "FD-DINOv2"), runs, resolution,
        f"**FD-DINOv2 at {resolution}×{resolution}**: Fréchet distance in DINOv2 features, "
        "50,000 images.",
    )  # fmt: skip


def one_step_table(published: Sequence[Published], resolution: int) -> Table:
    """One-step generators of ImageNet published since, with PaGoDA among them."""
    groups = {f"in{resolution}_onestep", f"in{resolution}"}
    rows = [p for p in published if p.resolution == resolution and p.dataset == "ImageNet"
            and p.metric in ("FID", "IS", "Recall")
            and (p.table in groups or (p.table == "table1_imagenet" and p.method == "PaGoDA"))
            and p.nfe in ("1", "1x2")]  # fmt: skip
    return _method_table(
        rows, ("FID", "IS", "Recall"), (), resolution,
        f"**One-step generators on ImageNet {resolution}×{resolution}** as published, ordered by "
        "FID. Not all are comparable: some use guidance, some train on the features they are "
        "measured in.",
    )  # fmt: skip


def base_resolution_table(published: Sequence[Published], runs: Sequence[Run]) -> Table:
    """Distance at every resolution, by the resolution of the teacher."""
    paper = [p for p in published if p.method == "PaGoDA" and p.metric == "FID"
             and p.table in ("table1_imagenet", "leaderboard")]  # fmt: skip
    lines = []
    for base, sizes in ((64, {64, 128, 256, 512}), (32, {32})):
        line = Line((f"PaGoDA, base {base}", "published, full size", "", ""))
        for p in paper:
            if p.resolution in sizes:
                line.add(f"FID {p.resolution}×{p.resolution} ↓", published_cell(p))
        lines.append(line)
    columns = Columns(runs)
    for run in runs:
        line = Line((run.label, _size(run), _seconds(run), _nfe(run.main(run.resolutions[-1]))))
        for row in _distances(run):
            label = f"FD {row.resolution}×{row.resolution} ↓"
            line.add(columns.name(label, run, row), value_cell(row))
        lines.append(line)
    caption = (
        "**Base resolution.** The same target from teachers of different resolutions: distance at "
        "every resolution on the way, NFE of the last generator, training seconds of all stages on "
        f"the run's own machine. {_KEY} {_SCALED} {_origins(runs)}"
    )
    return _table(caption, ("Run", "Size", "Training s", "NFE"), lines)


def upsampling_table(published: Sequence[Published], runs: Sequence[Run]) -> Table:
    """From the base to the target, against EDM2's step from pixels at 64 to latents at 512."""
    ladder = {"EDM2 (pixel)": "EDM2", "EDM2 (latent)": "EDM2"}
    lines: dict[str, Line] = {}
    for p in (p for p in published if p.table == "table3_upsampling"):
        name = ladder.get(p.method, p.method)
        line = lines.setdefault(name, Line((name, "published, full size", "64 → 512")))
        line.add("FID at the base ↓" if p.resolution == 64 else "FID at the target ↓",
                 published_cell(p))  # fmt: skip
    measured, columns = [], Columns(runs)
    for run in (r for r in runs if len(r.resolutions) > 1):
        ends = run.resolutions[0], run.resolutions[-1]
        line = Line((run.label, _size(run), f"{ends[0]} → {ends[1]}"))
        for row in _distances(run):
            if row.resolution in ends:
                where = "base" if row.resolution == ends[0] else "target"
                line.add(columns.name(f"FD at the {where} ↓", run, row), value_cell(row))
        measured.append(line)
    caption = (
        "**Upsampling**: distance at the resolution of the diffusion model and after the way up. "
        f"EDM2 goes from a pixel model at 64 to a latent model at 512. {_KEY} {_SCALED} "
        f"Distances at two resolutions have two reference sets. {_origins(runs)}"
    )
    return _table(caption, ("Method", "Size", "Resolutions"), [*lines.values(), *measured])


def measured_table(runs: Sequence[Run], resolution: int) -> Table:
    """What was run at a resolution of one profile: every main generator, teacher and floor."""
    lines, columns = [], Columns(runs)
    for run in (r for r in runs if resolution in r.resolutions):
        main = run.main(resolution)
        names = {r.generator for r in main} | {"teacher", "real"}
        rows = [r for r in run.rows if r.resolution == resolution and r.generator in names]
        found = sorted({r.generator for r in rows})
        lines += [_measured_line(run, name, rows, columns) for name in found]
    lines.sort(key=lambda line: line.rank)
    caption = (
        f"**Measured at {resolution}×{resolution}**, {_data(runs)}. {_SCALED} Each value's n, "
        "seed, reference, features, code and device show on hover and stand in `results.csv`. "
        f"{_origins(runs)}"
    )
    return _table(caption, ("Run", "Size", "Generator", "NFE", "n"), lines)


def published_cell(p: Published) -> Cell:
    """A published value, marked by its grade; the source on hover."""
    return Cell(f"{p.value:g}{_MARKS[p.grade]}", f"{p.metric} {p.value:g}, {p.grade}: {p.source}")


def _method_table(
    rows: Sequence[Published],
    metrics: Sequence[str],
    runs: Sequence[Run],
    resolution: int,
    caption: str,
) -> Table:
    lines: dict[tuple[str, str, str], Line] = {}
    for p in rows:
        name = f"**{p.method}**" if p.method == "PaGoDA" else p.method
        line = lines.setdefault(
            (p.method, p.guidance, p.nfe), Line((name, "published", p.guidance, p.nfe))
        )
        line.add(f"{p.metric} {_ARROWS[p.metric]}", published_cell(p))
        if p.params_millions is not None:
            line.add("Params, M", Cell(f"{p.params_millions:g}", p.source))
    best = f"{metrics[0]} {_ARROWS[metrics[0]]}"
    ordered = sorted(lines.values(), key=lambda line: _published_rank(line, best))
    measured, named = [], Columns(runs)
    for run in (r for r in runs if r.full_size and resolution in r.resolutions):
        main = run.main(resolution)
        line = Line((f"**{run.label}**", "measured here", "no", _nfe(main)))
        for row in main:
            line.add(named.name(METRICS.get(row.metric, row.metric), run, row), value_cell(row))
        measured.append(line)
    columns = [f"{m} {_ARROWS[m]}" for m in metrics]
    note = "" if measured else " No full-size run was measured here."
    return _table(f"{caption}{note} {_KEY}", ("Method", "Row", "Guidance", "NFE"),
                  [*ordered, *measured], columns)  # fmt: skip


def _published_rank(line: Line, column: str) -> tuple[int, float, str]:
    values = [float(c.text.rstrip("†‡")) for c in line.cells.get(column, [])]
    return (_GUIDANCE_ORDER.get(line.head[2], 2), min(values, default=math.inf), line.head[0])


def _measured_line(run: Run, name: str, rows: Sequence[Row], columns: Columns) -> Line:
    own = [r for r in rows if r.generator == name]
    counts = ", ".join(f"{n:,}" for n in sorted({r.n for r in own}))
    order = {"teacher": 0, "student": 1, "grown": 1, "real": 2}[name]
    head = (run.label, _size(run), generator_label(name), _nfe(own), counts)
    line = Line(head, (run.profile, run.base_res, -1 if run.seed is None else run.seed, order))
    for row in own:
        line.add(columns.name(METRICS.get(row.metric, row.metric), run, row), value_cell(row))
    return line


def _table(
    caption: str, head: Sequence[str], lines: Sequence[Line], first: Iterable[str] = ()
) -> Table:
    columns = list(dict.fromkeys([*first, *(c for line in lines for c in line.cells)]))
    used = [i for i, _ in enumerate(head) if i == 0 or any(line.head[i] for line in lines)]
    rows = tuple(
        (*(Cell(line.head[i]) for i in used), *(line.cell(c) for c in columns)) for line in lines
    )
    header = (*(head[i] for i in used), *columns)
    text = {"Method", "Run", "Row", "Size", "Guidance", "Generator", "Resolutions"}
    return Table(caption, header, rows, "".join("l" if h in text else "r" for h in header))


def _distances(run: Run) -> list[Row]:
    rows = [row for res in run.resolutions for row in run.main(res)]
    return [row for row in rows if row.metric in DISTANCES]


def _size(run: Run) -> str:
    return f"measured, {'full size' if run.full_size else 'scaled down'}"


def _data(runs: Sequence[Run]) -> str:
    return "; ".join(
        dict.fromkeys(f"`{run.profile}`: {run.data or 'data unknown'}" for run in runs)
    )


def _seconds(run: Run) -> str:
    return "" if run.train_seconds is None else number(run.train_seconds)


def _nfe(rows: Sequence[Row]) -> str:
    return ", ".join(dict.fromkeys("–" if r.nfe is None else str(r.nfe) for r in rows))


def _origins(runs: Sequence[Run]) -> str:
    facts: list[tuple[str, Callable[[Run], Iterable[object]]]] = [
        ("Runs", lambda run: [run.origin]),
        ("code", lambda run: [f"`{row.revision}`" for row in run.rows]),
        ("evaluation seed", lambda run: [row.seed for row in run.rows]),
        ("n", lambda run: [f"{row.n:,}" for row in run.rows]),
    ]
    parts = [
        f"{name} {', '.join(dict.fromkeys(str(v) for run in runs for v in values(run)))}"
        for name, values in facts
    ]
    return f"{'; '.join(parts)}." if runs else "Nothing was run."
