"""The first screen of the page of everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pagoda.results.blocks import Block, Cell, Table, seen_from, table
from pagoda.results.claim_verdicts import OPEN, REFUTED, SUPPORTED, Verdict
from pagoda.results.labels import REAL
from pagoda.results.numbers import CONFIDENCE, mean_cell, number, short, t_interval, with_ends
from pagoda.results.runs import Run
from pagoda.results.studies import StudyResults
from pagoda.rows import Row, grouped

_COLUMNS = {
    "Grown one-step generator (1 evaluation)": ("growth", "grown"),
    "Cascade of diffusion models": ("cascade", "cascade"),
    "Grown by the adversarial loss alone": ("adversarial", "grown"),
    "Held-out real images (floor)": ("growth", "real"),
}  # fmt: skip
_STUDY = "growth_baselines"
"""Columns of the headline table: variant and generator of their values, all of one study, whose
variants are measured by one feature network.
"""


def front_sentence(verdicts: Sequence[Verdict]) -> str:
    """What was found, in one sentence."""
    tested = [v for v in verdicts if v.effect is not None]
    if not tested:
        return "One-step generators, grown from a diffusion teacher; no claim was tested yet."
    counts, claims = Counter(v.outcome for v in tested), {v.claim.id for v in tested}
    idle = {v.claim.id for v in verdicts} - claims
    left = f"; {len(idle)} more claims were not tested" if idle else ""
    return (
        "One-step image generators, grown from a diffusion teacher of low resolution as in the "
        f"PaGoDA paper, trained small enough for two CPU cores: of {len(tested)} verdicts on "
        f"{len(claims)} claims, **{counts[SUPPORTED]} support them**, {counts[REFUTED]} do not, "
        f"and {counts[OPEN]} {'is' if counts[OPEN] == 1 else 'are'} open{left}."
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
    """Distances of one profile over its training seeds, a line a resolution; None without them.

    Lines are the resolutions that the grown generator has, and the images of training. None, too,
    where the values are not of one protocol and one feature network: their distances are on
    different scales.
    """
    known = [row for study in studies if study.card.study == _STUDY for row in study.rows]
    cells: dict[str, dict[int, list[Row]]] = {}
    for column, place in _COLUMNS.items():
        found = [r for r in known if r.metric == "fd" and (r.variant, r.generator) == place]
        if found:
            cells[column] = grouped(found, lambda row: row.size)
    sizes = sorted(cells.get(next(iter(_COLUMNS)), ()))
    rows = [row for found in cells.values() for size in sizes for row in found.get(size, ())]
    if not rows or len({(row.protocol, row.features) for row in rows}) > 1:
        return None
    lines: list[tuple[str | Cell, ...]] = [
        (f"{size}×{size}", *(_cell(found.get(size, [])) for found in cells.values()))
        for size in sizes
    ]
    lines.append(
        ("Images of training", *(_seen(found.get(sizes[-1], [])) for found in cells.values()))
    )
    seeds, first = len({row.training_seed for row in rows}), rows[0]
    caption = (
        f"**Fréchet distance to real images** (lower is better): mean of {seeds} training seeds "
        f"and its {CONFIDENCE:.0%} interval; `{first.protocol}`, {first.n:,} images each, all in "
        f"the features of one small classifier of these data ({short(first.features)}), so no "
        "FID. The last line is what training above the base saw; what the other ways lack at this "
        "size is with the claims on them. Profile "
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


def _seen(rows: Sequence[Row]) -> str:
    """The images of training, of all seeds as many; a dash for real images, or untold."""
    found = {None if row.generator in REAL else row.images_seen for row in rows}
    (seen,) = found if len(found) == 1 else (None,)
    return f"{seen:,}" if seen else "–"
