"""A study's results as tables that can be read: one a kind of quantity, no column mostly empty.

A line is a variant at a resolution (and a stage or part, where costs are split), a column is a
metric under one protocol, a cell the mean over training seeds with half of Student's interval.
"""

from __future__ import annotations

from collections.abc import Sequence

from pagoda.results.blocks import Grid, Table, block_text, table
from pagoda.results.labels import (
    ALL_STAGES,
    COST,
    DISTANCES,
    GROUPS,
    LATENTS,
    OWN,
    PARTS,
    QUALITY,
    ROUND_TRIP,
    STAGES,
    column_of,
    generator_label,
    item_of,
    item_order,
    metric_label,
    metric_order,
    quantity,
    size_label,
)
from pagoda.results.numbers import CONFIDENCE, listed, mean_cell, references, short, t_interval
from pagoda.results.studies import StudyCard, StudyResults
from pagoda.rows import Row

SUMMARY = "summary.md"
_NOTES = {
    ROUND_TRIP: "Image, latent, image, along one grid. ",
    LATENTS: "KS: Kolmogorov-Smirnov distance, of entries to N(0, 1), of squared norms to the "
    "chi-square distribution. In brackets: of a standard normal. ",
    COST: "Training: the steps that the variant itself ran, up to this generator; what it shares "
    "with others or the main pipeline is not in it. Times vary between machines and runs, counts "
    "do not. ",
    STAGES: "The stages that the variant itself ran or counted. Times vary between machines and "
    "runs, counts do not. ",
    PARTS: "Of the one-step generator at the target. Times vary between machines and runs. ",
}
_SPLIT = {STAGES: "Stage", PARTS: "Part"}


def study_tables(study: StudyResults) -> dict[str, Table]:
    """Tables by the name of their group, those that have anything.

    Args:
        study: with derived rows, if costs are wanted.
    """
    return {group: _table(study, group) for group in GROUPS if rows_of(study, group)}


def rows_of(study: StudyResults, group: str) -> list[Row]:
    """Rows of a group; what several variants share (a teacher, real images) is of the first."""
    rows = [r for r in study.rows if quantity(r.metric).group == group and r.metric != "nfe"]
    kept: list[Row] = []
    shared: set[tuple[object, ...]] = set()
    for variant in study.card.variants:
        own = [r for r in rows if r.variant == variant]
        lonely = len({(item_of(r), r.resolution) for r in own if item_of(r) != ALL_STAGES}) == 1
        for who, res in dict.fromkeys((r.generator, r.resolution) for r in own):
            found = [r for r in own if (r.generator, r.resolution) == (who, res)]
            key = who, res, frozenset((r.protocol, r.value) for r in found)
            if who in OWN or key not in shared:
                shared.add(key)
                kept += [r for r in found if not (lonely and item_of(r) == ALL_STAGES)]
    return kept


def caption(study: StudyResults, group: str) -> str:
    """What a table or figure of a group shows: units, n, seeds, interval, protocol, provenance."""
    rows = rows_of(study, group)
    compared = [r for r in rows if r.reference and group == QUALITY]
    sampled = [r for r in rows if r.seed is not None or r.metric == "seconds_per_image"]
    images = rows if group in (ROUND_TRIP, LATENTS) else sampled
    seeds = listed(r.seed for r in rows if r.seed is not None)
    facts = [
        f"n {listed(f'{r.n:,}' for r in images)} images" if images else "",
        f"evaluation seed {seeds}" if seeds else "",
        f"compared with {references(compared)}" if compared else "",
        f"features {listed(short(r.features) for r in compared)}" if compared else "",
        f"code {listed(f'`{r.revision}`' for r in rows)}",
        f"on {listed(r.device for r in rows)}",
    ]
    return (
        f"**{study.card.title}: {GROUPS[group]}.** {ran(study.card)} {_over_seeds(rows)} "
        f"{_NOTES.get(group, '')}Provenance: {'; '.join(filter(None, facts))}."
    )


def ran(card: StudyCard) -> str:
    """Profile and data of a study."""
    return f"Profile `{card.profile}` ({size_label(card.profile)}), {card.data}."


def nearest_tables(study: StudyResults) -> list[Table]:
    """Which variant is nearest to the data, and which furthest, at every resolution, by protocol.

    Only variants' own generators, only where at least two were measured under one protocol against
    one reference. Claims ask a question each; this says what came out on the whole.
    """
    own = [r for r in study.rows if r.metric in DISTANCES and r.generator in OWN]
    lines = []
    for key in sorted({(r.protocol, r.size, r.reference, r.features) for r in own}):
        at = [r for r in own if (r.protocol, r.size, r.reference, r.features) == key]
        by_variant = {v: sorted((r for r in at if r.variant == v), key=_seed)
                      for v in study.card.variants}  # fmt: skip
        means = {v: t_interval([r.number for r in found]).mean
                 for v, found in by_variant.items() if found}  # fmt: skip
        places = sorted(means, key=lambda v: means[v])
        if len(places) > 1:
            shown = places if len(places) == 2 else [places[0], places[1], places[-1]]
            cells = [c for v in shown for c in (study.card.variants[v], mean_cell(by_variant[v]))]
            lines.append([f"{key[1]}×{key[1]}", *cells])
    if not lines:
        return []
    header = ("Resolution", "Nearest", "Distance", "Second", "Distance", "Furthest", "Distance")
    width = max(map(len, lines))
    metrics = listed(f"{metric_label(r.metric)} `{r.protocol}`" for r in own)
    told = (
        f"**Nearest to the data**, lowest mean first: {metrics}, n "
        f"{listed(f'{n:,}' for n in sorted({r.n for r in own}))} images, mean over training seeds "
        f"{listed(sorted({_seed(r) for r in own}))} ± half of Student's {CONFIDENCE:.0%} interval "
        "where there are several. No claim rests on it: with intervals that overlap, the order is "
        f"not settled. {ran(study.card)}"
    )
    rows = [line + [""] * (width - len(line)) for line in lines]
    return [table(told, header[:width], rows, "llrlrlr"[:width])]


def write_summary(study: StudyResults) -> None:
    """Write ``summary.md``: every value of ``results.csv``, a table a kind of quantity."""
    card = study.card
    parts = [
        f"# {card.title}",
        card.question,
        f"**Rule, fixed before the run.** {card.rule}",
        f"Profile `{card.profile}`; {card.data}; code `{card.revision}`.",
    ]
    for group, made in study_tables(study.with_derived()).items():
        parts += [f"## {GROUPS[group].capitalize()}", block_text(made)]
    if card.failures:
        lines = [f"- {card.variants[f.variant]}, growth to {f.resolution}×{f.resolution}: "
                 f"{f.signature} ({f.seeds} of {f.of} seeds)" for f in card.failures]  # fmt: skip
        parts += ["## Signatures of failure", "\n".join(lines)]
    parts += [block_text(figure) for figure in card.figures]
    (study.folder / SUMMARY).write_text("\n\n".join(parts) + "\n", "utf-8")


def _seed(row: Row) -> int:
    return row.training_seed or 0


def _over_seeds(rows: Sequence[Row]) -> str:
    """How seeds became values, one sentence."""
    seeds = sorted({_seed(r) for r in rows})
    named = ", ".join(map(str, seeds))
    if len(seeds) == 1:
        return f"Values of training seed {named} alone: no interval."
    by_line: dict[tuple[object, ...], set[int]] = {}
    for row in rows:
        by_line.setdefault(_line(row), set()).add(_seed(row))
    counts = {len(found) for found in by_line.values()}
    lonely = "; where there is one seed, its value" if 1 in counts else ""
    fewer = (
        " Lines of fewer seeds lack runs that failed or were not made." if len(counts) > 1 else ""
    )
    return (
        f"Mean over training seeds {named} ± half of Student's {CONFIDENCE:.0%} interval{lonely}."
        f"{fewer}"
    )


def _line(row: Row) -> tuple[int, str, str, str]:
    """Resolution, variant, generator (empty: the variant's own), stage or part."""
    who = "" if row.generator in OWN else row.generator
    return row.size, row.variant, who, item_of(row)


def _table(study: StudyResults, group: str) -> Table:
    card, rows = study.card, rows_of(study, group)
    place = {variant: i for i, variant in enumerate(card.variants)}
    first = {metric: i for i, metric in enumerate(card.metrics)}

    def order(line: tuple[int, str, str, str]) -> tuple[object, ...]:
        size, variant, who, item = line
        return (size * (not item), who == "real", place[variant], who, item == ALL_STAGES, size,
                item_order(item))  # fmt: skip

    def column_order(row: Row) -> tuple[int, int, str]:
        name = column_of(row.metric)
        return first.get(name, len(first)), metric_order(name), row.protocol

    grid = Grid("Variant", "Resolution", _SPLIT.get(group, ""), "NFE", "Seeds",
                optional=("Resolution", _SPLIT.get(group, ""), "NFE", "Seeds"))  # fmt: skip
    columns = list(dict.fromkeys(_title(row, group) for row in sorted(rows, key=column_order)))
    with_own = {r.variant for r in rows if r.generator in OWN}
    for line in sorted({_line(r) for r in rows}, key=order):
        size, variant, who, item = line
        own = sorted((r for r in rows if _line(r) == line), key=_seed)
        label = generator_label("real") if who == "real" else card.variants[variant]
        if who not in ("", "real") and variant in with_own:
            label = f"{label}: {generator_label(who).lower()}"
        nfe = ", ".join(sorted({str(r.nfe) for r in own if r.nfe is not None}))
        nfe = nfe or ("–" if who == "real" else "")
        seeds = str(len({r.training_seed for r in own}))
        made = grid.line(label, f"{size}×{size}", item, nfe, seeds, key=line)
        for title in columns:
            if found := [r for r in own if _title(r, group) == title]:
                made.add(title, mean_cell(found, quantity(found[0].metric).scale))
    left = ("Resolution", "Stage", "Part")
    return grid.table(caption(study, group) + "{same}", columns, left)


def _title(row: Row, group: str) -> str:
    """Metric, unit and protocol; where lines are stages or parts, the protocol only names those."""
    metric = column_of(row.metric)
    shown = quantity(metric)
    title = f"{shown.label}, {shown.unit}" if shown.unit else shown.label
    return title if group in _SPLIT or row.protocol == metric else f"{title} `{row.protocol}`"
