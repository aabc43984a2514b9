"""Measured values as tables, CSV and ``metrics.json``; provenance goes with every number."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable
from typing import Any

from pagoda.evaluation.metrics.base import labels
from pagoda.report.document import Cell, Table
from pagoda.report.experiment import Evaluation, Experiment, Row

# In the order of a table's rows. The main generator is "student" at the base, "grown" above it.
GENERATORS = {
    "teacher": "Diffusion teacher",
    "student": "One-step student",
    "grown": "Grown generator",
    "ungrown": "Grown, new blocks untrained",
    "upsampled_base": "Student, bilinear upsampling",
    "untrained_teacher_weights": "Teacher's weights in one step",
    "untrained": "Untrained generator",
    "real": "Real images, held out (floor)",
}
METRICS = labels()
DISTANCES = ("fd", "fid")
"""Metrics that are Fréchet distances of pooled features."""

SPREAD = " ±: standard deviation over the subsets or splits of the protocol."
"""Of a caption, where a value has one."""

FULL_SIZE = frozenset({"imagenet", "official"})
"""Profiles of the paper's own data and networks."""


def size_label(profile: str) -> str:
    """``full size`` or ``scaled down``, which every measured value is labelled with."""
    return "full size" if profile in FULL_SIZE else "scaled down"


def generator_label(name: str) -> str:
    """Reader's name of a generator."""
    return GENERATORS.get(name, name.replace("_", " ").capitalize())


def number(value: float) -> str:
    """Three significant digits, thousands separated: 6.13, 20.8, 1,887."""
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def spread(value: float, sd: float | None) -> str:
    """A value, with its deviation over subsets or splits if it has one: 8.21 ± 0.104."""
    return number(value) + ("" if sd is None else f" ± {number(sd)}")


def short(fingerprint: str) -> str:
    """First digits of a fingerprint, as code."""
    return f"`{fingerprint[:10]}`"


def provenance(rows: Iterable[Row]) -> str:
    """One sentence a fact: seed, reference set, feature network, code, device."""
    rows = list(rows)
    parts = [
        f"{_plural('Seed', {r.seed for r in rows})} {_listed(r.seed for r in rows)}.",
        f"Held against {'; '.join(_references(rows))}.",
        f"Features {_listed(short(r.features) for r in rows)}.",
        f"Code {_listed(f'`{r.revision}`' for r in rows)}, on {_listed(r.device for r in rows)}.",
    ]
    return " ".join(parts)


def _references(rows: list[Row]) -> list[str]:
    """Each reference set once: its size, and the metrics that use fewer of its images."""
    texts = []
    for size, fingerprint in sorted({(r.resolution, r.reference) for r in rows}):
        metrics: dict[int, dict[str, None]] = {}
        for row in rows:
            if (row.resolution, row.reference) == (size, fingerprint):
                metrics.setdefault(row.reference_n, {})[row.metric.replace("_", " ")] = None
        most, *fewer = sorted(metrics, reverse=True)
        text = f"{most:,} real images at {size}×{size} ({short(fingerprint)})"
        texts.append(text + "".join(f", {' and '.join(metrics[n])} {n:,} of them" for n in fewer))
    return texts


def distance_protocols(experiment: Experiment) -> list[str]:
    """Protocols of Fréchet distances under which a main generator was measured."""
    return sorted({r.protocol for r in main_rows(experiment) if r.metric in DISTANCES})


def main_rows(experiment: Experiment) -> list[Row]:
    """Values of the main generator of every resolution."""
    return [r for e in experiment.evaluations.values() for r in e.rows if r.generator == e.main]


def results_table(evaluation: Evaluation) -> Table:
    """Every generator at one resolution; a column holds one metric under one protocol."""
    rows, res = evaluation.rows, evaluation.resolution
    columns = sorted({(r.metric, r.protocol) for r in rows}, key=_metric_order)
    values = {(_line_of(r), (r.metric, r.protocol)): r for r in rows}
    lines = sorted({_line_of(r) for r in rows}, key=lambda line: _generator_order(line[0]))
    seeds = len({r.seed for r in rows}) > 1
    header = ["Generator", "NFE", "n"] + ["Seed"] * seeds
    table = []
    for line in lines:
        generator, nfe, n, seed = line
        label = generator_label(generator)
        cells = [Cell(f"**{label}**" if generator == evaluation.main else label)]
        cells += [Cell("–" if nfe < 0 else str(nfe)), Cell(f"{n:,}")] + [Cell(str(seed))] * seeds
        cells += [value_cell(values.get((line, column))) for column in columns]
        table.append(tuple(cells))
    header += [f"{METRICS.get(m, m)} `{p}`" for m, p in columns]
    align = "l" + "r" * (len(header) - 1)
    caption = (
        f"**Results at {res}×{res}.** NFE: network evaluations an image; n: images a generator. "
        f"{provenance(rows)}"
    ) + SPREAD * any(r.sd is not None for r in rows)
    return Table(caption, tuple(header), tuple(table), align)


def results_csv(experiment: Experiment) -> str:
    """All rows, unrounded, one value a line with its provenance."""
    names = [f.name for f in dataclasses.fields(Row)]
    if all(row.sd is None for row in experiment.rows):
        names.remove("sd")
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in experiment.rows)
    return stream.getvalue()


def metrics_tree(experiment: Experiment) -> dict[str, Any]:
    """``metrics.json``: what ``dvc metrics diff`` and ``dvc exp show`` line up.

    ``final`` holds the generator at the target resolution, ``student`` the one at the base
    resolution, ``resolution`` the main generator of each, keyed by four digits. The names are
    protocols, so that values of different protocols stay in different columns.
    """
    main = {
        f"{r:04d}": {row.protocol: row.value for row in e.rows if row.generator == e.main}
        for r, e in experiment.evaluations.items()
    }
    config = experiment.config
    return {
        "final": main[f"{config.target_res:04d}"],
        "student": main[f"{config.base_res:04d}"],
        "resolution": main,
    }


def value_cell(row: Row | None) -> Cell:
    """A value to three digits, its provenance on hover; empty where there is none."""
    if row is None:
        return Cell("")
    title = (
        f"{row.protocol} = {row.value!r}; n {row.n}, seed {row.seed}, NFE {row.nfe}, "
        f"{row.resolution}×{row.resolution}; reference {row.reference[:10]} (n {row.reference_n}), "
        f"features {row.features[:10]}; code {row.revision}; {row.device}"
    )
    return Cell(spread(row.value, row.sd), title)


def _line_of(row: Row) -> tuple[str, int, int, int]:
    return row.generator, -1 if row.nfe is None else row.nfe, row.n, row.seed


def _generator_order(name: str) -> tuple[int, str]:
    order = list(GENERATORS)
    return order.index(name) if name in order else len(order) - 1, name


def _metric_order(column: tuple[str, str]) -> tuple[int, str, str]:
    order = list(METRICS)
    return order.index(column[0]) if column[0] in order else len(order), *column


def _listed(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(v) for v in values))


def _plural(word: str, values: set[Any]) -> str:
    return word if len(values) == 1 else word + "s"


def pick(rows: Iterable[Row], test: Callable[[Row], bool]) -> Row | None:
    """The one row that passes; None if there is none.

    Raises:
        ValueError: if several pass, as a rule over an ambiguous value would mean nothing.
    """
    found = [row for row in rows if test(row)]
    if len(found) > 1:
        raise ValueError(f"{len(found)} rows where one was expected: {found[0]}")
    return found[0] if found else None
