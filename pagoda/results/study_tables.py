"""A study's results as tables that can be read: one a kind of quantity, no column mostly empty.

A line is an arm at a resolution (and a stage or part, where costs are split), a column is a metric
under one protocol, a cell the mean over training seeds with half of Student's interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pagoda.results.document import Cell, Table
from pagoda.results.intervals import CONFIDENCE, Interval, t_interval
from pagoda.results.measured import generator_label, number, short, size_label
from pagoda.results.quantities import (
    ALL_STAGES,
    COST,
    GROUPS,
    LATENTS,
    OWN,
    PARTS,
    QUALITY,
    ROUND_TRIP,
    STAGES,
    column_of,
    item_of,
    item_order,
    order_of,
    quantity,
)  # fmt: skip
from pagoda.results.studies import StudyResults, StudyRow

_LAST = {"real": 1}  # lines below the others of their resolution
_NOTES = {
    ROUND_TRIP: "Image, latent, image, along one grid. ",
    LATENTS: "KS: Kolmogorov-Smirnov distance, of entries to N(0, 1), of squared norms to the "
    "chi-square law. In brackets: of a standard normal. ",
    COST: "Training: the steps that the arm itself ran, up to this generator; what it shares with "
    "other arms or the main pipeline is not in it. Times vary between machines and runs, counts "
    "do not. ",
    STAGES: "The stages that the arm itself ran or counted. Times vary between machines and runs, "
    "counts do not. ",
    PARTS: "Of the one-step generator at the target. Times vary between machines and runs. ",
}
_SPLIT = {STAGES: "Stage", PARTS: "Part"}


@dataclass(frozen=True)
class Line:
    """One line: an arm's own generator, its teacher, or real images, at one resolution."""

    resolution: int
    arm: str
    who: str
    item: str


def study_tables(study: StudyResults) -> dict[str, Table]:
    """Tables by the name of their group, those that have anything.

    Args:
        study: with derived rows (:func:`pagoda.results.derived.with_derived`), if costs are wanted.
    """
    return {group: _table(study, group) for group in GROUPS if rows_of(study, group)}


def rows_of(study: StudyResults, group: str) -> list[StudyRow]:
    """Rows of a group; what several arms share (a teacher, real images) stands under the first."""
    rows = [r for r in study.rows if quantity(r.metric).group == group and r.metric != "nfe"]
    kept: list[StudyRow] = []
    shared: dict[tuple[str, int], list[frozenset[tuple[str, float]]]] = {}
    for arm in study.card.arms:
        own = [r for r in rows if r.arm == arm]
        lonely = len({(item_of(r), r.resolution) for r in own if item_of(r) != ALL_STAGES}) == 1
        for who, res in dict.fromkeys((r.generator, r.resolution) for r in own):
            held = [r for r in own if (r.generator, r.resolution) == (who, res)]
            values = frozenset((r.protocol, r.value) for r in held)
            known = shared.setdefault((who, res), [])
            if who in OWN or values not in known:
                known.append(values)
                kept += [r for r in held if not (lonely and item_of(r) == ALL_STAGES)]
    return kept


def caption(study: StudyResults, group: str) -> str:
    """What a table or figure of a group shows: units, n, seeds, interval, protocol, provenance."""
    rows, card = rows_of(study, group), study.card
    held = [r for r in rows if r.reference and group == QUALITY]
    sampled = [r for r in rows if r.eval_seed is not None or r.metric == "seconds_per_image"]
    images = rows if group in (ROUND_TRIP, LATENTS) else sampled
    facts = [
        f"n {_listed(f'{r.n:,}' for r in images)} images" if images else "",
        f"evaluation seed {_listed(str(r.eval_seed) for r in rows if r.eval_seed is not None)}",
        f"held against {_references(held)}" if held else "",
        f"features {_listed(short(r.features) for r in held)}" if held else "",
        f"code {_listed(f'`{r.revision}`' for r in rows)}",
        f"on {_listed(r.device for r in rows)}",
    ]
    told = "; ".join(fact for fact in facts if fact and fact != "evaluation seed ")
    return (
        f"**{card.title}: {GROUPS[group]}.** Profile `{card.profile}` "
        f"({size_label(card.profile)}), {card.data}. {_interval(rows)} {_NOTES.get(group, '')}"
        f"Provenance: {told}."
    )


def _interval(rows: Sequence[StudyRow]) -> str:
    """How seeds became values, one sentence."""
    seeds = sorted({r.seed for r in rows})
    named = ", ".join(map(str, seeds))
    if len(seeds) == 1:
        return f"Values of training seed {named} alone: no interval."
    counts = {len({r.seed for r in rows if line_of(r) == line}) for line in map(line_of, rows)}
    lonely = "; where there is one seed, its value" if 1 in counts else ""
    fewer = (
        " Lines of fewer seeds lack runs that failed or were not made." if len(counts) > 1 else ""
    )
    return (
        f"Mean over training seeds {named} ± half of Student's {CONFIDENCE:.0%} interval{lonely}."
        f"{fewer}"
    )


def arm_cell(rows: Sequence[StudyRow], scale: float = 1.0) -> Cell:
    """``mean ± half`` of one arm's values; every seed, unscaled, and its provenance on hover."""
    if not rows:
        return Cell("")
    found = t_interval([r.value * scale for r in rows])
    seeds = "; ".join(f"seed {r.seed}: {r.value!r}" for r in rows)
    first = rows[0]
    title = f"{first.protocol}, n {first.n}, NFE {first.nfe}; {seeds}; code {first.revision}"
    if first.reference:
        title += f"; reference {first.reference[:10]}, features {first.features[:10]}"
    return Cell(with_half(found), f"{title}; {first.device}")


def with_half(found: Interval) -> str:
    """A mean and half of its interval, to two digits of the half: ``1.630 ± 0.091``."""
    half = found.high - found.mean
    if not math.isfinite(half) or half <= 1e-12 * abs(found.mean):
        return number(found.mean)
    decimals = max(0, 1 - math.floor(math.log10(half)))
    if decimals > 6:
        return f"{number(found.mean)} ± {number(half)}"
    return f"{found.mean:,.{decimals}f} ± {half:,.{decimals}f}"


def _table(study: StudyResults, group: str) -> Table:
    rows = rows_of(study, group)
    lines = sorted({line_of(r) for r in rows}, key=_order(study))
    columns = sorted({_column(r, group) for r in rows}, key=_column_order(study))
    table = []
    for line in lines:
        own = sorted((r for r in rows if line_of(r) == line), key=lambda r: r.seed)
        values = [[r for r in own if _column(r, group) == column] for column in columns]
        cells = [arm_cell(v, quantity(c[0]).scale) for c, v in zip(columns, values, strict=True)]
        table.append((_head(study, group, line, own, rows), cells))
    names = ("Arm", "Resolution", _SPLIT.get(group, ""), "NFE", "Seeds")
    shown = [i for i, _ in enumerate(names) if i == 0 or len({head[i] for head, _ in table}) > 1]
    header = (*(names[i] for i in shown), *(_title(*c, group) for c in columns))
    body = tuple((*(Cell(head[i]) for i in shown), *cells) for head, cells in table)
    align = "".join("r" if names[i] in ("NFE", "Seeds") else "l" for i in shown)
    return Table(caption(study, group) + _left_out(table, shown, names), header, body,
                 align + "r" * len(columns))  # fmt: skip


def _head(
    study: StudyResults, group: str, line: Line, own: Sequence[StudyRow], rows: Sequence[StudyRow]
) -> tuple[str, ...]:
    evaluations = {str(r.nfe) for r in own if r.nfe is not None}
    seeds = len({r.seed for r in own})
    size = f"{line.resolution}×{line.resolution}"
    label = study.card.arms[line.arm]
    if line.who == "real":
        label = generator_label("real")
    elif line.who and any(r.arm == line.arm and r.generator in OWN for r in rows):
        label = f"{label}: {generator_label(line.who).lower()}"
    none = "–" if line.who == "real" else ""
    return label, size, line.item, ", ".join(sorted(evaluations)) or none, str(seeds)


def _left_out(
    table: Sequence[tuple[tuple[str, ...], object]], shown: Sequence[int], names: Sequence[str]
) -> str:
    """What the leading columns that are alike in every line would say."""
    alike = [
        f"{names[i].lower() if names[i] != 'NFE' else 'NFE'} {table[0][0][i]}"
        for i in range(1, len(names))
        if i not in shown and names[i] and table[0][0][i]
    ]
    return f" In every line: {', '.join(alike)}." if alike else ""


def line_of(row: StudyRow) -> Line:
    """The line that a row belongs to."""
    who = "" if row.generator in OWN else row.generator
    return Line(row.resolution, row.arm, who, item_of(row))


def _order(study: StudyResults) -> Callable[[Line], tuple[object, ...]]:
    place = {arm: i for i, arm in enumerate(study.card.arms)}
    return lambda line: (
        line.resolution * (not line.item), _LAST.get(line.who, 0), place[line.arm], line.who,
        line.item == ALL_STAGES, line.resolution, item_order(line.item),
    )  # fmt: skip


def _column(row: StudyRow, group: str) -> tuple[str, str]:
    """Metric and protocol; where lines are stages or parts, the protocol only names those."""
    column = column_of(row.metric)
    return column, "" if group in _SPLIT else row.protocol


def _column_order(study: StudyResults) -> Callable[[tuple[str, str]], tuple[int, int, str]]:
    first = {metric: i for i, metric in enumerate(study.card.metrics)}
    return lambda c: (first.get(c[0], len(first)), order_of(c[0]), c[1])


def _title(metric: str, protocol: str, group: str) -> str:
    shown = quantity(metric)
    unit = f", {shown.unit}" if shown.unit else ""
    plain = not protocol or protocol == metric
    return f"{shown.label}{unit}" + ("" if plain else f" `{protocol}`")


def _references(rows: Sequence[StudyRow]) -> str:
    """Each reference set once: its size and the resolution it stands for."""
    found = {(r.resolution, r.reference): r.reference_n for r in rows}
    return ", ".join(
        f"{'' if n is None else f'{n:,} '}real images at {res}×{res} ({short(name)})"
        for (res, name), n in sorted(found.items())
    )


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
