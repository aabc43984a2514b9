"""A study's results as tables that can be read: one a kind of quantity, no column mostly empty.

A line is a variant at a resolution (and a stage or part, where costs are split), a column is a
metric under one protocol, a cell the mean over training seeds with half of Student's interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pagoda.results import labels
from pagoda.results.blocks import Cell, Grid, Table, block_text, table
from pagoda.results.claims import Claim
from pagoda.results.labels import (
    COST,
    GROUPS,
    LATENTS,
    OWN,
    PARTS,
    PATHS,
    QUALITY,
    RESTORED,
    ROUND_TRIP,
    SAMPLING,
    STAGES,
    TRANSFERRED,
)
from pagoda.results.numbers import CONFIDENCE, listed, mean_cell, references, short, t_interval
from pagoda.results.studies import StudyCard, StudyResults
from pagoda.rows import Row, grouped

SUMMARY = "summary.md"
_NOTES = {
    ROUND_TRIP: "Image, latent, image, along one grid. ",
    LATENTS: "KS: Kolmogorov-Smirnov distance, of entries to N(0, 1), of squared norms to the "
    "chi-square distribution. In brackets: of a standard normal. ",
    RESTORED: "Held-out images, mean over images and answers; the best of several answers "
    "apart. Distances are Euclidean, in the features of the evaluation's network; in the hole: the "
    "rest is the original's. NFE: of the network that makes the image, the teacher where that is "
    "its posterior; the teacher's that invert an image are in the seconds alone. ",
    TRANSFERRED: "Classes by the evaluation's network, which no part of training saw, but which "
    "was trained on the same images; rates by the rule of succession, (k + 1) / (n + 2). NFE: of "
    "the generator; the teacher's that invert and decode are in the seconds alone. ",
    PATHS: "Squared distance of features over that of places along the path. ",
    COST: "Training: the steps that the variant itself ran, up to this generator; what it shares "
    "with others or the main pipeline is not in it. Times vary between machines and runs, counts "
    "do not. ",
    SAMPLING: "Times vary between machines and runs, counts do not. ",
    STAGES: "The stages that the variant itself ran or counted. Times vary between machines and "
    "runs, counts do not. ",
    PARTS: "Of one step at the target. Times vary between machines and runs. ",
}
_SPLIT = {STAGES: "Stage", PARTS: "Part"}


def study_tables(study: StudyResults) -> dict[str, Table]:
    """Tables by the name of their group, those that have anything.

    Args:
        study: with derived rows, if costs are wanted.
    """
    found = {group: _rows_of(study, group) for group in GROUPS}
    # Variants that are counted where others train have columns that those lack, and the reverse;
    # where most of them train nothing, the columns of training would be empty.
    trained = {row.variant for row in found[COST] if row.metric == "train_flops"}
    own = [row for row in found[COST] if row.variant not in trained]
    others = [row for row in found[COST] if row.variant in trained]
    most = len({row.variant for row in own}) > len(trained)
    if others and (most or {row.metric for row in own} - {row.metric for row in others}):
        found |= {COST: others, SAMPLING: own}
    return {group: _table(study, group, rows) for group, rows in found.items() if rows}


def _rows_of(study: StudyResults, group: str) -> list[Row]:
    """Rows of a group; what several variants share (a teacher, real images) is of the first."""
    rows = [r for r in study.rows if labels.quantity(r.metric).group == group and r.metric != "nfe"]
    by_variant = grouped(rows, lambda r: r.variant)
    kept: list[Row] = []
    shared: set[tuple[object, ...]] = set()
    for variant in study.card.variants:
        own = by_variant.get(variant, [])
        stages = [r for r in own if labels.item_of(r) != labels.ALL_STAGES]
        if len({(labels.item_of(r), r.resolution) for r in stages}) == 1:
            own = stages  # their sum says nothing more
        for place, found in grouped(own, lambda r: (r.generator, r.resolution)).items():
            key = place, frozenset((r.protocol, r.value) for r in found)
            if place[0] in OWN or key not in shared:
                shared.add(key)
                kept += found
    return kept


def _caption(study: StudyResults, group: str, rows: Sequence[Row]) -> str:
    """What a table or figure of a group shows: units, n, seeds, interval, protocol, provenance."""
    compared = [r for r in rows if r.reference and group == QUALITY]
    sampled = [r for r in rows if r.seed is not None or r.metric == "seconds_per_image"]
    images = rows if group in (ROUND_TRIP, LATENTS, TRANSFERRED, PATHS) else sampled
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
        f"**{study.card.title}: {GROUPS[group]}.** {ran(study.card)} {_over_seeds(study, rows)} "
        f"{_NOTES.get(group, '')}Provenance: {'; '.join(filter(None, facts))}."
    )


def ran(card: StudyCard) -> str:
    """Profile and data of a study."""
    return f"Profile `{card.profile}` ({labels.size_label(card.profile)}), {card.data}."


def nearest_tables(study: StudyResults) -> list[Table]:
    """Which variant is nearest to the data, and which furthest, at every resolution, by protocol.

    Only variants' own generators, only where at least two were measured under one protocol against
    one reference. Claims ask a question each; this says what came out on the whole.
    """
    own = [r for r in study.rows if r.metric in labels.DISTANCES and r.generator in OWN]
    lines = []
    places = grouped(own, lambda r: (r.protocol, r.size, r.reference, r.features))
    several = len({row.protocol for row in own}) > 1
    for (protocol, size, *_), at in sorted(places.items()):
        found = grouped(sorted(at, key=_seed), lambda r: r.variant)
        means = {v: t_interval([r.number for r in found[v]]).mean
                 for v in study.card.variants if v in found}  # fmt: skip
        ranks = sorted(means, key=lambda v: means[v])
        if len(ranks) > 1:
            shown = ranks if len(ranks) == 2 else [*ranks[:2], ranks[-1]]
            cells = [c for v in shown for c in (study.card.variants[v], mean_cell(found[v]))]
            lines.append([*([f"`{protocol}`"] if several else []), f"{size}×{size}", *cells])
    if not lines:
        return []
    header = (
        *(("Protocol",) if several else ()), "Resolution",
        "Nearest", "Distance", "Second", "Distance", "Furthest", "Distance",
    )  # fmt: skip
    align, width = "l" * several + "llrlrlr", max(map(len, lines))
    metrics = listed(f"{labels.metric_label(r.metric)} `{r.protocol}`" for r in own)
    told = (
        f"**Nearest to the data**, lowest mean first: {metrics}, n "
        f"{listed(f'{n:,}' for n in sorted({r.n for r in own}))} images, mean over "
        f"{_kind_of_seeds(study)} {listed(sorted({_seed(r) for r in own}))} ± half of Student's "
        f"{CONFIDENCE:.0%} interval where there are several. No claim rests on it: with intervals "
        f"that overlap, the order is not settled. {ran(study.card)}"
    )
    rows = [line + [""] * (width - len(line)) for line in lines]
    return [table(told, header[:width], rows, align[:width])]


def rule_text(card: StudyCard, claims: Iterable[Claim]) -> str:
    """A study's rule, and which of its claims were written when something was already known.

    Args:
        card: of the study.
        claims: those of any studies; others' are passed over.
    """
    late = [f"`{c.id}` ({c.after_run})" for c in claims if c.study == card.study and c.after_run]
    if not late:
        return f"**Rule, fixed before the run.** {card.rule}"
    told = f"Written or changed when an earlier run was known: {'; '.join(late)}."
    return f"**Rule.** {card.rule} {told}"


def write_summary(study: StudyResults, claims: Iterable[Claim] = ()) -> None:
    """Write ``summary.md``: every value of ``results.csv``, a table a kind of quantity.

    ``claims`` are as of :func:`rule_text`.
    """
    card = study.card
    parts = [f"# {card.title}", card.question, rule_text(card, claims),
             f"Profile `{card.profile}`; {card.data}; code `{card.revision}`."]  # fmt: skip
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


def trains(study: StudyResults) -> bool:
    """False if no run of the study trained anything: its seeds draw images and noise alone."""
    return any(row.images_seen or row.train_flops for row in study.rows)


def _kind_of_seeds(study: StudyResults) -> str:
    return "training seeds" if trains(study) else "seeds"


def _over_seeds(study: StudyResults, rows: Sequence[Row]) -> str:
    """How seeds became values, one sentence."""
    seeds = sorted({_seed(r) for r in rows})
    named = ", ".join(map(str, seeds))
    if len(seeds) == 1:
        return f"Values of {_kind_of_seeds(study)[:-1]} {named} alone: no interval."
    counts = {len({_seed(r) for r in found}) for found in grouped(rows, _line).values()}
    lonely = "; where there is one seed, its value" if 1 in counts else ""
    drawn = "" if trains(study) else " Seeds draw images and noise; nothing is trained."
    fewer = " Lines of fewer seeds lack runs that failed or were not made." * (len(counts) > 1)
    return (
        f"Mean over {_kind_of_seeds(study)} {named} ± half of Student's {CONFIDENCE:.0%} "
        f"interval{lonely}.{fewer}{drawn}"
    )


def _line(row: Row) -> tuple[int, str, str, str]:
    """Resolution, variant, generator (empty: the variant's own), stage or part."""
    who = "" if row.generator in OWN else row.generator
    return row.size, row.variant, who, labels.item_of(row)


def _table(study: StudyResults, group: str, rows: Sequence[Row]) -> Table:
    card = study.card
    place = {variant: i for i, variant in enumerate(card.variants)}
    first = {metric: i for i, metric in enumerate(card.metrics)}

    def order(line: tuple[int, str, str, str]) -> tuple[object, ...]:
        size, variant, who, item = line
        real = who in labels.REAL, who == "real"  # last, the floor after what is enlarged
        return (size * (not item), *real, place[variant], who, item == labels.ALL_STAGES,
                size, labels.item_order(item))  # fmt: skip

    def column_order(row: Row) -> tuple[int, int, str]:
        name = labels.column_of(row.metric)
        return first.get(name, len(first)), labels.metric_order(name), row.protocol

    optional = ("Resolution", _SPLIT.get(group, ""), "NFE", "Seeds")
    grid = Grid("Variant", *optional, optional=optional)
    whose = grouped((r for r in rows if r.generator not in labels.REAL), lambda r: r.variant)
    with_own = {
        v
        for v, found in whose.items()
        if any(r.generator in OWN for r in found) or len({r.generator for r in found}) > 1
    }
    title_of = _titles(rows, group)
    fewer = False
    lines = grouped(rows, _line)
    for line in sorted(lines, key=order):
        size, variant, who, item = line
        own = sorted(lines[line], key=_seed)
        label = labels.generator_label(who) if who in labels.REAL else card.variants[variant]
        if who == "upsampled_real":  # of several bases, perhaps
            label += f" ({own[0].base_res}×{own[0].base_res})"
        if who not in {"", *labels.REAL} and variant in with_own:
            label = f"{label}: {labels.generator_within(who)}"
        nfe = ", ".join(sorted({str(r.nfe) for r in own if r.nfe is not None}))
        nfe = "–" if who in labels.REAL else nfe
        seeds = str(len({r.training_seed for r in own}))
        made = grid.line(label, f"{size}×{size}", item, nfe, seeds, key=line)
        for title, found in grouped(own, title_of).items():
            cell = mean_cell(found, labels.quantity(found[0].metric).scale)
            if title != _title(found[0], group):
                fewer, cell = True, Cell(f"{cell.text} (n {found[0].n:,})", cell.title)
            made.add(title, cell)
    columns = [title_of(row) for row in sorted(rows, key=column_order)]
    note = " Real images are not as many as samples where their n stands beside a value." * fewer
    return grid.table(_caption(study, group, rows) + note + "{same}", columns)


def _titles(rows: Iterable[Row], group: str) -> Callable[[Row], str]:
    """Columns of rows. Real images that were not as many as the samples, and so have protocols
    without a generator, stand in the generators' column of the same metric and features.
    """
    made = (row for row in rows if row.generator not in labels.REAL)
    theirs = {
        key: {_title(row, group) for row in own}
        for key, own in grouped(made, lambda r: (r.metric, r.features)).items()
    }

    def title_of(row: Row) -> str:
        own = _title(row, group)
        found = theirs.get((row.metric, row.features), {own})
        alone = row.generator in labels.REAL and own not in found and len(found) == 1
        return next(iter(found)) if alone else own

    return title_of


def _title(row: Row, group: str) -> str:
    """Metric, unit and protocol; where lines are stages or parts, the protocol only names those."""
    metric = labels.column_of(row.metric)
    shown = labels.quantity(metric)
    title = f"{shown.label}, {shown.unit}" if shown.unit else shown.label
    return title if group in _SPLIT or row.protocol == metric else f"{title} `{row.protocol}`"
