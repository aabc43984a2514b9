"""Statistics of votes against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from pagoda.preference.analysis import (
    Judgement,
    Voter,
    agreement,
    detectable_win_rate,
    effective_number,
    strengths,
    win_rates,
)


def judged(
    first: int, second: int, wins: int, ties: int, losses: int, start: int = 0
) -> list[Judgement]:
    scores = [1.0] * wins + [0.5] * ties + [0.0] * losses
    return [Judgement("a", start + i, start + i, first, second, s) for i, s in enumerate(scores)]


def test_strengths_of_two_are_the_empirical_logit() -> None:
    found = strengths(judged(0, 1, 30, 4, 10), 2, resamples=50)
    logit = math.log((30 + 2 + 0.5) / (10 + 2 + 0.5))
    np.testing.assert_allclose(found.values, [logit / 2, -logit / 2], atol=1e-6)
    assert (found.low < found.values).all() and (found.values < found.high).all()


def test_one_that_always_wins_has_a_finite_strength() -> None:
    found = strengths(judged(0, 1, 12, 0, 0), 2, resamples=20)
    np.testing.assert_allclose(found.values[0] - found.values[1], math.log(12.5 / 0.5), atol=1e-6)
    assert np.isnan(found.low).all()  # every resample says the same, which is no certainty


def test_no_interval_where_some_won_every_vote_on_the_rest() -> None:
    """Of three, two share wins and the third lost all; one tie of it is enough to compare them."""
    found = [*judged(0, 1, 5, 0, 5), *judged(0, 2, 9, 0, 0, 50)]
    assert np.isnan(strengths(found, 3, resamples=20).high).all()
    tied = [*found, *judged(1, 2, 8, 1, 0, 90)]
    assert np.isfinite(strengths(tied, 3, resamples=20).high).all()


def test_strengths_of_three_solve_the_likelihood_equations() -> None:
    """Expected wins at the maximum are those counted (Zermelo 1929), the added ties with them."""
    counts = {(0, 1): (20, 10), (0, 2): (25, 5), (1, 2): (16, 14)}
    found = [
        j
        for k, ((a, b), (w, lost)) in enumerate(counts.items())
        for j in judged(a, b, w, 0, lost, 100 * k)
    ]
    s = strengths(found, 3, resamples=2).values
    assert s.sum() == pytest.approx(0, abs=1e-9)
    for g in range(3):
        won = expected = 0.0
        for (a, b), (w, lost) in counts.items():
            if g in (a, b):
                n, other = w + lost + 1, b if g == a else a
                won += (w if g == a else lost) + 0.5
                expected += n / (1 + math.exp(s[other] - s[g]))
        assert won == pytest.approx(expected, rel=1e-5)


def test_what_was_compared_with_nothing_has_no_strength() -> None:
    assert np.isnan(strengths(judged(0, 1, 5, 0, 5), 3, resamples=2).values).all()
    assert np.isnan(strengths([], 2, resamples=2).values).all()


def test_the_bootstrap_draws_prompts_not_votes() -> None:
    """Nine equal votes on every prompt are worth one: the interval is that of the prompts."""
    rng = np.random.default_rng(0)
    once = [Judgement("a", i, i, 0, 1, float(rng.random() < 0.6)) for i in range(60)]
    often = [Judgement(f"v{k}", j.item, j.unit, 0, 1, j.score) for j in once for k in range(9)]
    one, nine = (strengths(found, 2, seed=1) for found in (once, often))
    width = one.high[0] - one.low[0]
    assert nine.high[0] - nine.low[0] == pytest.approx(width, rel=0.05)  # the added tie differs
    p = float(np.mean([j.score for j in once]))
    by_delta = 2 * 1.96 / math.sqrt(60 * p * (1 - p)) / 2  # of half a logit
    assert width == pytest.approx(by_delta, rel=0.15)


@pytest.mark.slow
def test_ninety_five_intervals_of_a_hundred_hold_the_truth() -> None:
    rng, held = np.random.default_rng(5), 0
    for k in range(100):
        found = [Judgement("a", i, i, 0, 1, float(rng.random() < 0.7)) for i in range(80)]
        s = strengths(found, 2, resamples=100, seed=k)
        held += s.low[0] <= math.log(0.7 / 0.3) / 2 <= s.high[0]
    assert 88 <= held <= 100


@pytest.mark.parametrize(("items", "voters", "shape"), [(50, 20, 1.0), (50, 5, 2.0), (200, 1, 1.0)])
def test_votes_on_one_item_do_not_make_a_preference(items: int, voters: int, shape: float) -> None:
    """Equal generators, whose samples voters agree on: 5 % of the intervals miss 1/2, not 45."""
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(100):
        liked = rng.beta(shape, shape, items)
        found = [Judgement(f"v{k}", i, i, 0, 1, float(rng.random() < liked[i]))
                 for i in range(items) for k in range(voters)]  # fmt: skip
        (rate,) = win_rates(found, 2)
        assert rate.interval is not None
        wrong += not rate.interval.low <= 0.5 <= rate.interval.high
    assert wrong <= 12  # of a hundred at 5 %, three standard deviations


def test_equal_votes_on_a_prompt_count_once() -> None:
    scores, units = np.array([1.0, 0, 1, 0, 1, 1, 0, 1]), np.arange(8)
    assert effective_number(scores, units) == 8
    assert effective_number(np.repeat(scores, 5), np.repeat(units, 5)) == pytest.approx(8, rel=0.15)
    assert effective_number(np.ones(12), np.repeat(np.arange(3), 4)) == 3
    assert effective_number(np.array([]), np.array([])) == 0


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_the_smallest_win_rate_is_shown_with_its_probability(n: int) -> None:
    p = detectable_win_rate(n)
    assert p is not None
    beyond = 0.5 + norm.ppf(0.975) * 0.5 / math.sqrt(n)  # what a test of 1/2 refuses
    assert norm.sf(beyond, p, math.sqrt(p * (1 - p) / n)) == pytest.approx(0.8, abs=1e-6)
    assert detectable_win_rate(3) is None


def test_win_rates_count_ties_as_halves() -> None:
    rate, none, _ = win_rates(judged(0, 1, 6, 2, 2), 3)
    assert (rate.wins, rate.ties, rate.losses, rate.n) == (6, 2, 2, 10)
    assert rate.interval is not None and rate.interval.value == pytest.approx(0.7)
    centre, z = 0.7, norm.ppf(0.975)
    half = z * math.sqrt(0.7 * 0.3 / 10 + z * z / 400)
    assert rate.interval.low == pytest.approx((centre + z * z / 20 - half) / (1 + z * z / 10))
    assert none.n == 0 and none.interval is None and none.detectable is None


def test_agreement_is_krippendorffs() -> None:
    """Two voters without ties: ordinal is nominal, 1 - observed / expected disagreement by hand."""
    a, b = [1, 1, 0, 0, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1, 1, 1]
    found = [
        Judgement(v, i, i, 0, 1, float(s))
        for v, own in (("a", a), ("b", b))
        for i, s in enumerate(own)
    ]
    got = agreement(found)
    ones, n = sum(a) + sum(b), 16
    observed, expected = 2 / 8, 2 * ones * (n - ones) / (n * (n - 1))
    assert (got.pairs, got.same) == (8, 0.75)
    assert got.alpha == pytest.approx(1 - observed / expected)
    assert got.low <= got.alpha <= got.high
    assert agreement([j for j in found if j.voter == "a"]).pairs == 0
    assert math.isnan(agreement([j for j in found if j.score == 1]).alpha)


def test_a_voter_counts_by_the_stated_rule() -> None:
    def voter(*attention: bool) -> Voter:
        return Voter("a", 9, attention, (), (), (), 1.0)

    assert voter().counts() and voter(True, True, True, False).counts()
    assert not voter(True, True, False).counts() and voter(False).counts(1.0)
    assert not voter(True, True, True, False).counts(0.0)
