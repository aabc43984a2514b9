"""Rows that follow from a study's rows: columns as metrics, and sums over stages."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

from pagoda.results.studies import StudyResults, StudyRow

COLUMNS = ("nfe", "images_seen", "train_flops", "train_seconds")
TOTALS = {"stage_flops": "total_flops", "stage_seconds": "total_seconds"}
# A count: the same for every seed, so one seed is enough to know it.
EXACT = frozenset(
    {"nfe", "images_seen", "train_flops", "stage_flops", "total_flops", "sampling_flops",
     "parameters"}
)  # fmt: skip


def with_derived(study: StudyResults) -> StudyResults:
    """The study with columns and totals as rows; what it measured under such a name stays."""
    measured = {r.metric for r in study.rows}
    made = [r for r in [*_columns(study.rows), *_totals(study.rows)] if r.metric not in measured]
    return dataclasses.replace(study, rows=(*study.rows, *made))


def _columns(rows: Sequence[StudyRow]) -> list[StudyRow]:
    found = {}
    for row in rows:
        for name in COLUMNS:
            value = getattr(row, name)
            if value is not None and row.generator not in ("none", "real"):
                key = (row.arm, row.seed, row.generator, row.resolution, name)
                found[key] = _bare(row, name, float(value))
    return list(found.values())


def _totals(rows: Sequence[StudyRow]) -> list[StudyRow]:
    groups: dict[tuple[str, int, str], list[StudyRow]] = defaultdict(list)
    for row in rows:
        if row.metric in TOTALS:
            groups[row.arm, row.seed, row.metric].append(row)
    made = []
    for (_, _, metric), own in sorted(groups.items()):
        last = max(own, key=lambda r: r.resolution)
        made.append(_bare(last, TOTALS[metric], sum(r.value for r in own)))
    return made


def _bare(row: StudyRow, name: str, value: float) -> StudyRow:
    """A quantity that no reference and no features enter."""
    return dataclasses.replace(
        row, metric=name, protocol=name, value=value, n=1, eval_seed=None, reference="",
        reference_n=None, features="",
    )  # fmt: skip
