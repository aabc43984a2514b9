"""The paper's tables: published rows from CSV, measured rows from results, never in one column.

A column is a metric under one protocol. Published figures share the column of their metric, as
their sources print them; a measured value stands in the column of its protocol, even where both
measure the same thing, because evaluators differ. A cell without a value stays empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pagoda.results.document import Cell, Table
from pagoda.results.experiment import Row
from pagoda.results.measured import (
    DISTANCES,
    METRICS,
    SPREAD,
    generator_label,
    number,
    size_label,
    value_cell,
)  # fmt: skip
from pagoda.results.published import PRIMARY, USER, Published
from pagoda.results.runs import Run

_MARKS = {PRIMARY: "", "secondary": "†", USER: "‡"}
_GRADES = "".join(_MARKS.values())
_ARROWS = {"FID": "↓", "FD-DINOv2": "↓", "IS": "↑", "Recall": "↑", "Precision": "↑"}
_GUIDANCE_ORDER = {"no": 0, "": 1, "yes": 2}
_KEY = (
    "† quoted by others than the authors; ‡ from a user's own file; empty: nobody could source it; "
    "two values in a cell: the sources differ. Guidance and NFE as the sources print them, empty "
    "where they do not say. Numbers of sources: the table of sources."
)
_SCALED = (
    "**Scaled down**: other data, sizes and features than the paper's; columns name their own "
    "protocols and cannot be set against published ones."
)


class Sources:
    """Numbers of the places that published figures were read from."""

    def __init__(self, published: Sequence[Published]) -> None:
        self._all = list(dict.fromkeys((p.source, p.grade) for p in published))
        self._number = {s: i for i, s in enumerate(dict.fromkeys(s for s, _ in self._all), 1)}

    def __getitem__(self, source: str) -> int:
        return self._number[source]

    def table(self) -> Table:
        """Every source once."""
        grades = {s: [g for name, g in self._all if name == s] for s in self._number}
        rows = tuple(
            (Cell(str(i)), Cell(source), Cell(", ".join(sorted(grades[source]))))
            for source, i in self._number.items()
        )
        caption = (
            "**Sources** of the published figures, data in `reports/published/`. Primary: the "
            "method's authors; secondary: quoted by others; user: a user's own file."
        )
        return Table(caption, ("No.", "Source", "Grade"), rows, "rll")


@dataclass
class Line:
    """One row in the making: its first cells and the values by column."""

    head: tuple[str, ...]
    rank: tuple[object, ...] = ()
    sources: list[int] = field(default_factory=list)
    cells: dict[str, list[Cell]] = field(default_factory=dict)

    def add(self, column: str, cell: Cell) -> None:
        """Put a value into a column; equal texts of several sources become one."""
        self.cells.setdefault(column, []).append(cell)

    def add_published(self, column: str, p: Published, sources: Sources) -> None:
        """Put a published value into a column and its source beside the line."""
        self.add(column, published_cell(p))
        if (number := sources[p.source]) not in self.sources:
            self.sources.append(number)

    def shown(self, column: str) -> set[str]:
        """Numbers of a column, without marks."""
        return {c.text.rstrip(_GRADES) for c in self.cells.get(column, [])}

    def cell(self, column: str) -> Cell:
        """All values of a column as one cell; of one value in two grades, the authors' own."""
        found = self.cells.get(column, [])
        plain = {c.text for c in found if c.text == c.text.rstrip(_GRADES)}
        texts = [t for t in dict.fromkeys(c.text for c in found)
                 if t in plain or t.rstrip(_GRADES) not in plain]  # fmt: skip
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


def imagenet_table(
    published: Sequence[Published], runs: Sequence[Run], resolution: int, sources: Sources
) -> Table:
    """FID, IS, recall and NFE at one resolution of ImageNet, with and without guidance."""
    rows = [p for p in published if p.table == "table1_imagenet" and p.resolution == resolution]
    return _method_table(
        rows, ("FID", "IS", "Recall", "Precision"), runs, resolution, sources,
        f"**ImageNet {resolution}×{resolution}**, class-conditional, published, full size: FID, "
        "inception score, recall and precision over 50,000 images by the evaluator of each source.",
    )  # fmt: skip


def dino_table(
    published: Sequence[Published], runs: Sequence[Run], resolution: int, sources: Sources
) -> Table:
    """FID and FD-DINOv2 at 64 or 512."""
    name = {64: "table6_fddino64", 512: "table7_fddino512"}[resolution]
    rows = [p for p in published if p.table == name]
    paper = next(p for p in published if p.method == "PaGoDA" and p.resolution == resolution)
    return _method_table(
        [*rows, paper], ("FID", "FD-DINOv2"), runs, resolution, sources,
        f"**FD-DINOv2 at {resolution}×{resolution}**, published, full size: Fréchet distance in "
        "DINOv2 features, 50,000 images.",
    )  # fmt: skip


def one_step_table(published: Sequence[Published], resolution: int, sources: Sources) -> Table:
    """One-step generators of ImageNet published since, with PaGoDA among them."""
    groups = {f"in{resolution}_onestep", f"in{resolution}"}
    rows = [p for p in published if p.resolution == resolution and p.dataset == "ImageNet"
            and p.metric in ("FID", "IS", "Recall")
            and (p.table in groups or (p.table == "table1_imagenet" and p.method == "PaGoDA"))
            and p.nfe in ("1", "1x2")]  # fmt: skip
    return _method_table(
        rows, ("FID", "IS", "Recall"), (), resolution, sources,
        f"**One-step generators on ImageNet {resolution}×{resolution}**, published, full size, "
        "ordered by guidance and FID. Not all are comparable: some use guidance, some train on the "
        "features they are measured in.",
    )  # fmt: skip


def base_resolution_table(published: Sequence[Published], sources: Sources) -> Table:
    """The paper's distance at every resolution, by the resolution of the teacher."""
    lines = {f"PaGoDA, base {base}": Line((f"PaGoDA, base {base}",)) for base in (64, 32)}
    for p in (p for p in published if p.metric == "FID"):
        name = p.method
        if name == "PaGoDA" and p.table in ("table1_imagenet", "leaderboard"):
            name = f"PaGoDA, base {32 if p.resolution == 32 else 64}"
        elif p.table != "table2_base_resolution":
            continue
        line = lines.setdefault(name, Line((name,)))
        line.add_published(f"FID {p.resolution}×{p.resolution} ↓", p, sources)
    columns = [f"FID {size}×{size} ↓" for size in (32, 64, 128, 256, 512)]
    caption = (
        "**Base resolution**, published, full size: the paper's FID at every resolution on the way "
        f"from its base. {_KEY} Scaled-down runs have tables of their own below."
    )
    return _table(caption, ("Method",), list(lines.values()), columns)


def upsampling_table(published: Sequence[Published], sources: Sources) -> Table:
    """From 64 to 512, against EDM2's step from pixels at 64 to latents at 512."""
    ladder = {"EDM2 (pixel)": "EDM2", "EDM2 (latent)": "EDM2"}
    lines: dict[str, Line] = {}
    for p in (p for p in published if p.table == "table3_upsampling"):
        name = ladder.get(p.method, p.method)
        line = lines.setdefault(name, Line((name, "64 → 512")))
        where = "base" if p.resolution == 64 else "target"
        line.add_published(f"FID at the {where} ↓", p, sources)
    caption = (
        "**Upsampling**, published, full size: distance at the resolution of the diffusion model "
        "and after the way up. EDM2 goes from a pixel model at 64 to a latent model at 512. "
        f"{_KEY} Scaled-down runs have tables of their own below."
    )
    return _table(caption, ("Method", "Resolutions"), list(lines.values()))


def growth_baselines_table(published: Sequence[Published], sources: Sources) -> Table:
    """One generator grown to every resolution, against those of figures 4 and 7."""
    named = {"fig4_styleganxl": "StyleGAN-XL", "fig7_cdm": "CDM", "table1_imagenet": "PaGoDA"}
    sizes = (16, 32, 64, 128, 256, 512)
    lines = {name: Line((name,)) for name in ("PaGoDA", "StyleGAN-XL", "CDM")}
    for size in sizes:
        for p in published:
            same = p.metric == "FID" and p.resolution == size and named.get(p.table) == p.method
            if same:
                lines[p.method].add_published(f"FID {size}×{size} ↓", p, sources)
    caption = (
        "**Growth against adversarial growing and a cascade** (figures 4 and 7), published, full "
        f"size: ImageNet, FID at every resolution. {_KEY} The study of other ways to grow has the "
        "scaled-down comparison."
    )
    return _table(caption, ("Method",), list(lines.values()), [f"FID {s}×{s} ↓" for s in sizes])


def way_up_table(runs: Sequence[Run]) -> Table:
    """From base to target as measured on one profile, by base: growth and plain upsampling."""
    lines, columns = [], Columns(runs)
    for run in sorted(runs, key=lambda r: (r.base_res, -1 if r.seed is None else r.seed)):
        for name in ("", "upsampled_base"):
            ladder = f"{run.resolutions[0]} → {run.resolutions[-1]}"
            rows = [r for r in run.rows if r.metric in DISTANCES and r.generator == name]
            rows = rows if name else _distances(run)
            who = "teacher, student, growth" if not name else generator_label(name).lower()
            line = Line((run.label, ladder, who, _nfe(rows)))
            if run.train_seconds is not None and not name:
                told = f"{run.train_seconds!r} s of all stages; {run.origin.replace('`', '')}"
                line.add("Training s", Cell(number(run.train_seconds), told))
            for row in rows:
                label = f"{row.metric.upper()} {row.resolution}×{row.resolution} ↓"
                line.add(columns.name(label, run, row), value_cell(row))
            lines += [line] * bool(rows)
    caption = (
        f"**From base to target, measured here, {_sizes(runs)}**, {_data(runs)}: Fréchet distance "
        "at every resolution, each against real images of its own; NFE of the generator, seconds "
        f"of all training stages on the run's machine. {_scaled(runs)}{_origins(runs)}"
    )
    return _table(caption, ("Run", "Resolutions", "Way up", "NFE"), lines)


def measured_table(runs: Sequence[Run]) -> Table:
    """What was run on one profile: main generators, teacher and floor at every resolution."""
    lines, columns = [], Columns(runs)
    for run in runs:
        for resolution in run.resolutions:
            main = run.main(resolution)
            names = {r.generator for r in main} | {"teacher", "real"}
            rows = [r for r in run.rows if r.resolution == resolution and r.generator in names]
            found = sorted({r.generator for r in rows})
            lines += [_measured_line(run, name, rows, columns) for name in found]
    lines.sort(key=lambda line: line.rank)
    caption = (
        f"**Measured here, {_sizes(runs)}**, {_data(runs)}. {_scaled(runs)}Values at two "
        "resolutions have two reference sets. One training seed a run, so no interval. Each "
        "value's n, seed, reference, features, code and device show on hover and stand in "
        f"`results.csv`. {_origins(runs)}"
        + SPREAD
        * any(row.sd is not None for run in runs for row in run.rows)
    )
    return _table(caption, ("Run", "Resolution", "Generator", "NFE", "n"), lines)


def published_cell(p: Published) -> Cell:
    """A published value, marked by its grade; the source on hover."""
    return Cell(f"{p.value:g}{_MARKS[p.grade]}", f"{p.metric} {p.value:g}, {p.grade}: {p.source}")


def _method_table(
    rows: Sequence[Published],
    metrics: Sequence[str],
    runs: Sequence[Run],
    resolution: int,
    sources: Sources,
    caption: str,
) -> Table:
    lines: dict[tuple[str, str, str], Line] = {}
    for p in rows:
        name = f"**{p.method}**" if p.method == "PaGoDA" else p.method
        line = lines.setdefault(
            (p.method, p.guidance, p.nfe), Line((name, "published", p.guidance, p.nfe))
        )
        line.add_published(f"{p.metric} {_ARROWS[p.metric]}", p, sources)
        if p.params_millions is not None:
            line.add("Params, M", Cell(f"{p.params_millions:g}", p.source))
    best = f"{metrics[0]} {_ARROWS[metrics[0]]}"
    joined = _joined(lines, best)
    ordered = sorted(joined, key=lambda line: _published_rank(line, best))
    measured, named = [], Columns(runs)
    for run in (r for r in runs if r.full_size and resolution in r.resolutions):
        main = run.main(resolution)
        line = Line((f"**{run.label}**", "measured here", "no", _nfe(main)))
        for row in main:
            line.add(named.name(METRICS.get(row.metric, row.metric), run, row), value_cell(row))
        measured.append(line)
    columns = [f"{m} {_ARROWS[m]}" for m in metrics]
    note = "" if measured else " No full-size run was measured here."
    head = ("Method", "Row" if measured else "", "Guidance", "NFE")
    return _table(f"{caption}{note} {_KEY}", head, [*ordered, *measured], columns)


def _joined(lines: Mapping[tuple[str, str, str], Line], best: str) -> list[Line]:
    """One line for a method that one source prints with NFE and another without, if its FID agrees.

    A line without NFE joins the only line of the same method and guidance that has it, where both
    show the same first metric.
    """
    kept = dict(lines)
    for (method, guidance, nfe), line in lines.items():
        others = [k for k in kept if k[:2] == (method, guidance) and k[2]]
        if nfe or len(others) != 1:
            continue
        other = kept[others[0]]
        if not line.shown(best) or line.shown(best) != other.shown(best):
            continue
        for column, cells in line.cells.items():
            for cell in cells:
                other.add(column, cell)
        other.sources += [s for s in line.sources if s not in other.sources]
        del kept[method, guidance, nfe]
    return list(kept.values())


def _published_rank(line: Line, column: str) -> tuple[int, float, str]:
    values = [float(c.text.rstrip(_GRADES)) for c in line.cells.get(column, [])]
    return (_GUIDANCE_ORDER.get(line.head[2], 2), min(values, default=math.inf), line.head[0])


def _measured_line(run: Run, name: str, rows: Sequence[Row], columns: Columns) -> Line:
    own = [r for r in rows if r.generator == name]
    counts = ", ".join(f"{n:,}" for n in sorted({r.n for r in own}))
    order = {"teacher": 0, "student": 1, "grown": 1, "real": 2}[name]
    size = own[0].resolution
    head = (run.label, f"{size}×{size}", generator_label(name), _nfe(own), counts)
    seed = -1 if run.seed is None else run.seed
    line = Line(head, (run.profile, run.base_res, seed, size, order))
    for row in own:
        line.add(columns.name(METRICS.get(row.metric, row.metric), run, row), value_cell(row))
    return line


def _table(
    caption: str, head: Sequence[str], lines: Sequence[Line], first: Iterable[str] = ()
) -> Table:
    """Leading columns and columns of values that have anything, then sources.

    A leading column "Run" that says the same everywhere is left to the caption.
    """
    columns = list(dict.fromkeys([*first, *(c for line in lines for c in line.cells)]))
    used = [i for i, name in enumerate(head) if name and any(line.head[i] for line in lines)
            and (name != "Run" or len({line.head[i] for line in lines}) > 1)]  # fmt: skip
    cited = any(line.sources for line in lines)
    rows = tuple(
        (
            *(Cell(line.head[i]) for i in used),
            *(line.cell(c) for c in columns),
            *([Cell(", ".join(map(str, sorted(line.sources))))] if cited else []),
        )
        for line in lines
    )
    header = (*(head[i] for i in used), *columns, *(["Source"] if cited else []))
    text = {"Method", "Run", "Row", "Guidance", "Generator", "Resolution", "Resolutions", "Way up"}
    return Table(caption, header, rows, "".join("l" if h in text else "r" for h in header))


def _distances(run: Run) -> list[Row]:
    rows = [row for res in run.resolutions for row in run.main(res)]
    return [row for row in rows if row.metric in DISTANCES]


def _sizes(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(size_label(run.profile) for run in runs))


def _scaled(runs: Sequence[Run]) -> str:
    return "" if all(run.full_size for run in runs) else f"{_SCALED} "


def _data(runs: Sequence[Run]) -> str:
    return "; ".join(
        dict.fromkeys(f"`{run.profile}`: {run.data or 'data unknown'}" for run in runs)
    )


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
