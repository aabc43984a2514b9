"""Claims and their rules, fixed in ``experiments/<study>/study.yaml`` before the runs.

Verdicts on them are :mod:`~pagoda.results.claim_verdicts`.

A claim, one of the list ``claims`` of that file, reads::

    - id: pairs.one_percent            # unique
      claim: One percent of the pairs gives the same quality.
      source: paper, section 5.1       # or: study
      metric: fd                       # every protocol of it has a verdict of its own
      generator: student
      resolution: base                 # base, target, grown (all above the base) or pixels
      value: [share-1]                 # variants
      against: [share-100]             # variants, paired with those of `value`; or one for all
      against_generator: student       # if it differs from `generator`
      effect: ratio                    # ratio, difference, slope or value
      holds: {below: 1.1}              # or above
      smallest: 1.0                    # weakest effect that would count; left out: the limit
      seeds: 3                         # at least
      pilot: {spread: 0.2, run: smoke at 1a2b3c4}  # of an earlier run; may be left out
      refuted: what would refute it, in words
      after_run: what was already known of it; left out where the rule came before the runs
      caveat: what a reader of the verdict has to know; may be left out
      profiles:                        # what came of it on one profile; may be left out
        evidence:
          looks: 2                     # times that it was decided, with more seeds or anew; left
                                       # out: 1
          first: 5                     # only so many seeds, from the lowest, where later ones were
                                       # made of other variants for another claim; may be left out
          caveat: one of this profile  # beside that of all

Effects, one number a training seed, averaged over pairs of variants and over resolutions:

- ``ratio``: value / against, averaged as logarithms (a geometric mean);
- ``difference``: value − against;
- ``slope``: exponent b of y = a·x^b over the variants, y the generator's metric and x the
  teacher's, least squares in logarithms, ``value`` minus ``against``: how closely students follow;
- ``order``: Spearman's rank correlation over the variants (three or more) of the generator's metric
  and ``against_generator``'s at the base: 1 where both put the variants in one order;
- ``value``: the value itself, no ``against``.

The interval is Student's, at 95 %, over the paired seeds; for a ratio it is taken over logarithms,
and for an order it ends at 1 (noise of each seed's values pulls orders towards 0); where all seeds
of a claim have the same effect, it has no width. Where a claim was decided before, with fewer seeds
or by other runs, it is at 1 - 5 % / ``looks`` (Bonferroni). A claim is *supported* if the whole
interval is strictly on the side that ``holds`` names and its middle is as strong as ``smallest``;
*not supported* if the whole interval is on the other side of ``smallest``, or on it: an effect that
would count is then ruled out, as in a test of equivalence (Schuirmann 1987). Otherwise, and where
seeds are too few or missing, there is *not enough evidence*. A ``pilot`` tells before the run how
strong an effect has to be for the seeds to show it beyond the limit at a first look
(:func:`~pagoda.results.numbers.detectable`); its ``spread`` is the standard deviation of the effect
over seeds, in logarithms for a ratio. Counts (:data:`~pagoda.results.studies.EXACT`) do not depend
on the seed: one is enough.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pagoda.config import read_yaml
from pagoda.errors import PagodaError
from pagoda.results.labels import TOTALS, quantities
from pagoda.results.numbers import CONFIDENCE, detectable
from pagoda.results.studies import AS_METRICS, EXACT

FOLDER = Path("experiments")
FILE = "experiments/<study>/study.yaml"
EFFECTS = ("ratio", "difference", "slope", "order", "value")
MIN_SEEDS = 3
_TEXTS = ("id", "claim", "source", "metric", "generator", "against_generator", "effect", "refuted",
          "after_run", "caveat")  # fmt: skip
_OF_A_PROFILE = ("looks", "first")
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
    smallest: float | None = None
    pilot: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    after_run: str = ""
    caveat: str = ""
    profiles: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    looks: int = 1  # these two of the profile alone
    first: int | None = None

    def on(self, profile: str) -> Claim:
        """The claim with what came of it on one profile."""
        own = dict(self.profiles.get(profile, {}))
        caveat = f"{self.caveat} {own.pop('caveat', '')}".strip()
        return dataclasses.replace(self, **own, caveat=caveat)

    @property
    def limit(self) -> float:
        """Where the effect turns from one verdict to the other."""
        return float(next(iter(self.holds.values())))

    @property
    def below(self) -> bool:
        """True if the claim wants an effect below the limit."""
        return "below" in self.holds

    @property
    def counts_from(self) -> float:
        """The weakest effect that would count: at the limit, or beyond it."""
        return self.limit if self.smallest is None else float(self.smallest)

    @property
    def confidence(self) -> float:
        """Of the interval that decides: every look has its share of the error."""
        return 1.0 - (1.0 - CONFIDENCE) / self.looks

    @property
    def exact(self) -> bool:
        """True if the claim is about a count, which no seed changes."""
        return self.metric in EXACT

    def on_scale(self, effect: float) -> float:
        """An effect where its spread over seeds is taken: logarithms of ratios."""
        if self.effect != "ratio":
            return effect
        return math.log(effect) if effect > 0 else -math.inf

    def shown(self) -> float | None:
        """The weakest effect that its seeds show with the power of :func:`detectable`, if a pilot
        tells.
        """
        if not self.pilot:
            return None
        away = detectable(float(self.pilot["spread"]), self.seeds)
        found = self.on_scale(self.limit) + (-away if self.below else away)
        return math.exp(found) if self.effect == "ratio" else found

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Variants to compare: (value, against)."""
        against = self.against or self.value
        return list(zip(self.value, against * (len(self.value) if len(against) == 1 else 1),
                        strict=True))  # fmt: skip

    def rule(self) -> str:
        """The rule in words."""
        who = "" if self.generator == "none" else f", {self.generator}"
        where = _PLACES.get(self.resolution, f"at {self.resolution}×{self.resolution}")
        told = ", ".join(f"`{variant}`" for variant in self.value)
        if self.effect == "order":
            told += f" as the {self.against_generator} at the base"
        elif self.effect != "value":
            theirs = ", ".join(f"`{variant}`" for variant in self.against or self.value)
            told += f" {_JOINED[self.effect]} {theirs}"
            told += f" ({self.against_generator})" if self.against_generator else ""
        return (
            f"{self.effect} of `{self.metric}`{who} {where}: {told}; "
            f"{'below' if self.below else 'above'} {self.limit:g}"
            f"{'' if self.smallest is None else f' (counts from {self.smallest:g})'}, "
            f"{self.seeds} seeds{''.join(map(self._history, self.profiles))}"
        )

    def _history(self, profile: str) -> str:
        own = self.profiles[profile]
        told = [f"of the first {own['first']}"] if "first" in own else []
        told += [f"decided {own['looks']} times"] if own.get("looks", 1) > 1 else []
        return f"; on `{profile}` {', '.join(told)}" if told else ""


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
        study, variants = file.parent.name, tree.get("variants", {})
        if trees and not isinstance(variants, dict):
            raise PagodaError(f"{file}: variants = {variants!r}; it must be a mapping of variants")
        if not isinstance(tree.get("metrics", []), list):
            raise PagodaError(
                f"{file}: metrics = {tree['metrics']!r}; it must be a list of metrics"
            )
        for metric in tree.get("metrics", []):
            if wrong := _no_metric(metric):
                raise PagodaError(f"{file}, metrics: {wrong}")
        claims += [_claim(c, f"{file}, claim {n}", study, variants) for n, c in enumerate(trees, 1)]
    if len({c.id for c in claims}) < len(claims):
        raise PagodaError(f"{folder}: two claims have one id")
    return claims


def _claim(tree: Any, where: str, study: str, variants: Mapping[str, Any]) -> Claim:
    if not isinstance(tree, dict):
        raise PagodaError(f"{where} is not a mapping")
    tree = tree | {"study": study}
    where = f"{where} ({tree.get('id', 'no id')})"
    names = {
        f.name: f.default is f.default_factory is dataclasses.MISSING
        for f in dataclasses.fields(Claim)
        if f.name not in _OF_A_PROFILE
    }
    missing = [n for n, needed in names.items() if needed and n not in tree]
    if wrong := missing + sorted(map(str, set(tree) - set(names))):
        raise PagodaError(f"{where}: missing or unknown keys: {', '.join(wrong)}")
    for name in ("value", "against"):
        if not isinstance(tree.get(name, []), list):
            raise PagodaError(f"{where}: {name} must be a list of variants")
    lists = {k: tuple(tree[k]) for k in ("value", "against") if k in tree}
    for name in _TEXTS:
        if not isinstance(tree.get(name, ""), str):
            raise PagodaError(f"{where}: {name} = {tree[name]!r}; it must be text")
    for variant in map(str, itertools.chain(*lists.values())):
        if variant not in variants:
            near = get_close_matches(variant, variants, 1) or sorted(map(str, variants)) or ["none"]
            raise PagodaError(f"{where}: no variant {variant!r}; there is {', '.join(near)}")
    claim = Claim(**(tree | lists))
    for holds, what in _checks(claim):
        if not holds:
            raise PagodaError(f"{where}: {what}")
    for profile, own in claim.profiles.items():
        for holds, what in _history_checks(claim, own):
            if not holds:
                raise PagodaError(f"{where}, profiles, {profile}: {what}")
    return claim


def _no_metric(name: Any) -> str:
    """Why a metric is none; empty if it is one."""
    known = {*quantities(), *AS_METRICS, *TOTALS.values()}
    near = get_close_matches(str(name), sorted(known), 1) or sorted(known)
    return "" if name in known else f"no row has metric {name!r}; there is {', '.join(near)}"


def _checks(c: Claim) -> Iterable[tuple[bool, str]]:
    sides = isinstance(c.holds, dict) and len(c.holds) == 1 and set(c.holds) <= {"below", "above"}
    sides = sides and type(next(iter(c.holds.values()))) in (int, float)
    yield sides, "holds must be {below: number} or {above: number}"
    wrong = _no_metric(c.metric)
    yield not wrong, wrong
    yield c.effect in EFFECTS, f"effect must be one of {', '.join(EFFECTS)}"
    yield bool(c.value), "value names no variant"
    pairs = not c.against or len(c.against) in (1, len(c.value)) or c.effect == "slope"
    yield pairs, "against must name one variant, or as many as value"
    alone = c.effect == "value" or bool(c.against or c.against_generator)
    yield alone, "a comparison needs against or against_generator"
    ordered = len(c.value) > 2 and bool(c.against_generator) and c.resolution != "grown"
    yield (c.effect != "order" or ordered,
           "an order needs three variants, against_generator and one resolution")  # fmt: skip
    known = c.resolution in ("base", "target", "grown") or isinstance(c.resolution, int)
    yield known, "resolution must be base, target, grown or pixels"
    yield c.smallest is None or type(c.smallest) in (int, float), "smallest must be a number"
    yield (
        c.effect != "ratio" or min(c.limit, c.counts_from) > 0,
        "the limit of a ratio must be above 0",
    )
    beyond = c.counts_from <= c.limit if c.below else c.counts_from >= c.limit
    yield beyond, "smallest must be on the side of the limit that holds names"
    known = isinstance(c.pilot, dict) and set(c.pilot) in (set(), {"spread", "run"})
    told = known and type(c.pilot.get("spread", 0)) in (int, float)
    yield told, "pilot must be {spread: number, run: which run it is from}"
    yield type(c.seeds) is int and c.seeds >= MIN_SEEDS, f"seeds must be at least {MIN_SEEDS}"
    yield isinstance(c.profiles, dict), "profiles must be a mapping of profiles"
    yield bool(str(c.refuted).strip()), "refuted is empty; say what would refute the claim"


def _history_checks(c: Claim, own: Any) -> Iterable[tuple[bool, str]]:
    known = isinstance(own, dict) and set(own) <= {*_OF_A_PROFILE, "caveat"}
    yield known, f"{own!r} must be a mapping of {', '.join(_OF_A_PROFILE)} and caveat"
    looks, first, caveat = own.get("looks", 1), own.get("first", c.seeds), own.get("caveat", "")
    yield type(looks) is int and looks >= 1, f"looks = {looks!r} must be 1 or more"
    enough = type(first) is int and first >= c.seeds
    yield enough, f"first = {first!r} must be a number of seeds, {c.seeds} (seeds) or more"
    yield type(caveat) is str, "caveat must be text"
