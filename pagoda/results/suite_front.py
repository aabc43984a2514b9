"""The first screen of the page of everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pagoda.results.blocks import Block, Cell, Table, seen_from, table
from pagoda.results.claims import OPEN, REFUTED, SUPPORTED, Verdict
from pagoda.results.numbers import CONFIDENCE, mean_cell, number, t_interval, with_ends
from pagoda.results.runs import Run
from pagoda.results.studies import StudyResults
from pagoda.rows import Row, grouped

_COLUMNS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "One-step generator (1 evaluation)": (
        ("pairs", "share-100", "student"), ("growth_baselines", "growth", "grown"),
    ),
    "Cascade of diffusion models": (("growth_baselines", "cascade", "cascade"),),
    "Grown by the adversarial loss alone": (("growth_baselines", "adversarial", "grown"),),
    "Held-out real images (floor)": (("growth_baselines", "growth", "real"),),
}  # fmt: skip
"""Columns of the headline table: study, variant and generator of their values."""


def front_sentence(verdicts: Sequence[Verdict]) -> str:
    """What was found, in one sentence."""
    counts = Counter(v.outcome for v in verdicts if v.effect is not None)
    tested, idle = sum(counts.values()), sum(v.effect is None for v in verdicts)
    if not tested:
        return "One-step generators, grown from a diffusion teacher; no claim was tested yet."
    left = f"; {idle} more were not tested" if idle else ""
    return (
        "One-step image generators, grown from a diffusion teacher of low resolution as in the "
        f"PaGoDA paper, trained small enough for two CPU cores: of {tested} claims that were "
        f"tested, **{counts[SUPPORTED]} are supported**, {counts[REFUTED]} are not, and "
        f"{counts[OPEN]} {'stays' if counts[OPEN] == 1 else 'stay'} undecided{left}."
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
    by_profile = grouped(studies, lambda study: study.card.profile)
    first = next((found for own in by_profile.values() if (found := headline(own))), None)
    return (*made, *([first] if first else []))


def headline(studies: Sequence[StudyResults]) -> Table | None:
    """Distances of one profile over its training seeds, a line a resolution; None without them."""
    known = {study.card.study: study for study in studies}
    cells: dict[str, dict[int, list[Row]]] = {}
    for column, places in _COLUMNS.items():
        for study, variant, generator in places:
            for row in known[study].rows if study in known else ():
                if (row.metric, row.variant, row.generator) == ("fd", variant, generator):
                    cells.setdefault(column, {}).setdefault(row.size, []).append(row)
    rows = [row for found in cells.values() for own in found.values() for row in own]
    if not rows or len({row.protocol for row in rows}) > 1:
        return None
    sizes = sorted({row.size for row in rows})
    lines: list[tuple[str | Cell, ...]] = [
        (f"{size}×{size}", *(_cell(found.get(size, [])) for found in cells.values()))
        for size in sizes
    ]
    seeds, first = len({row.training_seed for row in rows}), rows[0]
    caption = (
        f"**Fréchet distance to real images** (lower is better): mean of {seeds} training seeds "
        f"and its {CONFIDENCE:.0%} interval; `{first.protocol}`, {first.n:,} images each, in "
        "features of a small classifier of these data, so no FID. Profile "
        f"`{studies[0].card.profile}`: "
        f"{studies[0].card.data}. Hover for every seed."
    )
    return table(
        caption, ("Resolution", *(f"**{c}**" if i == 0 else c for i, c in enumerate(cells))), lines
    )


def _cell(rows: Sequence[Row]) -> Cell:
    if not rows:
        return Cell("–")
    found, title = t_interval([row.number for row in rows]), mean_cell(rows).title
    return Cell(with_ends(number(found.mean), found.low, found.high), title)
