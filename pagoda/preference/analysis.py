"""What votes say: win rates, strengths, agreement, and what they were too few to show.

A tie is half a win each. Strengths, resampled, and Krippendorff's alpha are those of the library
evalica, Wilson's intervals those of :mod:`pagoda.evaluation.metrics.intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import ndtri

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.intervals import Interval, fraction_interval
from pagoda.preference.study import ATTENTION, PAIR, REPEAT, Study
from pagoda.preference.votes import Record, Vote

LEVEL, POWER = 0.95, 0.8
RESAMPLES = 1000
MOST_FAILED = 0.25
"""Of a voter's answers to attention pairs: with more wrong ones none of their votes count."""

_SCORES = {"left": 1.0, "tie": 0.5, "right": 0.0}


@dataclass(frozen=True)
class Judgement:
    """One answer to one question about a pair.

    Attributes:
        voter: who gave it.
        item: what was shown.
        unit: what the bootstrap draws again: the item, or the number of its prompt.
        first, second: the generators, the lower number first.
        score: 1 the first won, 0 the second, 0.5 a tie.
    """

    voter: str
    item: int
    unit: int
    first: int
    second: int
    score: float


@dataclass(frozen=True)
class Voter:
    """How a voter answered, all questions together.

    Attributes:
        name: as they gave it.
        pairs: votes on pairs, repeats and attention pairs apart.
        attention: right (True) or wrong answers to attention pairs.
        repeats: whether an answer was the same when the pair came again.
        lefts: whether the left one was taken, where one was.
        ties: whether an answer was a tie.
        seconds: median of a vote.
    """

    name: str
    pairs: int
    attention: tuple[bool, ...]
    repeats: tuple[bool, ...]
    lefts: tuple[bool, ...]
    ties: tuple[bool, ...]
    seconds: float

    def counts(self, most_failed: float = MOST_FAILED) -> bool:
        """Whether their votes count: at most this fraction of attention answers is wrong."""
        return self.attention.count(False) <= most_failed * len(self.attention)


def check_evalica() -> None:
    """Fail before any work if there can be no statistics.

    Raises:
        PagodaError: the package is not installed.
    """
    if find_spec("evalica") is None:
        raise PagodaError("the report needs the package evalica: 'uv sync --extra prefer'")


def voters(study: Study, record: Record) -> list[Voter]:
    """Every voter with a vote, in the order in which they joined."""
    return [_voter(study, name, votes) for name, votes in record.votes.items() if votes]


def _voter(study: Study, name: str, votes: dict[int, Vote]) -> Voter:
    shown = [v for v in votes.values() if v.trial.kind == PAIR]
    known = [v for v in votes.values() if v.trial.kind == ATTENTION]
    again = [v for v in votes.values() if v.trial.kind == REPEAT]
    first = {(v.trial.item, v.trial.left, v.trial.right): v for v in shown}
    turned = {"left": "right", "right": "left", "tie": "tie"}
    answers = [a for v in [*shown, *again] for a in v.answers.values()]
    return Voter(
        name, len(shown),
        tuple(a == study.right_answer(v.trial) for v in known for a in v.answers.values()),
        tuple(
            a == turned[before.answers[key]]
            for v in again for key, a in v.answers.items()
            if (before := first.get((v.trial.item, v.trial.right, v.trial.left)))
        ),
        tuple(a == "left" for a in answers if a != "tie"), tuple(a == "tie" for a in answers),
        float(np.median([v.seconds for v in votes.values()])),
    )  # fmt: skip


def judgements(
    study: Study, record: Record, question: str, counted: Iterable[str]
) -> list[Judgement]:
    """Answers of the voters that count; neither repeats nor attention pairs are among them."""
    units = {p: i for i, p in enumerate(dict.fromkeys(item.prompt for item in study.items))}
    found = []
    for name in counted:
        for vote in record.votes[name].values():
            kind, item, left, right = vote.trial
            if kind == PAIR:
                score = _SCORES[vote.answers[question]]
                unit = units[study.items[item].prompt] if study.over == "prompts" else item
                first, second = sorted((left, right))
                score = score if first == left else 1 - score
                found.append(Judgement(name, item, unit, first, second, score))
    return found


@dataclass(frozen=True)
class Strengths:
    """Bradley-Terry's strengths (generators,) and the ends of their intervals.

    P(i is preferred to j) = 1 / (1 + exp(s_j - s_i)); their mean is 0. NaN: votes do not compare
    every generator with every other, directly or through others. The ends alone are NaN where some
    generators won every vote against the rest: no resample knows how far apart they are.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray


def strengths(
    found: Sequence[Judgement], generators: int, resamples: int = RESAMPLES, seed: int = 0
) -> Strengths:
    """Bradley-Terry (1952), its likelihood maximised by evalica, percentiles of a bootstrap.

    Every two generators that were compared get one tie more, so that strengths are finite where
    one won always; for two it is the empirical logit log((w + 1/2) / (l + 1/2)) of w wins and l
    losses (Haldane 1956). The bootstrap draws units (prompts, or items) with all their votes,
    with replacement: votes on one prompt are not independent.
    """
    nothing = np.full(generators, np.nan)
    pairs = sorted({(j.first, j.second) for j in found})
    if not _connected(pairs + [pair[::-1] for pair in pairs], generators):
        return Strengths(nothing, nothing, nothing)
    kinds, counts = _counted(found, pairs)

    def fitted(weight: np.ndarray) -> np.ndarray:
        return _fit(kinds, weight @ counts, generators)

    rng, units = np.random.default_rng(seed), len(counts)
    drawn = rng.multinomial(units, np.full(units, 1 / units), size=resamples)
    values = fitted(np.ones(units))
    if _separated(found, generators):
        return Strengths(values, nothing, nothing)
    made = np.stack([fitted(weight) for weight in drawn])
    low, high = np.quantile(made, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Strengths(values, low, high)


def _separated(found: Sequence[Judgement], generators: int) -> bool:
    """Whether the likelihood has no finite maximum (Ford 1957): some won every vote on the rest."""
    won = {(j.first, j.second) for j in found if j.score > 0}
    won |= {(j.second, j.first) for j in found if j.score < 1}
    back = {(b, a) for a, b in won}
    return not (_connected(won, generators) and _connected(back, generators))


_Kind = tuple[int, int, float]
"""Two generators, and the score of the first."""


def _counted(
    found: Sequence[Judgement], pairs: Sequence[tuple[int, int]]
) -> tuple[list[_Kind], np.ndarray]:
    """What votes there can be on these pairs, and how many of each a unit has, (units, kinds)."""
    kinds: list[_Kind] = [(a, b, score) for a, b in pairs for score in _SCORES.values()]
    column = {kind: i for i, kind in enumerate(kinds)}
    row = {unit: i for i, unit in enumerate(sorted({j.unit for j in found}))}
    counts = np.zeros((len(row), len(kinds)))
    for j in found:
        counts[row[j.unit], column[j.first, j.second, j.score]] += 1
    return kinds, counts


def _fit(kinds: Sequence[_Kind], counts: np.ndarray, generators: int) -> np.ndarray:
    """Logarithms of the strengths (generators,) with mean 0; every tie is counted once more."""
    from evalica import Winner, bradley_terry

    winner = {1.0: Winner.X, 0.0: Winner.Y, 0.5: Winner.Draw}
    more = counts + [score == 0.5 for *_, score in kinds]
    given = [(*kind, n) for kind, n in zip(kinds, more.tolist(), strict=True) if n]
    first, second, scores, n = zip(*given, strict=True)
    fitted = bradley_terry(first, second, [winner[s] for s in scores], weights=list(n),
                           tolerance=1e-9, limit=10_000)  # fmt: skip
    logs = np.log(fitted.scores.reindex(range(generators)).to_numpy(float))
    return np.asarray(logs - logs.mean())


def _connected(steps: Iterable[tuple[int, int]], generators: int) -> bool:
    """Whether every generator is reached from the first one."""
    steps, reached = set(steps), {0}
    for _ in range(generators):
        reached |= {b for a, b in steps if a in reached}
    return len(reached) == generators


@dataclass(frozen=True)
class WinRate:
    """How often one generator was preferred to another.

    Attributes:
        first, second: the generators.
        wins, ties, losses: of the first.
        interval: its win rate, a tie being half a win; Wilson's, of ``effective`` votes. None:
            fewer than two votes.
        effective: independent votes that would say as much, see :func:`effective_number`.
        detectable: smallest win rate above 1/2 that so many votes show with :data:`POWER`; None:
            not even 1.
    """

    first: int
    second: int
    wins: int
    ties: int
    losses: int
    interval: Interval | None
    effective: float
    detectable: float | None

    @property
    def n(self) -> int:
        """Votes."""
        return self.wins + self.ties + self.losses


def win_rates(found: Sequence[Judgement], generators: int) -> list[WinRate]:
    """Every two generators, one line each."""
    rates = []
    for first, second in combinations(range(generators), 2):
        own = [j for j in found if (j.first, j.second) == (first, second)]
        scores = np.array([j.score for j in own])
        wins, ties, losses = (int((scores == s).sum()) for s in (1.0, 0.5, 0.0))
        effective = effective_number(scores, np.array([j.unit for j in own]))
        rates.append(WinRate(
            first, second, wins, ties, losses,
            fraction_interval(scores, LEVEL, effective) if len(own) > 1 else None,
            effective, detectable_win_rate(effective),
        ))  # fmt: skip
    return rates


def effective_number(scores: np.ndarray, units: np.ndarray) -> float:
    """Independent votes that would say as much of the mean as these, which share units.

    n times the variance of the mean of independent votes, s^2 / n, over its variance with units as
    clusters (Cochran 1977, 9A; C units), never more than n::

        C / (C - 1) sum_units (sum_votes of it (score - mean))^2 / n^2

    Where all votes are equal nothing is known of that, and a unit is one vote.
    """
    n, count = len(scores), len(set(units.tolist()))
    if n < 2 or count < 2:
        return float(count)
    rest = scores - scores.mean()
    plain = float(rest @ rest) / (n - 1) / n
    sums = np.bincount(np.unique(units, return_inverse=True)[1], weights=rest)
    clustered = count / (count - 1) * float(sums @ sums) / n**2
    if plain == 0:
        return float(count)
    return float(n) if clustered <= plain else n * plain / clustered


def detectable_win_rate(n: float, power: float = POWER) -> float | None:
    """Smallest win rate p > 1/2 that n independent votes tell from 1/2 with that probability.

    Two-sided at level 1 - :data:`LEVEL`, normal approximation (Fleiss 1981, 2.5)::

        (p - 1/2) sqrt(n) = z(LEVEL) / 2 + z(power) sqrt(p (1 - p))

    None: even p = 1 is not enough.
    """
    critical, more = float(ndtri((1 + LEVEL) / 2)) / 2, float(ndtri(power))

    def lacks(p: float) -> float:
        return critical + more * math.sqrt(p * (1 - p)) - (p - 0.5) * math.sqrt(n)

    return None if lacks(1.0) > 0 else float(brentq(lacks, 0.5, 1.0, xtol=1e-12))


@dataclass(frozen=True)
class Agreement:
    """How far voters agree on the same pairs.

    Attributes:
        pairs: pairs that two or more voters judged.
        same: of two votes on one pair by two voters, how often both are the same.
        alpha: Krippendorff's; 1 all agree, 0 as by chance. NaN: no such pairs, or one answer only.
        low, high: ends of its interval.
    """

    pairs: int
    same: float
    alpha: float
    low: float = math.nan
    high: float = math.nan


def agreement(found: Sequence[Judgement], seed: int = 0) -> Agreement:
    """Krippendorff's alpha (2018), ordinal (loss, tie, win), by evalica, with its bootstrap."""
    from evalica import InsufficientRatingsError, alpha_bootstrap

    units: dict[tuple[int, int, int], dict[str, float]] = {}
    for j in found:
        units.setdefault((j.item, j.first, j.second), {})[j.voter] = j.score
    both = [list(own.values()) for own in units.values() if len(own) > 1]
    alike = [a == b for own in both for a, b in combinations(own, 2)]
    same = float(np.mean(alike)) if alike else math.nan
    if len({score for own in both for score in own}) < 2:
        return Agreement(len(both), same, math.nan)
    table: Any = pd.DataFrame(dict(enumerate(units.values())))
    try:
        got = alpha_bootstrap(table, "ordinal", n_resamples=RESAMPLES, random_state=seed)
    except InsufficientRatingsError:
        return Agreement(len(both), same, math.nan)
    return Agreement(len(both), same, float(got.alpha), float(got.low), float(got.high))
