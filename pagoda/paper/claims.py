"""Claims and their rules, fixed in ``experiments/<study>/study.yaml`` before the runs; verdicts.

A claim reads::

    - id: pairs.one_percent            # unique; its part before the dot names nothing
      claim: One percent of the pairs gives the same quality.
      source: paper, section 5.1       # or: study
      metric: fd                       # StudyRow.metric; every protocol of it is judged by itself
      generator: student               # StudyRow.generator
      resolution: base                 # base, target, grown (all above the base) or pixels
      value: [share_0.01]              # arms
      against: [share_1]               # arms, paired with those of `value`; one stands for all
      against_generator: student       # if it differs from `generator`
      effect: ratio                    # ratio, difference, slope or value
      holds: {below: 1.1}              # or above
      seeds: 3                         # at least
      refuted: what would refute it, in words
      after_run: what was already known of it; left out where the rule came before the runs

Effects, one number a training seed, averaged over pairs of arms and over resolutions:

- ``ratio``: value / against, averaged as logarithms (a geometric mean);
- ``difference``: value − against;
- ``slope``: exponent b of y = a·x^b over the arms, y the generator's metric and x the teacher's,
  least squares in logarithms, ``value`` minus ``against``: how closely a student follows its
  teacher;
- ``value``: the value itself, no ``against``.

The interval is Student's, at 95 %, over the paired seeds (:func:`t_interval`); for a ratio it is
taken over logarithms. A claim is *supported* if the whole interval is strictly on the side that
``holds`` names, *not supported* if the whole interval is on the other side or on the limit, and
there is *not enough evidence* if the limit lies inside, if fewer seeds than ``seeds`` have every
value, if a run of a seed failed or is missing, or if nothing was run. Counts (:data:`EXACT`: FLOPs,
parameters, NFE) do not depend on the seed: where all seeds agree the interval is that value, from
one seed too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pagoda.config import read_yaml
from pagoda.errors import PagodaError
from pagoda.report.derived import EXACT, with_derived
from pagoda.report.intervals import Interval, t_interval
from pagoda.report.studies import StudyResults, StudyRow

FOLDER = Path("experiments")
FILE = "experiments/<study>/study.yaml"
SUPPORTED, REFUTED, OPEN = "supported", "not supported", "not enough evidence"
EFFECTS = ("ratio", "difference", "slope", "value")
MIN_SEEDS = 3
_OTHER = "on the other side of the limit"
_JOINED = {"ratio": "over", "difference": "minus", "slope": "minus that of"}
_PLACES: dict[str | int, str] = {
    "base": "at the base", "target": "at the target", "grown": "over all grown resolutions",
}  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """One claim and its rule; see the module's text for the fields."""

    id: str
    claim: str
    source: str
    study: str
    metric: str
    generator: str
    resolution: str | int
    value: tuple[str, ...]
    effect: str
    holds: Mapping[str, float]
    seeds: int
    refuted: str
    against: tuple[str, ...] = ()
    against_generator: str = ""
    after_run: str = ""

    @property
    def limit(self) -> float:
        """Where the effect turns from one verdict to the other."""
        return float(next(iter(self.holds.values())))

    @property
    def below(self) -> bool:
        """True if the claim wants an effect below the limit."""
        return "below" in self.holds

    @property
    def side(self) -> str:
        """The limit as a bound: ``< 1``."""
        return f"{'<' if self.below else '>'} {self.limit:g}"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Arms to compare: (value, against)."""
        against = self.against or self.value
        if len(against) == 1:
            against *= len(self.value)
        return list(zip(self.value, against, strict=True))

    def rule(self) -> str:
        """The rule in words."""
        who = "" if self.generator == "none" else f", {self.generator}"
        where = _PLACES.get(self.resolution, f"at {self.resolution}×{self.resolution}")
        ours = ", ".join(f"`{arm}`" for arm in self.value)
        theirs = ", ".join(f"`{arm}`" for arm in self.against or self.value)
        if self.against_generator:
            theirs += f" ({self.against_generator})"
        arms = ours if self.effect == "value" else f"{ours} {_JOINED[self.effect]} {theirs}"
        return (
            f"{self.effect} of `{self.metric}`{who} {where}: {arms}; "
            f"{'below' if self.below else 'above'} {self.limit:g}, {self.seeds} seeds"
        )


@dataclass(frozen=True)
class Judgement:
    """A claim judged on one profile under one protocol.

    Attributes:
        claim: what was judged.
        verdict: :data:`SUPPORTED`, :data:`REFUTED` or :data:`OPEN`.
        reason: why, in words.
        profile: it was judged on; empty if the study was not run.
        protocol: of the values; empty if there are none.
        effect: over seeds; None if there is none.
        seeds: the effect of each seed.
        study: what the values come from.
    """

    claim: Claim
    verdict: str
    reason: str
    profile: str = ""
    protocol: str = ""
    effect: Interval | None = None
    seeds: Mapping[int, float] = dataclasses.field(default_factory=dict)
    study: StudyResults | None = None


def read_claims(folder: Path = FOLDER) -> list[Claim]:
    """Read and check the claims of every study in a folder.

    Raises:
        PagodaError: one line that names the claim and what is wrong with its rule.
    """
    claims = []
    for file in sorted(folder.glob("*/study.yaml")):
        tree = read_yaml(file)
        trees = tree.get("claims", []) if isinstance(tree, dict) else None
        if not isinstance(trees, list):
            raise PagodaError(f"{file}: claims = {trees!r}; it must be a list of claims")
        claims += [
            _claim(c, f"{file}, claim {n}", file.parent.name) for n, c in enumerate(trees, 1)
        ]
    if len({c.id for c in claims}) < len(claims):
        raise PagodaError(f"{folder}: two claims have one id")
    return claims


def judge_all(claims: Sequence[Claim], studies: Sequence[StudyResults]) -> list[Judgement]:
    """Every claim on every profile its study ran at, under every protocol found."""
    found: list[Judgement] = []
    studies = [with_derived(study) for study in studies]
    for claim in claims:
        ran = [s for s in studies if s.card.study == claim.study]
        found += [j for study in ran for j in judge(claim, study)]
        if not ran:
            found.append(Judgement(claim, OPEN, "the study was not run"))
    return found


def judge(claim: Claim, study: StudyResults) -> list[Judgement]:
    """One judgement a protocol of the claim's metric; one without numbers if there is none."""
    card = study.card
    rows = [r for r in study.rows if r.metric == claim.metric]
    protocols = sorted({r.protocol for r in rows if r.generator == claim.generator})
    if not protocols:
        reason = f"no {claim.metric} of {claim.generator} was measured"
        return [Judgement(claim, OPEN, reason, card.profile, study=study)]
    made = []
    for protocol in protocols:
        effects = _effects(claim, [r for r in rows if r.protocol == protocol])
        verdict, reason, effect = _decide(claim, effects)
        if effect is not None and (lacking := _lacking(claim, study, effects)):
            named = ", ".join(map(str, lacking))
            verdict, reason = (
                OPEN,
                f"runs of seed {named} failed or are missing: what is left is no fair sample",
            )
        if effect is not None and claim.effect == "ratio":
            mean, low, high = (_exp(v) for v in (effect.mean, effect.low, effect.high))
            effect = Interval(mean, low, high, effect.n)
            effects = {seed: math.exp(value) for seed, value in effects.items()}
        made.append(
            Judgement(claim, verdict, reason, card.profile, protocol, effect, effects, study)
        )
    return made


def _decide(claim: Claim, effects: Mapping[int, float]) -> tuple[str, str, Interval | None]:
    if not effects:
        return OPEN, "no seed has a value for every arm", None
    interval = t_interval(list(effects.values()))
    limit = math.log(claim.limit) if claim.effect == "ratio" else claim.limit
    sign = 1.0 if claim.below else -1.0
    needed = max(claim.seeds, MIN_SEEDS)
    if exact(claim) and len(set(effects.values())) == 1:
        interval = Interval(interval.mean, interval.mean, interval.mean, interval.n)
    elif interval.n < needed:
        side = "on the claim's side" if sign * interval.mean < sign * limit else _OTHER
        few = "no interval; the value" if interval.n == 1 else "the mean"
        asked = f"one seed of {needed}" if interval.n == 1 else f"{interval.n} seeds of {needed}"
        return OPEN, f"{asked}; {few} is {side}", interval
    nearest, farthest = sorted((sign * interval.low, sign * interval.high))
    what = "the count" if interval.low == interval.high else "the whole interval"
    if farthest < sign * limit:
        return SUPPORTED, f"{what} is where the claim wants it", interval
    if nearest >= sign * limit:
        return REFUTED, f"{what} is {_OTHER}", interval
    return OPEN, "the limit is inside the interval", interval


def _lacking(claim: Claim, study: StudyResults, effects: Mapping[int, float]) -> list[int]:
    """Seeds that some arm of the claim was run with, but not every one to its end.

    Left out of Student's interval, failed runs make it too narrow: with one of five missing it
    holds 60 of 100 times instead of 95. A count has no such trouble.
    """
    arms = {*claim.value, *claim.against}
    tried = {r.seed for r in study.rows if r.arm in arms}
    return [] if exact(claim) else sorted(tried - set(effects))


def exact(claim: Claim) -> bool:
    """True if the claim is about a count, which no seed changes."""
    return claim.metric in EXACT


def _effects(claim: Claim, rows: Sequence[StudyRow]) -> dict[int, float]:
    """Effect by seed; logarithms of ratios. Seeds without every value are left out."""
    found = {}
    for seed in sorted({r.seed for r in rows}):
        own = [r for r in rows if r.seed == seed]
        effect = _slopes(claim, own, rows) if claim.effect == "slope" else _paired(claim, own)
        if effect is not None:
            found[seed] = effect
    return found


def _paired(claim: Claim, rows: Sequence[StudyRow]) -> float | None:
    combine: dict[str, Callable[[float, float], float]] = {
        "ratio": lambda a, b: math.log(a / b),
        "difference": lambda a, b: a - b,
        "value": lambda a, _: a,
    }
    effects = []
    for first, second in claim.pairs:
        ours = _values(claim, rows, first, claim.generator)
        theirs = _values(claim, rows, second, claim.against_generator or claim.generator)
        if not ours or list(ours) != list(theirs):
            return None
        for where, a in ours.items():
            b = theirs[where]
            if _unlike(a, b) or (claim.effect == "ratio" and min(a.value, b.value) <= 0):
                return None
            effects.append(combine[claim.effect](a.value, b.value))
    return math.fsum(effects) / len(effects)


def _slopes(claim: Claim, own: Sequence[StudyRow], rows: Sequence[StudyRow]) -> float | None:
    """Difference of the exponents with which students follow their teachers."""
    slopes = [_slope(claim, arms, own, rows) for arms in (claim.value, claim.against)]
    first, second = slopes
    return None if first is None or second is None else first - second


def _slope(
    claim: Claim, arms: Sequence[str], own: Sequence[StudyRow], rows: Sequence[StudyRow]
) -> float | None:
    points = []
    for arm in arms:
        students = list(_values(claim, own, arm, claim.generator).values())
        if len(students) != 1:
            return None
        teachers = _teachers(students[0], claim.against_generator or "teacher", rows)
        values = [students[0].value, *(t.value for t in teachers)]
        if not teachers or min(values) <= 0:
            return None
        x = math.fsum(math.log(t.value) for t in teachers) / len(teachers)
        points.append((x, math.log(students[0].value)))
    x_all, y_all = np.array(points).T
    if len(points) < 2 or np.ptp(x_all) == 0:
        return None
    return float(np.polyfit(x_all, y_all, 1)[0])


def _teachers(student: StudyRow, generator: str, rows: Sequence[StudyRow]) -> list[StudyRow]:
    """The student's own teacher; else those at its place on the axis, which arms share."""
    alike = [r for r in rows if r.generator == generator and r.resolution == student.resolution
             and not _unlike(r, student)]  # fmt: skip
    own = [r for r in alike if (r.arm, r.seed) == (student.arm, student.seed)]
    return own or [r for r in alike if r.axis is not None and r.axis == student.axis]


def _values(
    claim: Claim, rows: Sequence[StudyRow], arm: str, generator: str
) -> dict[int, StudyRow]:
    """The arm's rows by resolution, ascending."""
    own = [r for r in rows if r.arm == arm and r.generator == generator]
    everywhere = {r.resolution for r in rows if r.arm == arm}
    wanted: dict[str | int, Callable[[StudyRow], bool]] = {
        "base": lambda r: r.resolution == r.base_res,
        "target": lambda r: r.resolution == max(everywhere),
        "grown": lambda r: r.resolution > r.base_res,
    }
    test = wanted.get(claim.resolution, lambda r: r.resolution == claim.resolution)
    found = sorted((r for r in own if test(r)), key=lambda r: r.resolution)
    return {r.resolution: r for r in found}


def _unlike(a: StudyRow, b: StudyRow) -> bool:
    """True if two values were held against different references, or seen by other features."""
    return (a.reference, a.features) != (b.reference, b.features)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _claim(tree: Any, where: str, study: str) -> Claim:
    if not isinstance(tree, dict):
        raise PagodaError(f"{where} is not a mapping")
    tree = tree | {"study": study}
    where = f"{where} ({tree.get('id', 'no id')})"
    names = {f.name: f.default is dataclasses.MISSING for f in dataclasses.fields(Claim)}
    missing = [n for n, needed in names.items() if needed and n not in tree]
    if wrong := missing + sorted(set(tree) - set(names)):
        raise PagodaError(f"{where}: missing or unknown keys: {', '.join(wrong)}")
    lists = {k: tuple(tree[k]) for k in ("value", "against") if k in tree}
    claim = Claim(**(tree | lists))
    for holds, what in _checks(claim):
        if not holds:
            raise PagodaError(f"{where}: {what}")
    return claim


def _checks(c: Claim) -> list[tuple[bool, str]]:
    sides = isinstance(c.holds, dict) and len(c.holds) == 1 and set(c.holds) <= {"below", "above"}
    pairs = not c.against or len(c.against) in (1, len(c.value)) or c.effect == "slope"
    known = c.resolution in ("base", "target", "grown") or isinstance(c.resolution, int)
    positive = not sides or c.effect != "ratio" or c.limit > 0
    lonely = c.effect == "value" or bool(c.against or c.against_generator)
    return [
        (sides, "holds must be {below: number} or {above: number}"),
        (c.effect in EFFECTS, f"effect must be one of {', '.join(EFFECTS)}"),
        (bool(c.value), "value names no arm"),
        (pairs, "against must name one arm, or as many as value"),
        (lonely, "a comparison needs against or against_generator"),
        (known, "resolution must be base, target, grown or pixels"),
        (positive, "the limit of a ratio must be above 0"),
        (c.seeds >= MIN_SEEDS, f"seeds must be at least {MIN_SEEDS}"),
        (bool(str(c.refuted).strip()), "refuted is empty; say what would refute the claim"),
    ]
