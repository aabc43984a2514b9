"""The study of base resolutions in the shape of the paper's table 2."""

from __future__ import annotations

from collections.abc import Sequence

from pagoda.results.blocks import Grid, Table
from pagoda.results.labels import DISTANCES, OWN, generator_label
from pagoda.results.numbers import mean_cell, provenance
from pagoda.results.studies import StudyResults
from pagoda.rows import Row, grouped

_STUDY = "base_resolution"
_COSTS = {
    "train_flops": ("Training, TFLOP ↓", 1e-12),
    "seconds_per_image": ("A target image, ms ↓", 1e3),
}


def base_tables(studies: Sequence[StudyResults]) -> dict[str, Table]:
    """Of each profile that the study ran on, by the name of its files."""
    return {f"{_STUDY.replace('_', '-')}-study-{study.card.profile}": _table(study.with_derived())
            for study in studies if study.card.study == _STUDY}  # fmt: skip


def _table(study: StudyResults) -> Table:
    """A line a base, lowest first: distances on the way to the target, and what that took."""
    grid, shown = Grid("Base", "Resolutions", "NFE"), []
    own = grouped((r for r in study.rows if r.generator in OWN), lambda r: r.variant)
    ways = {v: sorted({r.size for r in rows if r.metric in DISTANCES}) for v, rows in own.items()}
    for variant in sorted((v for v in ways if ways[v]), key=lambda v: ways[v]):
        rows, way = own[variant], ways[variant]
        distances = [r for r in rows if r.metric in DISTANCES]
        nfe = str(max(r.nfe or 0 for r in distances))
        line = grid.line(f"{way[0]}×{way[0]}", " → ".join(map(str, way)), nfe, key=(variant,))
        shown += distances
        for column, found in _by_column(distances).items():
            line.add(column, mean_cell(found))
        for metric, (column, scale) in _COSTS.items():
            if found := [r for r in rows if r.metric == metric and r.size == way[-1]]:
                line.add(column, mean_cell(found, scale))
    floor = [r for r in study.rows if r.generator == "real" and r.metric in DISTANCES]
    line = grid.line(generator_label("real"), "", "")
    for column, found in _by_column(floor).items():
        first = next(iter(grouped(found, lambda r: r.variant).values()))
        line.add(column, mean_cell(first))
    card, seeds = study.card, sorted({r.training_seed or 0 for r in shown})
    return grid.table(
        f"**Base resolution, measured here, scaled down**, study {card.study}, profile "
        f"`{card.profile}`: {card.data}. Fréchet distance at every resolution on the way from each "
        f"base, mean over up to {len(seeds)} training seeds ± half of Student's 95 % interval; "
        "FLOPs of every training stage, counted; time of one image at the target. "
        f"{provenance(shown)}"
    )


def _by_column(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Lowest resolution first."""
    found = sorted(rows, key=lambda r: (r.size, r.protocol))
    return grouped(found, lambda r: f"{r.metric.upper()} {r.size}×{r.size} ↓ `{r.protocol}`")
