"""What a study leaves for the report: ``reports/<profile>/studies/<study>/``.

The folder holds ``results.csv`` (a :class:`~pagoda.rows.Row` a line, sorted, so that equal results
give equal files), ``study.json`` (a :class:`StudyCard`) and the PNGs that it names. It is all that
tables, figures, the claims ledger and MLflow know of a study, so it stands in git and the report
can be made again without the study's artifacts. Any metric is welcome. Rules pair values by variant
and training seed. A teacher that several variants share may stand under a variant of its own with
their place on the axis.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pagoda import rows as files
from pagoda.errors import PagodaError
from pagoda.results.blocks import Figure, figure_tree
from pagoda.results.labels import REAL, TOTALS
from pagoda.rows import Row, grouped

RESULTS, CARD = "results.csv", "study.json"
AS_METRICS = ("nfe", "images_seen", "train_flops", "train_seconds")
"""Columns that are metrics of their own, too."""

EXACT = frozenset({"nfe", "images_seen", "train_flops", "stage_flops", "total_flops",
                   "sampling_flops", "parameters", "held_networks", "held_parameters",
                   "held_memory"})  # fmt: skip
"""Counts: the same for every seed, so one seed is enough to know them."""

_ORDER = (
    "variant", "axis", "training_seed", "base_res", "resolution", "generator", "nfe", "metric",
    "protocol", "value", "n", "seed", "reference",
)  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """A signature of failure that runs of a variant show in growth to a resolution."""

    variant: str
    resolution: int
    signature: str
    seeds: int  # that show it
    of: int  # that were run


@dataclass(frozen=True)
class StudyCard:
    """What a study is about."""

    study: str  # the folder in experiments/
    title: str
    question: str  # one sentence
    rule: str  # what decides, one sentence
    profile: str  # it ran at
    data: str  # the images, one sentence
    revision: str  # code of the run
    axis_label: str  # what Row.axis is, with its unit; empty without a numeric axis
    axis_log: bool  # draw that axis logarithmically
    axis_metric: str  # metric of the teacher to draw on the horizontal axis instead; or empty
    variants: dict[str, str]  # reader's name of each, in the order of the tables
    series: dict[str, str] = field(default_factory=dict)  # curve of the figure, by variant
    metrics: tuple[str, ...] = ()  # to draw and tabulate first
    failures: tuple[Failure, ...] = ()
    figures: tuple[Figure, ...] = ()  # in the study's folder


@dataclass(frozen=True)
class StudyResults:
    """A study that ran: its card, its rows and where they were read from."""

    card: StudyCard
    rows: tuple[Row, ...]
    folder: Path

    def with_derived(self) -> StudyResults:
        """With columns and sums over stages as rows; what was measured under such a name stays."""
        measured = {row.metric for row in self.rows}
        made = [row for row in _derived(self.rows) if row.metric not in measured]
        return dataclasses.replace(self, rows=(*self.rows, *made))

    def teachers_of(self, row: Row) -> Sequence[Row]:
        """The teachers' metric of the axis, in the features of a row or, if it has none, in the
        first.
        """
        known = (
            r for r in self.rows if r.generator == "teacher" and r.metric == self.card.axis_metric
        )
        found = grouped(known, lambda r: r.protocol)
        first: Sequence[Row] = next(iter(found.values()), ())
        alike = (rows for rows in found.values() if rows[0].features == row.features)
        return found.get(row.protocol) or next(alike, first)


def study_folder(profile: str, study: str, reports: Path = Path("reports")) -> Path:
    """``reports/<profile>/studies/<study>``."""
    return reports / profile / "studies" / study


def write_study(folder: Path, card: StudyCard, rows: Iterable[Row]) -> None:
    """Write ``results.csv`` and ``study.json``; pictures are the caller's.

    Raises:
        PagodaError: if a row names a variant that the card lacks, or a value is not finite.
    """

    def key(row: Row) -> tuple[str, ...]:
        values = [getattr(row, name) for name in _ORDER]
        return tuple("" if v is None else repr(v) if type(v) is float else str(v) for v in values)

    lines = {key(row): row for row in rows}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_text(files.to_csv(r for _, r in sorted(lines.items())), "utf-8")
    text = json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False) + "\n"
    (folder / CARD).write_text(text, "utf-8")
    read_study(folder)


def read_study(folder: Path) -> StudyResults:
    """Read and check a study's folder.

    Raises:
        PagodaError: one line for what is missing or damaged.
    """
    path = folder / RESULTS
    try:
        card = _card(folder / CARD)
        rows = files.from_csv(files.read_text(path), str(path))
        for number, row in enumerate(rows, 2):
            if row.value is None or row.training_seed is None or not row.resolution:
                raise PagodaError(f"{path}, line {number} lacks value, training_seed or resolution")
            if row.variant not in card.variants:
                raise PagodaError(f"{path}: variant {row.variant!r} is not in {CARD}")
    except PagodaError as error:
        raise PagodaError(f"{error}; run the study again") from error
    return StudyResults(card, tuple(rows), folder)


def find_studies(reports: Path = Path("reports")) -> list[StudyResults]:
    """Every study below ``reports``, by profile and name."""
    return [read_study(card.parent) for card in sorted(reports.glob(f"*/studies/*/{CARD}"))]


def _card(path: Path) -> StudyCard:
    try:
        tree = json.loads(files.read_text(path))
    except (ValueError, RecursionError) as error:
        raise PagodaError(f"{path} is not JSON ({error})") from error
    card: StudyCard = _build(StudyCard, tree, str(path))
    kinds = {"axis_log": bool, "variants": dict, "series": dict, "metrics": list, "failures": list,
             "figures": list}  # fmt: skip
    for name, value in vars(card).items():
        if not isinstance(value, kind := kinds.get(name, str)):
            raise PagodaError(f"{path}: {name} = {value!r} is no {kind.__name__}")
    return dataclasses.replace(
        card,
        metrics=tuple(map(str, card.metrics)),
        failures=tuple(_build(Failure, found, f"{path}, failures") for found in card.failures),
        figures=tuple(
            _build(Figure, figure_tree(found), f"{path}, figures") for found in card.figures
        ),
    )


def _build(kind: type, tree: Any, where: str) -> Any:
    """An instance of a dataclass from a mapping of exactly its fields."""
    if not isinstance(tree, dict):
        raise PagodaError(f"{where} is not a mapping")
    if wrong := {f.name for f in dataclasses.fields(kind)} ^ set(tree):
        raise PagodaError(f"{where}: missing or unknown entries: {', '.join(sorted(wrong))}")
    return kind(**tree)


def _derived(rows: Sequence[Row]) -> list[Row]:
    """Columns as metrics, and sums over stages; an enlarged student's training is its student's."""
    found: dict[tuple[object, ...], Row] = {}
    unmade = {"none", *REAL}
    for row in rows:
        for name in AS_METRICS:
            value = getattr(row, name)
            enlarged = row.generator == "upsampled_base" and name != "nfe"
            if value is not None and row.generator not in unmade and not enlarged:
                key = row.variant, row.training_seed, row.generator, row.resolution, name
                found[key] = _bare(row, name, float(value))
    stages = (r for r in rows if r.metric in TOTALS)
    for group, own in grouped(stages, lambda r: (r.variant, r.training_seed, r.metric)).items():
        last = max(own, key=lambda r: r.size)
        found[group] = _bare(last, TOTALS[last.metric], sum(r.number for r in own))
    return list(found.values())


def _bare(row: Row, name: str, value: float) -> Row:
    """A quantity that no reference and no features enter."""
    return dataclasses.replace(
        row, metric=name, protocol=name, value=value, n=1, seed=None, reference="",
        reference_n=None, features="",
    )  # fmt: skip
