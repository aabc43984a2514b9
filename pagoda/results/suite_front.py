"""The first screen of the page of everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pagoda.results.blocks import Block, Cell, Table, seen_from, table
from pagoda.results.claim_verdicts import (
    OPEN,
    REFUTED,
    SUPPORTED,
    Verdict,
    resting_on_one,
    whole_claims,
)
from pagoda.results.labels import REAL
from pagoda.results.numbers import CONFIDENCE, listed, mean_cell, number, t_interval, with_ends
from pagoda.results.runs import Run
from pagoda.results.studies import StudyResults
from pagoda.rows import Row, grouped

_COLUMNS = {
    "Grown one-step generator": ("growth", "grown"),
    "Cascade of diffusion models": ("cascade", "cascade"),
    "The same, longer": ("cascade-whole", "cascade"),
    "Held-out real images (floor)": ("growth", "real"),
}  # fmt: skip
"""Columns of the headline table: variant and generator of their values, all of one study."""
_STUDY = "growth_baselines"
_COUNTS = "images / TFLOP / evaluations"


def front_sentence(verdicts: Sequence[Verdict]) -> str:
    """What was found, in one sentence."""
    counts = whole_claims(verdicts)
    if not counts:
        return "One-step generators, grown from a diffusion teacher; no claim was tested yet."
    idle = len({v.claim.id for v in verdicts}) - counts.total()
    alone = resting_on_one(verdicts)
    rest = f" ({alone} on one set of images by one measure)" if alone else ""
    left = f"; {idle} more claims were not tested" if idle else ""
    return (
        "One-step image generators, grown from a diffusion teacher of low resolution as in the "
        f"PaGoDA paper, trained small enough for two CPU cores: of {counts.total()} claims "
        f"**{counts[SUPPORTED]} are supported wherever they were tested**{rest}, "
        f"{counts[REFUTED]} are not supported, and {counts[OPEN]} "
        f"{'is' if counts[OPEN] == 1 else 'are'} undecided or "
        f"{'comes' if counts[OPEN] == 1 else 'come'} out differently between sets of images or "
        f"feature networks{left}."
    )


def suite_front(
    runs: Sequence[Run], studies: Sequence[StudyResults], folder: Path
) -> tuple[Block, ...]:
    """Real images beside generated ones, and the headline table; each if there is one."""
    made: list[Block] = []
    for run in runs:
        if run.folder and run.facts.beside and not made:
            home = run.folder
            beside = run.facts.beside
            pairs = tuple(
                seen_from(folder, home, p) for p in beside.pairs if (home / p.file).is_file()
            )
            if pairs:
                made.append(replace(beside, pairs=pairs,
                                    caption=f"{beside.caption} Profile {run.label}."))  # fmt: skip
    found = headline(studies)
    return (*made, *([found] if found else []))


def headline(studies: Sequence[StudyResults]) -> Table | None:
    """Distances of every profile at the target, and what they took; None without any.

    A line is a protocol. There is none where the values are not of one feature network: their
    distances are on different scales.
    """
    found = [(study, _lines(study)) for study in studies if study.card.study == _STUDY]
    shown = [(study, lines) for study, lines in found if lines]
    if not shown:
        return None
    rows = [r for study, _ in shown for r in study.rows if r.metric == "fd"]
    data = "; ".join(f"`{study.card.profile}`: {study.card.data}" for study, _ in shown)
    caption = (
        "**Fréchet distance to real images at the target** (lower is better): mean over training "
        f"seeds and its {CONFIDENCE:.0%} interval, {listed(f'{row.n:,}' for row in rows)} images "
        "each. No FID: every line is in the features of a network of its own, `classifier` of a "
        "small one that was trained on the images of that profile, so lines are on different "
        "scales. Images and TFLOP: of training above the base, to which growth needs an inversion "
        "and a student besides, whose compute the longer cascade has; evaluations: of networks, "
        f"for an image. Caveats of each way stand with its claims. Profiles: {data}. Hover for "
        "every seed."
    )
    return table(
        caption,
        ("Profile", "Protocol", *(f"**{c}**" if i == 0 else c for i, c in enumerate(_COLUMNS))),
        [line for _, lines in shown for line in lines], "ll" + "r" * len(_COLUMNS),
    )  # fmt: skip


def _lines(study: StudyResults) -> list[tuple[str | Cell, ...]]:
    places = list(_COLUMNS.values())
    known = grouped((r for r in study.rows if r.metric == "fd"), lambda r: (r.variant, r.generator))
    if places[0] not in known:
        return []
    target, profile = max(row.size for row in known[places[0]]), f"`{study.card.profile}`"
    columns = [[r for r in known.get(place, []) if r.size == target] for place in places]
    lines: list[tuple[str | Cell, ...]] = []
    seeds: set[int] = set()
    for protocol in sorted({row.protocol for row in columns[0]}):
        cells = [[row for row in column if row.protocol == protocol] for column in columns]
        if len({row.features for cell in cells for row in cell}) == 1:
            lines.append((f"{profile}, {target}×{target}", f"`{protocol}`", *map(_cell, cells)))
            seeds |= {len(cell) for cell in cells if cell}
    costs = [
        "–" if generator in REAL else listed(map(_cost, column)) or "–"
        for (_, generator), column in zip(places, columns, strict=True)
    ]
    trained = f"{profile}, {listed(sorted(seeds))} seed{'s' * (seeds != {1})}"
    return [*lines, (trained, _COUNTS, *costs)] if lines else []


def _cost(row: Row) -> str:
    images = f"{row.images_seen:,}" if row.images_seen else "–"
    compute = number(row.train_flops * 1e-12) if row.train_flops else "–"
    return f"{images} / {compute} / {row.nfe or '–'}"


def _cell(rows: Sequence[Row]) -> Cell:
    if not rows:
        return Cell("–")
    found, title = t_interval([row.number for row in rows]), mean_cell(rows).title
    return Cell(with_ends(number(found.mean), found.low, found.high), title)
