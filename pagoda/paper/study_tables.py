"""A study's results as a table: arms down, metrics across, mean and interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pagoda.paper.figures import Panel, panel_of, panel_title, panels_of
from pagoda.paper.intervals import CONFIDENCE, t_interval
from pagoda.report.document import Cell, Table
from pagoda.report.results import number, short
from pagoda.report.studies import StudyResults, StudyRow

UNITS = {
    "drift": "pixels of the lower resolution",
    "seconds_per_image": "seconds",
    "stage_seconds": "seconds",
    "total_seconds": "seconds",
    "train_seconds": "seconds",
    "sampling_flops": "floating-point operations an image",
    "stage_flops": "floating-point operations",
    "total_flops": "floating-point operations",
    "train_flops": "floating-point operations",
}
"""What a metric with a unit is measured in; all others are ratios, shares, counts or distances."""


def study_table(study: StudyResults) -> Table:
    """Mean of every arm, with half the width of its interval; seeds on hover."""
    panels = panels_of(study)
    header = ("Arm", *(f"{panel_title(p)} `{p[1]}`" for p in panels))
    rows = tuple(
        (Cell(label), *(arm_cell(_pick(study, arm, panel)) for panel in panels))
        for arm, label in study.card.arms.items()
    )
    return Table(_caption(study), header, rows, "l" + "r" * len(panels))


def arm_cell(rows: Sequence[StudyRow]) -> Cell:
    """``mean ± half`` of one arm's values; every seed and its provenance on hover."""
    if not rows:
        return Cell("")
    found = t_interval([r.value for r in rows])
    half = found.high - found.mean
    text = number(found.mean) + (f" ± {number(half)}" if math.isfinite(half) and half else "")
    seeds = "; ".join(f"seed {r.seed}: {r.value!r}" for r in rows)
    first = rows[0]
    title = f"{first.protocol}, n {first.n}, NFE {first.nfe}; {seeds}; code {first.revision}"
    if first.reference:
        title += f"; reference {first.reference[:10]}, features {first.features[:10]}"
    return Cell(text, f"{title}; {first.device}")


def _pick(study: StudyResults, arm: str, panel: Panel) -> list[StudyRow]:
    rows = [r for r in study.rows if r.arm == arm and panel_of(r) == panel]
    return sorted(rows, key=lambda r: r.seed)


def _caption(study: StudyResults) -> str:
    rows, card = study.rows, study.card
    seeds = ", ".join(str(s) for s in sorted({r.seed for r in rows}))
    references = ", ".join(dict.fromkeys(short(r.reference) for r in rows if r.reference))
    evaluation = ", ".join(dict.fromkeys(str(r.eval_seed) for r in rows if r.eval_seed is not None))
    return (
        f"**{card.title}**, profile `{card.profile}`, {card.data}. Mean over training seeds "
        f"({seeds}) ± half of Student's {CONFIDENCE:.0%} interval; an arm of one seed has none. "
        f"{_units(study)}n {_listed(f'{r.n:,}' for r in rows if r.reference) or 'none'} images for "
        f"every value that a reference enters. Evaluation seed {evaluation or 'none'}. Held "
        f"against {references or 'no reference'}. "
        f"Code {_listed(f'`{r.revision}`' for r in rows)}, on {_listed(r.device for r in rows)}."
    )


def _units(study: StudyResults) -> str:
    """Units of the columns, in their order."""
    named = dict.fromkeys(panel[0] for panel in panels_of(study))
    found = [
        f"{metric.replace('_', ' ')} in {UNITS[metric]}" for metric in named if metric in UNITS
    ]
    return f"Units: {', '.join(found)}. " if found else ""


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
