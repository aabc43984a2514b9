"""Verdicts on made-up results: right, wrong, undecided, and too few seeds."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pagoda.errors import PagodaError
from pagoda.results.claim_verdicts import (
    OPEN,
    REFUTED,
    SUPPORTED,
    Verdict,
    all_verdicts,
    resting_on_one,
    verdicts_of,
    whole_claims,
)
from pagoda.results.forest import forest
from pagoda.results.ledger import multiplicity
from pagoda.results.numbers import t_interval
from tests.results.synthetic_claim import MANY, make_claim, results, verdict
from tests.results.synthetic_study import make_card, make_rows


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ([1.00, 1.01, 0.99, 1.02], SUPPORTED),
        ([2.00, 2.10, 1.90, 2.05], REFUTED),
        ([0.50, 2.00, 1.00, 1.30], OPEN),
        ([1.00], OPEN),
        ([2.00, 2.10], OPEN),
        ([1.0, 1.0, 1.0], SUPPORTED),
    ],
)
def test_three_verdicts(tmp_path: Path, factors: list[float], expected: str) -> None:
    few = [f * m for f, m in zip(factors, MANY, strict=False)]
    found = verdict(make_claim(tmp_path), {"few": few, "many": MANY[: len(few)]})
    assert found.outcome == expected
    assert found.effect is not None
    geometric = math.exp(sum(map(math.log, factors)) / len(factors))
    assert found.effect.mean == pytest.approx(geometric)
    assert found.seeds == pytest.approx(dict(enumerate(factors)))


def test_a_claim_counts_as_supported_only_where_all_its_verdicts_are(tmp_path: Path) -> None:
    outcomes = {
        "everywhere": [SUPPORTED, SUPPORTED], "nowhere": [REFUTED],
        "different": [SUPPORTED, REFUTED], "partly open": [SUPPORTED, OPEN],
    }  # fmt: skip
    ran = t_interval([1.0, 1.1, 0.9])
    verdicts = [Verdict(make_claim(tmp_path, id=name), outcome, "", effect=ran)
                for name, found in outcomes.items() for outcome in found]  # fmt: skip
    untested = [Verdict(make_claim(tmp_path, id=name), OPEN, "") for name in ("everywhere", "idle")]
    assert whole_claims(verdicts + untested) == {SUPPORTED: 1, REFUTED: 1, OPEN: 2}
    assert resting_on_one(verdicts + untested) == 0
    assert resting_on_one([*verdicts[1:], *untested]) == 1


def test_a_failed_run_is_never_dropped_in_silence(tmp_path: Path) -> None:
    """Four of five seeds: Student's interval of what is left holds 60 %, not 95."""
    many = [*MANY, 12.5]
    few = [1.00 * many[0], 1.01 * many[1], 0.99 * many[2], 1.02 * many[3]]
    found = verdict(make_claim(tmp_path), {"few": few, "many": many})
    assert found.outcome == OPEN and "seed 4 failed or are missing" in found.reason
    assert sorted(found.seeds) == [0, 1, 2, 3]
    assert verdict(make_claim(tmp_path), {"few": few, "many": many[:4]}).outcome == SUPPORTED
    rows = make_rows({"few": few, "many": many[:4], "other": many})
    (found,) = verdicts_of(make_claim(tmp_path), results(rows))
    assert found.outcome == OPEN and "seed 4 failed or are missing" in found.reason


def test_later_seeds_of_other_claims_are_none_of_it(tmp_path: Path) -> None:
    """More seeds of some variants decide the claims about those; a claim may keep to its first."""
    of_three = make_claim(tmp_path, profiles={make_card().profile: {"first": 3}})
    few = [1.00 * MANY[0], 1.01 * MANY[1], 0.99 * MANY[2], 1.02 * MANY[3]]
    rows = make_rows({"few": few, "many": MANY[:3], "other": MANY})
    (found,) = verdicts_of(of_three, results(rows))
    assert found.outcome == SUPPORTED and sorted(found.seeds) == [0, 1, 2]
    (found,) = verdicts_of(make_claim(tmp_path), results(rows))
    assert found.outcome == OPEN
    rows = make_rows({"few": few, "many": MANY[:2], "other": MANY})
    (found,) = verdicts_of(of_three, results(rows))
    assert found.outcome == OPEN


def test_the_mean_of_each_resolution_is_of_the_seeds_that_count(tmp_path: Path) -> None:
    ours, theirs = [0.5, 0.5, 0.5, 5.0, 5.0], [1.0] * 5
    rows = [
        replace(row, resolution=size, base_res=8)
        for size in (16, 32)
        for row in make_rows({"few": ours, "many": theirs})
    ]
    claim = make_claim(tmp_path, resolution="grown", profiles={make_card().profile: {"first": 3}})
    (found,) = verdicts_of(claim, results(rows))
    assert found.effect is not None and found.effect.mean == pytest.approx(0.5)
    assert found.sizes == pytest.approx({16: 0.5, 32: 0.5})


def test_two_values_of_one_place_are_refused(tmp_path: Path) -> None:
    rows = make_rows({"few": [1.0, 1.0, 1.0], "many": [1.0, 1.0, 1.0]})
    again = replace(rows[1], nfe=2, value=3.0)
    with pytest.raises(PagodaError, match=r"few has more than one .* pixels, seed 1"):
        verdicts_of(make_claim(tmp_path), results([*rows, again]))


@pytest.mark.parametrize("effect", ["ratio", "difference"])
def test_swapping_the_variants_turns_the_verdict_round(tmp_path: Path, effect: str) -> None:
    limit = {"ratio": 1.0, "difference": 0.0}[effect]
    values = {"few": [1.0, 1.1, 0.9], "many": [3.0, 3.1, 2.9]}
    claim = make_claim(tmp_path, effect=effect, holds={"below": limit})
    swapped = {"few": values["many"], "many": values["few"]}
    assert verdict(claim, values).outcome == SUPPORTED
    assert verdict(claim, swapped).outcome == REFUTED
    claim = make_claim(tmp_path, effect=effect, holds={"above": limit})
    assert verdict(claim, values).outcome == REFUTED
    assert verdict(claim, swapped).outcome == SUPPORTED


def test_an_effect_that_is_the_same_of_all_seeds_is_no_count(tmp_path: Path) -> None:
    """A rate at its end, say; the text of the verdict says what it is."""
    found = verdict(make_claim(tmp_path), {"few": [5.0] * 3, "many": [10.0] * 3})
    assert found.outcome == SUPPORTED and found.reason.startswith("every seed's effect, the same")


def test_seeds_that_were_added_after_a_look_widen_the_interval(tmp_path: Path) -> None:
    """Bonferroni: two looks share the 5 %; what one look decides, two may not."""
    few = [m * f for m, f in zip(MANY, [1.0, 1.02, 1.06, 0.97], strict=True)]
    claims = (
        make_claim(tmp_path, profiles={make_card().profile: {"looks": n}}, holds={"below": 1.08})
        for n in (1, 2)
    )
    once, twice = (verdict(claim, {"few": few, "many": MANY}) for claim in claims)
    logs = [math.log(a / b) for a, b in zip(few, MANY, strict=True)]
    for found, level in ((once, 0.95), (twice, 0.975)):
        ends = stats.t.interval(level, 3, loc=stats.tmean(logs), scale=stats.sem(logs))
        assert found.effect is not None
        assert (found.effect.low, found.effect.high) == pytest.approx(tuple(map(math.exp, ends)))
    assert (once.outcome, twice.outcome) == (SUPPORTED, OPEN)


@pytest.mark.parametrize("mean", [0.0, 0.2], ids=["supported", "refuted"])
def test_as_many_seeds_as_are_named_decide_at_the_same_mean_and_spread(
    tmp_path: Path, mean: float
) -> None:
    """Logarithms of ratios with an exact mean and spread, the limit at log 1.1 = 0.095."""

    def found(n: int, looks: int) -> Verdict:
        drawn = np.linspace(-1, 1, n)
        logs = mean + 0.2 * drawn / drawn.std(ddof=1)
        claim = make_claim(tmp_path, profiles={make_card().profile: {"looks": looks}})
        few = [10.0 * math.exp(value) for value in logs]
        return verdict(claim, {"few": few, "many": [10.0] * n})

    told = re.search(r"; at this mean and spread (\d+) seeds would (\w+) it", found(4, 1).reason)
    assert told is not None
    enough = int(told.group(1))
    assert told.group(2) == ("refute" if mean else "support")
    assert found(enough - 1, 2).outcome == OPEN
    assert found(enough, 2).outcome == (REFUTED if mean else SUPPORTED)


def test_an_effect_at_the_limit_is_not_decided_by_any_number_of_seeds(tmp_path: Path) -> None:
    few = [m * 1.1 * f for m, f in zip(MANY, [0.9, 1 / 0.9, 0.8, 1.25], strict=True)]
    reason = verdict(make_claim(tmp_path), {"few": few, "many": MANY}).reason
    assert reason.endswith("at this mean and spread 100 seeds would not decide it")


def test_many_claims_leave_fewer_that_stand(tmp_path: Path) -> None:
    """Both procedures again, step by step as their papers have them."""
    factors = [[1.0, 1.01, 0.99, 1.02], [1.0, 1.045, 1.02, 0.95], [0.5, 2.0, 1.0, 1.3],
               [1.5, 1.1, 0.9, 1.2]]  # fmt: skip
    verdicts = [
        verdict(make_claim(tmp_path), {"few": [f * m for f, m in zip(each, MANY, strict=True)],
                                       "many": MANY})
        for each in factors
    ]  # fmt: skip
    chances = sorted(
        stats.ttest_1samp(np.log(each), math.log(1.1), alternative="less").pvalue
        for each in factors
    )
    rate = max(k for k, p in enumerate(chances, 1) if p <= 0.025 * k / 4)
    single = next(k for k, p in enumerate(chances) if p > 0.025 / (4 - k))
    assert [v.outcome for v in verdicts] == [SUPPORTED, SUPPORTED, OPEN, OPEN]
    assert (rate, single) == (2, 1)
    (text,) = multiplicity(verdicts)
    assert "Of the 2 that are supported, 2 stay" in text and "and 1 where the chance" in text
    assert "4 verdicts here have an interval" in text and "0.1 of them at most" in text
    twice = [replace(v, claim=replace(v.claim, looks=2)) for v in verdicts]
    (text,) = multiplicity(twice)  # each chance doubled: the second is beyond 0.025 * 2 / 4
    assert "Of the 2 that are supported, 1 stay" in text
    assert multiplicity([]) == ()


def test_no_effect_at_all_does_not_support_a_strict_claim(tmp_path: Path) -> None:
    same = {"few": [1.0, 2.0, 3.0], "many": [1.0, 2.0, 3.0]}
    for side in ("below", "above"):
        assert verdict(make_claim(tmp_path, holds={side: 1.0}), same).outcome == REFUTED


def test_one_seed_is_never_evidence_however_large_the_effect(tmp_path: Path) -> None:
    found = verdict(make_claim(tmp_path), {"few": [1e-6], "many": [1e6]})
    assert found.outcome == OPEN
    assert found.reason == "one seed of 3; no interval; the value is on the claim's side"
    other = verdict(make_claim(tmp_path), {"few": [1e6], "many": [1e-6]})
    assert other.reason == "one seed of 3; no interval; the value is on the other side of the limit"
    with pytest.raises(PagodaError, match="seeds must be at least 3"):
        make_claim(tmp_path, seeds=1)


def test_the_interval_is_students() -> None:
    values = [1.0, 2.0, 4.0, 4.5]
    found = t_interval(values)
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=stats.tmean(values), scale=stats.sem(values)
    )
    assert (found.low, found.high) == pytest.approx((low, high))


def test_values_of_other_references_or_protocols_are_never_compared(tmp_path: Path) -> None:
    claim = make_claim(tmp_path)
    few = make_rows({"few": [1.0, 1.0, 1.0]})
    other = make_rows({"many": [1.0, 1.0, 1.0]}, reference="bb" * 32)
    (found,) = verdicts_of(claim, results(few + other))
    assert (found.outcome, found.effect) == (OPEN, None)
    other = make_rows({"many": [1.0, 1.0, 1.0]}, protocol="fd_classifier_2k")
    several = verdicts_of(claim, results(few + other))
    assert [j.outcome for j in several] == [OPEN, OPEN]


def test_every_protocol_has_a_verdict_of_its_own(tmp_path: Path) -> None:
    rows = make_rows({"few": [1.0, 1.1, 0.9], "many": [3.0, 3.1, 2.9]})
    rows += make_rows({"few": [3.0, 3.1, 2.9], "many": [1.0, 1.1, 0.9]}, protocol="fid_clean_1k")
    found = verdicts_of(make_claim(tmp_path), results(rows))
    assert [(j.protocol, j.outcome) for j in found] == [
        ("fd_classifier_1k", SUPPORTED), ("fid_clean_1k", REFUTED),
    ]  # fmt: skip


def test_a_protocol_of_other_variants_is_none_of_the_claims(tmp_path: Path) -> None:
    """Times of one image and of sixteen are two protocols; a claim of one has one verdict."""
    one = make_rows({"few": [1.0, 1.1, 0.9], "many": MANY[:3]})
    more = make_rows({"other": MANY[:3]}, protocol="fd_another")
    claim = make_claim(tmp_path)
    assert [v.protocol for v in verdicts_of(claim, results(one + more))] == [one[0].protocol]
    (open_one,) = verdicts_of(claim, results(more))
    assert open_one.outcome == OPEN


def test_a_ratio_of_one_seed_has_a_place_in_the_figure(tmp_path: Path) -> None:
    """Its interval is from 0 to infinity, whose logarithms are no numbers of an axis."""
    (found,) = verdicts_of(make_claim(tmp_path), results(make_rows({"few": [1.0], "many": [2.0]})))
    assert found.effect is not None
    assert found.claim.on_scale(found.effect.low) == -math.inf
    assert forest([found])


def test_what_was_not_run_is_not_evidence(tmp_path: Path) -> None:
    claim, other = make_claim(tmp_path), make_rows({"few": [1.0]}, metric="recall")
    for studies, profile in (([], ""), ([results(other)], "tiny")):
        (found,) = all_verdicts([claim], studies)
        assert (found.outcome, found.profile) == (OPEN, profile)


def test_a_variant_that_was_not_run_here_is_named(tmp_path: Path) -> None:
    (found,) = verdicts_of(make_claim(tmp_path), results(make_rows({"few": [1.0, 1.1, 0.9]})))
    assert (found.outcome, found.effect) == (OPEN, None)
    assert found.reason == "not run on this profile: many"


def test_counts_need_no_seeds_but_times_do(tmp_path: Path) -> None:
    rows = make_rows({"few": [1.0], "many": [2.0]}, metric="parameters", protocol="parameters")
    claim = make_claim(tmp_path, metric="parameters", holds={"below": 1.0})
    (found,) = verdicts_of(claim, results(rows))
    assert found.outcome == SUPPORTED
    claim = make_claim(tmp_path, metric="parameters", holds={"below": 0.4})
    assert verdicts_of(claim, results(rows))[0].outcome == REFUTED
    rows = make_rows(
        {"few": [1.0], "many": [2.0]}, metric="seconds_per_image", protocol="seconds_per_image"
    )
    claim = make_claim(tmp_path, metric="seconds_per_image", holds={"below": 1.0})
    assert verdicts_of(claim, results(rows))[0].outcome == OPEN


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ([1.00, 1.01, 0.99], REFUTED),  # straddles the limit, but rules out a tenth
        ([0.95, 0.96, 0.94], REFUTED),  # below the limit, by less than counts
        ([0.94, 0.85, 0.92], OPEN),  # below the limit, and the mean by less than counts
        ([0.92, 0.86, 0.90], SUPPORTED),
        ([0.80, 1.25, 1.00], OPEN),  # a tenth may be there
        ([1.20, 1.21, 1.19], REFUTED),
    ],
)
def test_an_effect_smaller_than_counts_refutes_a_claim(
    tmp_path: Path, factors: list[float], expected: str
) -> None:
    claim = make_claim(tmp_path, holds={"below": 1.0}, smallest=0.9)
    few = [f * m for f, m in zip(factors, MANY, strict=False)]
    assert verdict(claim, {"few": few, "many": MANY[:3]}).outcome == expected
