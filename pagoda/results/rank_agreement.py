"""Whether feature networks put the same generators in the same order: Spearman's rank correlation.

The order by one network's distance is not the order of quality. Generators are compared where two
networks saw the same images; real ones are no generator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

from scipy.stats import spearmanr

from pagoda.results.blocks import Cell, Table, table
from pagoda.results.labels import DISTANCES, REAL, generator_label, generator_within
from pagoda.results.numbers import number
from pagoda.results.runs import Run
from pagoda.results.studies import StudyResults
from pagoda.rows import Row, grouped

LEAST = 3  # generators that have an order worth a correlation
_LISTED = 3  # pairs named in a cell; all are in its title
_CAPTION = (
    "**Agreement in rank** of the Fréchet distances of the same generators in the features of two "
    "networks: n generators, untrained ones among them and real images not; Spearman's ρ, 1 where "
    "the orders are the same; and the pairs that change order, the nearer one by the first network "
    "first. Means over the seeds that both networks saw; a teacher that several variants share "
    "counts once. A value of one protocol is never set against one of another: only their orders "
    "are."
)


class Measured(NamedTuple):
    """A distance of a generator."""

    name: str  # for readers
    key: tuple[object, ...]  # tells it from the others of its place, beside what its row says
    row: Row


class Both(NamedTuple):
    """A generator's distances in the features of two networks."""

    name: str
    first: float
    second: float


def rank_table(runs: Sequence[Run], studies: Sequence[StudyResults]) -> Table | None:
    """A line a place, resolution and pair of networks; None where there is no such pair."""
    lines = [
        (where, f"{size}×{size}", *line)
        for where, found in _places(runs, studies)
        for size, own in sorted(grouped(found, lambda item: item.row.size).items())
        for line in _lines(own)
    ]
    header = ("Where", "Resolution", "First", "Second", "n", "ρ", "Pairs in another order")
    return table(_CAPTION, header, lines, "llllrrl") if lines else None


def _places(
    runs: Sequence[Run], studies: Sequence[StudyResults]
) -> Iterator[tuple[str, list[Measured]]]:
    """The distances of every profile and every study."""
    for profile, own in grouped(runs, lambda run: run.profile).items():
        found = []
        for run in own:
            which = f" ({run.label})" if len(own) > 1 else ""
            found += [Measured(generator_label(row.generator) + which, (run.origin,), row)
                      for row in _distances(run.rows)]  # fmt: skip
        yield f"`{profile}`", found
    for study in studies:
        card = study.card
        found = [
            Measured(f"{card.variants[row.variant]}: {generator_within(row.generator)}",
                     (row.variant,), row)
            for row in _distances(study.rows)
        ]  # fmt: skip
        yield f"study `{card.study}` (`{card.profile}`)", found


def _distances(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.metric in DISTANCES and row.generator not in REAL]


def _lines(found: Sequence[Measured]) -> Iterator[tuple[str | Cell, ...]]:
    """Protocols, n, ρ and pairs, for each two networks that saw enough of the same generators."""
    networks = grouped(found, lambda m: (m.row.features, m.row.protocol, m.row.reference))
    for (one, own), (two, others) in combinations(networks.items(), 2):
        values = _matched(own, others)
        if one[0] == two[0] or len(values) < LEAST:
            continue
        told = "; ".join(f"{v.name}: {v.first!r}, {v.second!r}" for v in values)
        changed = [
            f"{x.name}, {y.name}" if x.first < y.first else f"{y.name}, {x.name}"
            for x, y in combinations(values, 2)
            if (x.first - y.first) * (x.second - y.second) < 0
        ]
        rho = float(spearmanr([v.first for v in values], [v.second for v in values]).statistic)
        yield (f"`{one[1]}`", f"`{two[1]}`", str(len(values)), Cell(number(rho), told),
               _pairs(changed, len(values)))  # fmt: skip


def _matched(own: Sequence[Measured], others: Sequence[Measured]) -> list[Both]:
    """Both networks' distances of each generator: means over the seeds of both.

    One that several variants of a study share is one: the same two distances.
    """

    def by_images(items: Sequence[Measured]) -> dict[tuple[object, ...], Measured]:
        return {
            (*m.key, m.row.generator, m.row.base_res, m.row.nfe, m.row.n,
             (m.row.seed, m.row.training_seed)): m
            for m in items
        }  # fmt: skip

    first, second = by_images(own), by_images(others)
    seeds = grouped((key for key in first if key in second), lambda key: key[:-1])
    found: dict[tuple[float, ...], Both] = {}
    for keys in seeds.values():
        pair = tuple(fmean(side[k].row.number for k in keys) for side in (first, second))
        found.setdefault(pair, Both(first[keys[0]].name, *pair))
    return list(found.values())


def _pairs(changed: Sequence[str], n: int) -> Cell:
    count = f"{len(changed)} of {n * (n - 1) // 2}"
    if not changed:
        return Cell(count)
    more = len(changed) - _LISTED
    shown = "; ".join(changed[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
    return Cell(f"{count}: {shown}", "; ".join(changed))
