"""The paper's tables: published rows from CSV, measured rows from results, never in one column.

A column is a metric under one protocol. Published figures share the column of their metric, as
their sources print them; a measured value stands in the column of its protocol, even where both
measure the same thing, because evaluators differ. A cell without a value stays empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pagoda.results.blocks import Cell, Grid, Line, Table, table
from pagoda.results.labels import (
    DISTANCES,
    generator_label,
    generator_order,
    metric_label,
    size_label,
)
from pagoda.results.numbers import SPREAD, listed, number, value_cell
from pagoda.results.published import PRIMARY, SECONDARY, USER, Published
from pagoda.results.runs import Run
from pagoda.rows import Row

SIZES = (64, 128, 256, 512)
_MARKS = {PRIMARY: "", SECONDARY: "†", USER: "‡"}
_GRADES = "".join(_MARKS.values())
_ARROWS = {"FID": "↓", "FD-DINOv2": "↓", "IS": "↑", "Recall": "↑", "Precision": "↑"}
_GUIDANCE = {"no": 0, "": 1, "yes": 2}
_LEFT = ("Method", "Row", "Guidance", "Generator", "Resolution", "Resolutions", "Way up")
_KEY = (
    "† quoted by others than the authors; ‡ from a user's own file; empty: nobody could source it; "
    "two values in a cell: the sources differ. Guidance and NFE as the sources print them, empty "
    "where they do not say. Numbers of sources: the table of sources."
)
_BELOW = f"{_KEY} Scaled-down runs have tables of their own below."
_SCALED = (
    "**Scaled down**: other data, sizes and features than the paper's; columns name their own "
    "protocols and cannot be set against published ones. "
)


class Paper:
    """Published figures, the numbers of their sources, and full-size runs beside them."""

    def __init__(self, published: Sequence[Published], runs: Sequence[Run] = ()) -> None:
        self.published, self.runs = published, [run for run in runs if run.full_size]
        sources = dict.fromkeys(p.source for p in published)
        self.numbers = {source: i for i, source in enumerate(sources, 1)}

    def tables(self) -> dict[str, Table]:
        """Every table of published figures by the name of its files."""
        return {
            **{f"imagenet-{size}": self.imagenet(size) for size in SIZES},
            **{f"fd-dinov2-{size}": self.dino(size) for size in (64, 512)},
            "base-resolution": self.base_resolution(),
            "upsampling": self.upsampling(),
            "growth-baselines": self.growth_baselines(),
            **{f"one-step-{size}": self.one_step(size) for size in SIZES},
        }

    def sources(self) -> Table:
        """Every source once."""
        rows = [
            (
                str(i),
                source,
                ", ".join(sorted({p.grade for p in self.published if p.source == source})),
            )
            for source, i in self.numbers.items()
        ]
        caption = (
            "**Sources** of the published figures, data in `reports/published/`. Primary: the "
            "method's authors; secondary: quoted by others; user: a user's own file."
        )
        return table(caption, ("No.", "Source", "Grade"), rows, "rll")

    def imagenet(self, size: int) -> Table:
        """FID, IS, recall and NFE at one resolution of ImageNet, with and without guidance."""
        rows = [p for p in self._of("table1_imagenet") if p.resolution == size]
        return self._methods(
            rows, ("FID", "IS", "Recall", "Precision"), size,
            f"**ImageNet {size}×{size}**, class-conditional, published, full size: FID, inception "
            "score, recall and precision over 50,000 images by the evaluator of each source.",
        )  # fmt: skip

    def dino(self, size: int) -> Table:
        """FID and FD-DINOv2 at 64 or 512."""
        rows = self._of({64: "table6_fddino64", 512: "table7_fddino512"}[size])
        ours = next(p for p in self.published if p.method == "PaGoDA" and p.resolution == size)
        return self._methods(
            [*rows, ours], ("FID", "FD-DINOv2"), size,
            f"**FD-DINOv2 at {size}×{size}**, published, full size: Fréchet distance in DINOv2 "
            "features, 50,000 images.",
        )  # fmt: skip

    def one_step(self, size: int) -> Table:
        """One-step generators of ImageNet published since, with PaGoDA among them."""
        since = self._of(f"in{size}_onestep", f"in{size}")
        ours = [p for p in self._of("table1_imagenet") if p.method == "PaGoDA"]
        shown = ("FID", "IS", "Recall")
        rows = [
            p for p in self.published if p in [*since, *ours] and p.resolution == size
            and p.dataset == "ImageNet" and p.metric in shown and p.nfe in ("1", "1x2")
        ]  # fmt: skip
        return self._methods(
            rows, shown, 0,
            f"**One-step generators on ImageNet {size}×{size}**, published, full size, ordered by "
            "guidance and FID. Not all are comparable: some use guidance, some train on the "
            "features they are measured in.",
        )  # fmt: skip

    def base_resolution(self) -> Table:
        """The paper's distance at every resolution, by the resolution of the teacher."""
        grid = Grid("Method")
        for base in (64, 32):
            grid.line(f"PaGoDA, base {base}")
        for p in (p for p in self.published if p.metric == "FID"):
            name = p.method
            if name == "PaGoDA" and p.table in ("table1_imagenet", "leaderboard"):
                name = f"PaGoDA, base {32 if p.resolution == 32 else 64}"
            elif p.table != "table2_base_resolution":
                continue
            self._add(grid.line(name), f"FID {p.resolution}×{p.resolution} ↓", p)
        return grid.table(
            "**Base resolution**, published, full size: the paper's FID at every resolution on the "
            f"way from its base. {_BELOW}",
            [f"FID {size}×{size} ↓" for size in (32, *SIZES)], _LEFT, _joined,
        )  # fmt: skip

    def upsampling(self) -> Table:
        """From 64 to 512, against EDM2's step from pixels at 64 to latents at 512."""
        grid = Grid("Method", "Resolutions")
        for p in self._of("table3_upsampling"):
            name = "EDM2" if p.method in ("EDM2 (pixel)", "EDM2 (latent)") else p.method
            where = "base" if p.resolution == 64 else "target"
            self._add(grid.line(name, "64 → 512"), f"FID at the {where} ↓", p)
        return grid.table(
            "**Upsampling**, published, full size: distance at the resolution of the diffusion "
            "model and after the way up. EDM2 goes from a pixel model at 64 to a latent model at "
            f"512. {_BELOW}", (), _LEFT, _joined,
        )  # fmt: skip

    def growth_baselines(self) -> Table:
        """One generator grown to every resolution, against those of figures 4 and 7."""
        named = {"PaGoDA": "table1_imagenet", "StyleGAN-XL": "fig4_styleganxl", "CDM": "fig7_cdm"}
        sizes, grid = (16, 32, *SIZES), Grid("Method")
        for name, of in named.items():
            line = grid.line(name)
            for p in self._of(of):
                if p.metric == "FID" and p.method == name and p.resolution in sizes:
                    self._add(line, f"FID {p.resolution}×{p.resolution} ↓", p)
        return grid.table(
            "**Growth against adversarial growing and a cascade** (figures 4 and 7), published, "
            f"full size: ImageNet, FID at every resolution. {_KEY} The study of other ways to grow "
            "has the scaled-down comparison.",
            [f"FID {size}×{size} ↓" for size in sizes], _LEFT, _joined,
        )  # fmt: skip

    def _of(self, *tables: str) -> list[Published]:
        return [p for p in self.published if p.table in tables]

    def _add(self, line: Line, column: str, p: Published) -> None:
        """A value, marked by its grade, with its source on hover and beside the line."""
        title = f"{p.metric} {p.value:g}, {p.grade}: {p.source}"
        line.add(column, Cell(f"{p.value:g}{_MARKS[p.grade]}", title))
        line.sources.add(self.numbers[p.source])

    def _methods(
        self, rows: Sequence[Published], metrics: Sequence[str], size: int, caption: str
    ) -> Table:
        """A line a method, guidance and NFE; below them full-size runs measured at ``size``."""
        best = f"{metrics[0]} {_ARROWS[metrics[0]]}"
        measured = [run for run in self.runs if size in run.resolutions]
        made = Grid("Method", "Row" if measured else "", "Guidance", "NFE")
        for p in rows:
            name = f"**{p.method}**" if p.method == "PaGoDA" else p.method
            line = made.line(name, "published", p.guidance, p.nfe)
            self._add(line, f"{p.metric} {_ARROWS[p.metric]}", p)
            if p.params_millions is not None:
                line.add("Params, M", Cell(f"{p.params_millions:g}", p.source))
        lines = _without_doubles(list(made.lines.values()), best)
        made.lines = {line.head: line for line in sorted(lines, key=lambda v: _rank(v, best))}
        columns = Columns(measured)
        for run in measured:
            main = run.main(size)
            line = made.line(f"**{run.label}**", "measured here", "no", _nfe(main))
            for row in main:
                line.add(columns.name(run, row), value_cell(row))
        note = "" if measured else " No full-size run was measured here."
        told = [f"{m} {_ARROWS[m]}" for m in metrics]
        return made.table(f"{caption}{note} {_KEY}", told, _LEFT, _joined)


def _shown(line: Line, column: str) -> set[str]:
    """Numbers of a column, without marks."""
    return {c.text.rstrip(_GRADES) for c in line.cells.get(column, [])}


def _rank(line: Line, best: str) -> tuple[int, float, str]:
    values = [float(text) for text in _shown(line, best)]
    return _GUIDANCE.get(line.head[2], 2), min(values, default=math.inf), line.head[0]


def _joined(cells: list[Cell]) -> Cell:
    """All values as one cell; of one value in two grades, the authors' own."""
    plain = {c.text for c in cells if c.text == c.text.rstrip(_GRADES)}
    texts = [t for t in dict.fromkeys(c.text for c in cells)
             if t in plain or t.rstrip(_GRADES) not in plain]  # fmt: skip
    return Cell(" / ".join(texts), listed((c.title for c in cells), "; "))


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
            for cell in cells:
                others[0].add(column, cell)
        others[0].sources |= line.sources
    return kept


class Columns:
    """Names of measured columns: values that do not compare get different ones.

    A protocol's name holds metric, features and n. Two profiles can use one name for features and
    reference sets of their own; then the name of the profile, and if that is not enough the
    reference's fingerprint, tells them apart.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._held: dict[tuple[str, int], dict[tuple[str, str], set[str]]] = {}
        for run in runs:
            for row in run.rows:
                by_reference = self._held.setdefault((row.protocol, row.size), {})
                by_reference.setdefault((row.reference, row.features), set()).add(run.profile)

    def name(self, run: Run, row: Row, label: str = "") -> str:
        """Name of the column for a row of a run."""
        held = self._held[row.protocol, row.size]
        more = "" if len(held) == 1 else f", {run.profile}"
        if sum(run.profile in profiles for profiles in held.values()) > 1:
            more += f", reference {row.reference[:6]}, features {row.features[:6]}"
        return f"{label or metric_label(row.metric)} `{row.protocol}`{more}"


def measured_tables(runs: Sequence[Run]) -> dict[str, Table]:
    """What was run on each profile, by the name of its files."""
    made = {}
    for profile in dict.fromkeys(run.profile for run in runs):
        own = [run for run in runs if run.profile == profile]
        made[f"measured-{profile}"] = measured_table(own)
        made[f"base-resolution-{profile}"] = way_up_table(own)
    return made


def way_up_table(runs: Sequence[Run]) -> Table:
    """From base to target as measured on one profile, by base: growth and plain upsampling."""
    grid = Grid("Run", "Resolutions", "Way up", "NFE", optional=("Run",))
    columns = Columns(runs)
    for run in sorted(runs, key=lambda r: (r.base_res, _seed(r))):
        ladder = f"{run.resolutions[0]} → {run.resolutions[-1]}"
        main = [r for size in run.resolutions for r in run.main(size)]
        plain = [r for r in run.rows if r.generator == "upsampled_base"]
        ways = {"teacher, student, growth": main, generator_label("upsampled_base").lower(): plain}
        for who, rows in ways.items():
            rows = [r for r in rows if r.metric in DISTANCES]
            if not rows:
                continue
            key = run.profile, run.base_res, run.facts.seed, run.origin, who
            line = grid.line(run.label, ladder, who, _nfe(rows), key=key)
            if (seconds := run.facts.train_seconds) is not None and rows[
                0
            ].generator != "upsampled_base":
                told = f"{seconds!r} s of all stages; {run.origin.replace('`', '')}"
                line.add("Training s", Cell(number(seconds), told))
            for row in rows:
                label = f"{row.metric.upper()} {row.resolution}×{row.resolution} ↓"
                line.add(columns.name(run, row, label), value_cell(row))
    return grid.table(
        f"**From base to target, measured here, {_sizes(runs)}**, {_data(runs)}: Fréchet distance "
        "at every resolution, each against real images of its own; NFE of the generator, seconds "
        f"of all training stages on the run's machine. {_scaled(runs)}{_origins(runs)}", (), _LEFT,
    )  # fmt: skip


def measured_table(runs: Sequence[Run]) -> Table:
    """What was run on one profile: main generators, teacher and floor at every resolution."""
    grid = Grid("Run", "Resolution", "Generator", "NFE", "n", optional=("Run",))
    columns = Columns(runs)
    shown = ("teacher", "student", "grown", "real")
    for run in sorted(runs, key=lambda r: (r.profile, r.base_res, _seed(r))):
        for size in run.resolutions:
            rows = [r for r in run.rows if r.resolution == size and r.generator in shown]
            for name in sorted({r.generator for r in rows}, key=generator_order):
                own = [r for r in rows if r.generator == name]
                counts = ", ".join(f"{n:,}" for n in sorted({r.n for r in own}))
                line = grid.line(run.label, f"{size}×{size}", generator_label(name), _nfe(own),
                                 counts, key=(run.label, run.origin, size, name))  # fmt: skip
                for row in own:
                    line.add(columns.name(run, row), value_cell(row))
    caption = (
        f"**Measured here, {_sizes(runs)}**, {_data(runs)}. {_scaled(runs)}Values at two "
        "resolutions have two reference sets. One training seed a run, so no interval. Each "
        "value's n, seed, reference, features, code and device show on hover and stand in "
        f"`results.csv`. {_origins(runs)}"
    )
    spread = any(row.sd is not None for run in runs for row in run.rows)
    return grid.table(caption + SPREAD * spread, (), _LEFT)


def _seed(run: Run) -> int:
    return -1 if run.facts.seed is None else run.facts.seed


def _sizes(runs: Sequence[Run]) -> str:
    return listed(size_label(run.profile) for run in runs)


def _scaled(runs: Sequence[Run]) -> str:
    return "" if all(run.full_size for run in runs) else _SCALED


def _data(runs: Sequence[Run]) -> str:
    return listed((f"`{r.profile}`: {r.facts.data or 'data unknown'}" for r in runs), "; ")


def _nfe(rows: Sequence[Row]) -> str:
    return listed("–" if r.nfe is None else r.nfe for r in rows)


def _origins(runs: Sequence[Run]) -> str:
    rows = [row for run in runs for row in run.rows]
    return (
        f"Runs {listed(run.origin for run in runs)}; "
        f"code {listed(f'`{r.revision}`' for r in rows)}; "
        f"evaluation seed {listed(r.seed for r in rows)}; n {listed(f'{r.n:,}' for r in rows)}."
    )
