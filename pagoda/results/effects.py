"""The effect that a claim is about, one number a seed; :mod:`.claims` tells of the kinds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pagoda.errors import PagodaError
from pagoda.rows import Row

if TYPE_CHECKING:
    from pagoda.results.claims import Claim


def effects_of(claim: Claim, rows: Sequence[Row]) -> dict[int, float]:
    """Effect by seed; logarithms of ratios. Seeds without every value are left out."""
    found = {}
    for seed in sorted({r.training_seed for r in rows if r.training_seed is not None}):
        own = [r for r in rows if r.training_seed == seed]
        if claim.effect == "slope":
            ours, theirs = (_slope(claim, v, own, rows) for v in (claim.value, claim.against))
            effect = None if ours is None or theirs is None else ours - theirs
        elif claim.effect == "order":
            effect = _order(claim, own)
        else:
            effect = _paired(claim, own)
        if effect is not None:
            found[seed] = effect
    return found


def by_size(claim: Claim, rows: Sequence[Row]) -> dict[int, float]:
    """The mean effect at each resolution, of a claim over several; none of any other claim."""
    if claim.resolution != "grown":
        return {}
    found = {}
    for size in sorted({r.size for r in rows if r.size > (r.base_res or 0)}):
        at = effects_of(dataclasses.replace(claim, resolution=size), rows)
        if at:
            mean = math.fsum(at.values()) / len(at)
            found[size] = math.exp(mean) if claim.effect == "ratio" else mean
    return found if len(found) > 1 else {}


def _paired(claim: Claim, rows: Sequence[Row]) -> float | None:
    effects = []
    for first, second in claim.pairs:
        ours = _values(claim, rows, first, claim.generator)
        theirs = _values(claim, rows, second, claim.against_generator or claim.generator)
        if not ours or list(ours) != list(theirs):
            return None
        for where, a in ours.items():
            b = theirs[where]
            if _unlike(a, b) or (claim.effect == "ratio" and min(a.number, b.number) <= 0):
                return None
            if claim.effect == "ratio":
                effects.append(math.log(a.number / b.number))
            else:
                effects.append(a.number - (b.number if claim.effect == "difference" else 0.0))
    return math.fsum(effects) / len(effects)


def _order(claim: Claim, own: Sequence[Row]) -> float | None:
    """Rank correlation of one seed's variants: the generator here, the other one at the base."""
    from scipy.stats import rankdata

    at_base = dataclasses.replace(claim, resolution="base")
    points = []
    for variant in claim.value:
        ours = list(_values(claim, own, variant, claim.generator).values())
        theirs = list(_values(at_base, own, variant, claim.against_generator).values())
        if len(ours) != 1 or len(theirs) != 1:
            return None
        points.append((ours[0].number, theirs[0].number))
    x, y = (rankdata(values) for values in zip(*points, strict=True))
    return None if np.ptp(x) == 0 or np.ptp(y) == 0 else float(np.corrcoef(x, y)[0, 1])


def _slope(
    claim: Claim, variants: Sequence[str], own: Sequence[Row], rows: Sequence[Row]
) -> float | None:
    """Exponent with which students of one seed follow their teachers, which seeds may share."""
    points = []
    for variant in variants:
        students = list(_values(claim, own, variant, claim.generator).values())
        if len(students) != 1:
            return None
        student, name = students[0], claim.against_generator or "teacher"
        alike = [r for r in rows if r.generator == name and r.resolution == student.resolution
                 and not _unlike(r, student)]  # fmt: skip
        key = student.variant, student.training_seed
        teachers = [r for r in alike if (r.variant, r.training_seed) == key]
        teachers = teachers or [r for r in alike if r.axis is not None and r.axis == student.axis]
        if not teachers or min(r.number for r in (student, *teachers)) <= 0:
            return None
        x = math.fsum(math.log(t.number) for t in teachers) / len(teachers)
        points.append((x, math.log(student.number)))
    x_all, y_all = np.array(points).T
    if len(points) < 2 or np.ptp(x_all) == 0:
        return None
    return float(np.polyfit(x_all, y_all, 1)[0])


def _values(claim: Claim, rows: Sequence[Row], variant: str, generator: str) -> dict[int, Row]:
    """The variant's rows by resolution, ascending, where the claim looks."""
    own = sorted((r for r in rows if r.variant == variant), key=lambda r: r.size)
    here: dict[str | int, Callable[[Row], bool]] = {
        "base": lambda r: r.resolution == r.base_res,
        "target": lambda r: r.size == own[-1].size,
        "grown": lambda r: r.size > (r.base_res or 0),
    }
    looks = here.get(claim.resolution, lambda r: r.resolution == claim.resolution)
    found: dict[int, Row] = {}
    for row in own:
        if row.generator == generator and looks(row) and found.setdefault(row.size, row) != row:
            raise PagodaError(
                f"{claim.id}: {variant} has more than one {claim.metric} of {generator} at "
                f"{row.size} pixels, seed {row.training_seed}, under {row.protocol}"
            )
    return found


def _unlike(a: Row, b: Row) -> bool:
    """True if two values were compared with different references, or seen by other features."""
    return (a.reference, a.features) != (b.reference, b.features)
