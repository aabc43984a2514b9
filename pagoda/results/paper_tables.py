"""The paper's tables: published rows from CSV, measured rows from results, never in one column.

A column is a metric under one protocol. Published figures share the column of their metric, as
their sources print them; a measured value stands in the column of its protocol, even where both
measure the same thing, because evaluators differ. A cell without a value stays empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from pagoda.results import labels
from pagoda.results.blocks import Cell, Grid, Line, Table, table
from pagoda.results.numbers import SPREAD, listed, number, value_cell
from pagoda.results.published import PRIMARY, SECONDARY, USER, Published
from pagoda.results.runs import Run
from pagoda.rows import Row, grouped

SIZES = (64, 128, 256, 512)
_MARKS = {PRIMARY: "", SECONDARY: "†", USER: "‡"}
_GRADES = "".join(_MARKS.values())
_ARROWS = {"FID": "↓", "FD-DINOv2": "↓", "IS": "↑", "Recall": "↑", "Precision": "↑"}
_TRAINED_ON_IT = "FID itself is the loss"  # as a source says
KEY = (
    "† quoted by others than the authors; ‡ from a user's own file; empty: nobody could source it; "
    "two values in a cell: the sources differ. Guidance and NFE as the sources print them, empty "
    "where they do not say. Numbers of sources: the table of sources."
)
_BELOW = f"{KEY} Scaled-down runs have tables of their own below."
_SCALED = (
    "**Scaled down**: other data, sizes and features than the paper's; columns name their own "
    "protocols and cannot be set against published ones. "
)
_EDM2 = ("EDM2 (pixel)", "EDM2 (latent)")
_GROWN = {"PaGoDA": "table1_imagenet", "StyleGAN-XL": "fig4_styleganxl", "CDM": "fig7_cdm"}
_METHODS = {
    "imagenet": (
        "**ImageNet {0}×{0}**, class-conditional, published, full size: FID, inception score, "
        "recall and precision over 50,000 images by the evaluator of each source; ordered by FID."
    ),
    "fd-dinov2": (
        "**FD-DINOv2 at {0}×{0}**, published, full size: Fréchet distance in DINOv2 features, "
        "50,000 images; ordered by it."
    ),
    "one-step": (
        "**One-step generators on ImageNet {0}×{0}**, published, full size, ordered by FID; "
        "FD-DINOv2 and precision where a source has them. Not all are comparable: some "
        "use guidance, some train on the features they are measured in."
    ),
}
_SIZED = {
    "base-resolution": (
        "**Base resolution**, published, full size: the paper's FID at every resolution on the way "
        f"from its base. {_BELOW}"
    ),
    "upsampling": (
        "**Upsampling**, published, full size: distance at the resolution of the diffusion model "
        "and after the way up. EDM2 goes from a pixel model at 64 to a latent model at 512. "
        f"{_BELOW}"
    ),
    "growth-baselines": (
        "**Growth against adversarial growing and a cascade** (figures 4 and 7), published, full "
        f"size: ImageNet, FID at every resolution. {KEY} The study of other ways to grow has the "
        "scaled-down comparison."
    ),
}


class Paper:
    """Published figures, the numbers of their sources, and full-size runs beside them."""

    def __init__(self, published: Sequence[Published], runs: Sequence[Run] = ()) -> None:
        self.published, self.runs = published, [run for run in runs if run.full_size]
        self.sources = {s: i for i, s in enumerate(dict.fromkeys(p.source for p in published), 1)}

    def tables(self) -> dict[str, Table]:
        """Every table of published figures by the name of its files."""
        main = self._of("table1_imagenet")
        one, fid = ("FID", "IS", "Recall"), ("FID", "FD-DINOv2")
        made = {
            f"imagenet-{size}": self._methods(
                "imagenet", size, [p for p in main if p.resolution == size], (*one, "Precision")
            )
            for size in SIZES
        }
        for size, name in ((64, "table6_fddino64"), (512, "table7_fddino512")):
            ours = [p for p in self.published if p.method == "PaGoDA" and p.resolution == size]
            rows = [*self._of(name), *ours[:1]]
            # Others' rows since, but for those that the paper's table has by another name.
            told = {p.value for p in rows if p.metric == "FD-DINOv2"}
            rows += [p for p in self._of(f"in{size}_onestep", f"in{size}_multistep")
                     if p.metric == "FD-DINOv2" and p.value not in told]  # fmt: skip
            made[f"fd-dinov2-{size}"] = self._methods("fd-dinov2", size, rows, fid)
        made |= {name: grid.table(_SIZED[name], map(_fid, sizes))
                 for name, grid, sizes in self._ways()}  # fmt: skip
        for size in SIZES:
            rows = [p for p in self._one_step(size) if p.metric in (*one, "Precision", "FD-DINOv2")]
            made[f"one-step-{size}"] = self._methods("one-step", size, rows, one)
        return made

    def _one_step(self, size: int) -> list[Published]:
        """Rows of one evaluation an image on ImageNet: PaGoDA's, and those of the years since."""
        since = self._of(f"in{size}_onestep", f"in{size}")
        ours = [p for p in self._of("table1_imagenet") if p.method == "PaGoDA"]
        return [
            p for p in self.published
            if (p in since or p in ours) and p.resolution == size
            and p.dataset == "ImageNet" and p.nfe in ("1", "1x2")
        ]  # fmt: skip

    def records(self) -> list[str]:
        """Of every resolution, which published one-step FIDs are below PaGoDA's, lowest first."""
        return [text for size in SIZES if (text := self._record(size))]

    def _record(self, size: int) -> str:
        rows = [p for p in self._one_step(size) if p.metric == "FID"]
        ours = min((p.value for p in rows if p.method == "PaGoDA"), default=None)
        if ours is None:
            return ""
        below = sorted((p for p in rows if p.value < ours), key=lambda p: (p.value, p.grade))
        named = dict.fromkeys(
            f"{p.method} {p.value:g}{_MARKS[p.grade]}"
            + (" (trained on the distance itself)" if _TRAINED_ON_IT in p.source else "")
            for p in below
        )
        if not named:
            return f"**{size}×{size}**: no one-step FID here is below PaGoDA's {ours:g}."
        return (
            f"**{size}×{size}**: PaGoDA's {ours:g} is no longer the lowest one-step FID. "
            f"Below it: {listed(named, '; ')}."
        )

    def source_table(self) -> Table:
        """Every source once."""
        grades = grouped(self.published, lambda p: p.source)
        rows = [
            (str(i), source, ", ".join(sorted({p.grade for p in grades[source]})))
            for source, i in self.sources.items()
        ]
        caption = (
            "**Sources** of the published figures, data in `reports/published/`. Primary: the "
            "method's authors; secondary: quoted by others; user: a user's own file."
        )
        return table(caption, ("No.", "Source", "Grade"), rows, "rll")

    def _of(self, *tables: str) -> list[Published]:
        return [p for p in self.published if p.table in tables]

    def add(self, line: Line, column: str, p: Published) -> None:
        """A value, marked by its grade, with its source on hover and beside the line."""
        title = f"{p.metric} {p.value:g}, {p.grade}: {p.source}"
        line.add(column, Cell(f"{p.value:g}{_MARKS[p.grade]}", title))
        line.sources.add(self.sources[p.source])

    def _ways(self) -> Iterator[tuple[str, Grid, tuple[int, ...]]]:
        """Name, filled grid and resolutions of the tables by method and resolution."""
        grid, sizes = Grid("Method", joined=joined), (32, *SIZES)
        bases = [grid.line(f"PaGoDA, base {base}") for base in (64, 32)]
        for p in (p for p in self.published if p.metric == "FID"):
            if p.method == "PaGoDA" and p.table in ("table1_imagenet", "leaderboard"):
                self.add(bases[p.resolution == 32], _fid(p.resolution), p)
            elif p.table == "table2_base_resolution":
                self.add(grid.line(p.method), _fid(p.resolution), p)
        yield "base-resolution", grid, sizes
        grid = Grid("Method", "Resolutions", joined=joined)
        for p in self._of("table3_upsampling"):
            line = grid.line("EDM2" if p.method in _EDM2 else p.method, "64 → 512")
            self.add(line, f"FID at the {'base' if p.resolution == 64 else 'target'} ↓", p)
        yield "upsampling", grid, ()
        grid = Grid("Method", joined=joined)
        for method, name in _GROWN.items():
            line = grid.line(method)
            for p in self._of(name):
                if p.metric == "FID" and p.method == method and p.resolution in (16, *sizes):
                    self.add(line, _fid(p.resolution), p)
        yield "growth-baselines", grid, (16, *sizes)

    def _methods(
        self, name: str, size: int, rows: Sequence[Published], metrics: Sequence[str]
    ) -> Table:
        """A line a method, guidance and NFE; below them full-size runs measured at ``size``."""
        told = [f"{metric} {_ARROWS[metric]}" for metric in metrics]
        runs = [run for run in self.runs if size in run.resolutions and name != "one-step"]
        made = Grid("Method", "Row" if runs else "", "Guidance", "NFE", joined=joined)
        for p in rows:
            method = f"**{p.method}**" if p.method == "PaGoDA" else p.method
            line = made.line(method, "published", p.guidance, p.nfe)
            self.add(line, f"{p.metric} {_ARROWS[p.metric]}", p)
            if p.params_millions is not None:
                line.add("Params, M", Cell(f"{p.params_millions:g}", p.source))
        lines = _without_doubles(list(made.lines.values()), told[0])
        made.lines = {line.head: line for line in sorted(lines, key=lambda v: _rank(v, told[0]))}
        name_of = _column_names(runs)
        for run in runs:
            main = run.main(size)
            line = made.line(f"**{run.label}**", "measured here", "no", _nfe(main))
            for row in main:
                line.add(name_of(run, row), value_cell(row))
        note = "" if runs else " No full-size run was measured here."
        return made.table(f"{_METHODS[name].format(size)}{note} {KEY}", told)


def _fid(size: int | None) -> str:
    return f"FID {size}×{size} ↓"


def _shown(line: Line, column: str) -> set[str]:
    """Numbers of a column, without marks."""
    return {c.text.rstrip(_GRADES) for c in line.cells.get(column, [])}


def _rank(line: Line, best: str) -> tuple[float, str]:
    """By the first metric, whatever the guidance: most sources do not say theirs."""
    values = [float(text) for text in _shown(line, best)]
    return min(values, default=math.inf), line.head[0]


def joined(cells: list[Cell]) -> Cell:
    """All values as one cell; of one value in two grades, the authors' own."""
    plain = {c.text for c in cells if c.text == c.text.rstrip(_GRADES)}
    texts = [c.text for c in cells if c.text in plain or c.text.rstrip(_GRADES) not in plain]
    return Cell(listed(texts, " / "), listed((c.title for c in cells), "; "))


def _without_doubles(lines: Sequence[Line], best: str) -> list[Line]:
    """One line for a method that one source prints with NFE and another without.

    A line without NFE joins the only line of the same method and guidance that has it, where both
    show the same first metric.
    """
    kept = []
    for line in lines:
        others = [o for o in lines if o.head[:3] == line.head[:3] and o.head[3]]
        alike = len(others) == 1 and _shown(line, best) == _shown(others[0], best) != set()
        if line.head[3] or not alike:
            kept.append(line)
            continue
        for column, cells in line.cells.items():
            others[0].add(column, *cells)
        others[0].sources |= line.sources
    return kept


def _column_names(runs: Iterable[Run]) -> Callable[..., str]:
    """Names of measured columns, by run and row: values that do not compare get different ones.

    A protocol's name holds metric, features and n. Two profiles can use one name for features and
    reference sets of their own; then the name of the profile, and if that is not enough the
    reference's fingerprint, tells them apart.
    """
    held: dict[tuple[str, int], dict[tuple[str, str], set[str]]] = {}
    for run in runs:
        for row in run.rows:
            by_reference = held.setdefault((row.protocol, row.size), {})
            by_reference.setdefault((row.reference, row.features), set()).add(run.profile)

    def name(run: Run, row: Row, label: str = "") -> str:
        alike = held[row.protocol, row.size].values()
        more = "" if len(alike) == 1 else f", {run.profile}"
        if sum(run.profile in profiles for profiles in alike) > 1:
            more += f", reference {row.reference[:6]}, features {row.features[:6]}"
        return f"{label or labels.metric_label(row.metric)} `{row.protocol}`{more}"

    return name


def measured_tables(runs: Sequence[Run]) -> dict[str, Table]:
    """What was run on each profile, by the name of its files."""
    made = {}
    for profile, own in grouped(runs, lambda run: run.profile).items():
        made[f"measured-{profile}"] = measured_table(own)
        made[f"base-resolution-{profile}"] = way_up_table(own)
    return made


def way_up_table(runs: Sequence[Run]) -> Table:
    """From base to target as measured on one profile, by base: growth and plain upsampling."""
    grid = Grid("Run", "Resolutions", "Way up", "NFE", optional=("Run",))
    name_of = _column_names(runs)
    for run in sorted(runs, key=_order):
        ladder = f"{run.resolutions[0]} → {run.resolutions[-1]}"
        main = [r for size in run.resolutions for r in run.main(size)]
        plain = [r for r in run.rows if r.generator == "upsampled_base"]
        ways = {"teacher, student, growth": main,
                labels.generator_within("upsampled_base"): plain}  # fmt: skip
        for who, found in ways.items():
            rows = [r for r in found if r.metric in labels.DISTANCES]
            if not rows:
                continue
            key = run.profile, run.base_res, run.facts.seed, run.origin, who
            line = grid.line(run.label, ladder, who, _nfe(rows), key=key)
            if (seconds := run.facts.train_seconds) is not None and found is main:
                told = f"{seconds!r} s of all stages; {run.origin.replace('`', '')}"
                line.add("Training s", Cell(number(seconds), told))
            for row in rows:
                label = f"{row.metric.upper()} {row.resolution}×{row.resolution} ↓"
                line.add(name_of(run, row, label), value_cell(row))
    what, scaled, origins = _facts(runs)
    return grid.table(
        f"**From base to target, {what}: Fréchet distance at every resolution, each against real "
        "images of its own; NFE of the generator, seconds of all training stages on the run's "
        f"machine. {scaled}{origins}"
    )


def measured_table(runs: Sequence[Run]) -> Table:
    """What was run on one profile: main generators, teacher and floor at every resolution."""
    grid = Grid("Run", "Resolution", "Generator", "NFE", "n", optional=("Run",))
    name_of = _column_names(runs)
    shown = ("teacher", "student", "grown", "real")
    for run in sorted(runs, key=_order):
        rows = [r for r in run.rows if r.generator in shown and r.resolution]
        places = grouped(rows, lambda r: (r.size, r.generator))
        for size, name in sorted(places, key=lambda p: (p[0], labels.generator_order(p[1]))):
            own = places[size, name]
            head = (run.label, f"{size}×{size}", labels.generator_label(name), _nfe(own),
                    ", ".join(f"{n:,}" for n in sorted({r.n for r in own})))  # fmt: skip
            line = grid.line(*head, key=(run.label, run.origin, size, name))
            for row in own:
                line.add(name_of(run, row), value_cell(row))
    what, scaled, origins = _facts(runs)
    spread = any(row.sd is not None for run in runs for row in run.rows)
    return grid.table(
        f"**{what[0].upper()}{what[1:]}. {scaled}Values at two resolutions have two reference "
        "sets. One training seed a run, so no interval. Each value's n, seed, reference, features, "
        f"code and device show on hover and stand in `results.csv`. {origins}{SPREAD * spread}"
    )


def _order(run: Run) -> tuple[str, int, int]:
    seed = run.facts.seed
    return run.profile, run.base_res, -1 if seed is None else seed


def _nfe(rows: Sequence[Row]) -> str:
    return listed("–" if r.nfe is None else r.nfe for r in rows)


def _facts(runs: Sequence[Run]) -> tuple[str, str, str]:
    """What ran on which data, how it compares with the paper, and where it was read."""
    rows = [row for run in runs for row in run.rows]
    sizes = listed(labels.size_label(run.profile) for run in runs)
    data = listed((f"`{r.profile}`: {r.facts.data or 'data unknown'}" for r in runs), "; ")
    origins = (
        f"Runs {listed(run.origin for run in runs)}; "
        f"code {listed(f'`{r.revision}`' for r in rows)}; "
        f"evaluation seed {listed(r.seed for r in rows)}; n {listed(f'{r.n:,}' for r in rows)}."
    )
    scaled = "" if all(run.full_size for run in runs) else _SCALED
    return f"measured here, {sizes}**, {data}", scaled, origins
