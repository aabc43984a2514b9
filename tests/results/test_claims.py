"""Verdicts on made-up results: right, wrong, undecided, and too few seeds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from pagoda.errors import PagodaError
from pagoda.results.claims import (
    FOLDER,
    OPEN,
    REFUTED,
    SUPPORTED,
    Claim,
    Verdict,
    all_verdicts,
    read_claims,
    verdicts_of,
)
from pagoda.results.labels import TOTALS
from pagoda.results.ledger import rule_table, verdict_table
from pagoda.results.numbers import number, t_interval
from pagoda.results.studies import AS_METRICS, StudyResults
from pagoda.rows import Row
from tests.results.synthetic_study import make_card, make_row, make_rows

ROOT = Path(__file__).parents[2]
RULE: dict[str, Any] = {
    "id": "pairs.few", "claim": "Few pairs are enough.", "source": "paper",
    "metric": "fd", "generator": "student", "resolution": "base", "value": ["few"],
    "against": ["many"], "effect": "ratio", "holds": {"below": 1.1}, "seeds": 3,
    "refuted": "few pairs are more than a tenth worse",
}  # fmt: skip


def make_claim(tmp_path: Path, **overrides: Any) -> Claim:
    (tmp_path / "pairs").mkdir(exist_ok=True)
    text = yaml.safe_dump({"claims": [RULE | overrides]})
    (tmp_path / "pairs/study.yaml").write_text(text)
    return read_claims(tmp_path)[0]


def results(rows: Sequence[Row], **card: Any) -> StudyResults:
    return StudyResults(make_card(**card), tuple(rows), Path("reports/tiny/studies/pairs"))


def verdict(claim: Claim, values: Mapping[str, Sequence[float]]) -> Verdict:
    (found,) = verdicts_of(claim, results(make_rows(values)))
    return found


MANY = [10.0, 12.0, 11.0, 13.0]


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


def _robustness(exponents: Mapping[str, float]) -> list[Row]:
    """Students whose distance follows the teacher's by a power law."""
    rows = []
    for loss, exponent in exponents.items():
        for stage, teacher in enumerate((1.0, 2.0, 4.0, 8.0)):
            for seed in range(3):
                variant, noise = f"{loss}_{stage}", 1 + 0.01 * seed
                rows.append(make_row(variant, seed, teacher, generator="teacher", axis=None))
                rows.append(make_row(variant, seed, 3 * teacher**exponent * noise, axis=None))
    return rows


LOSSES = {loss: [f"{loss}_{i}" for i in range(4)] for loss in ("rec", "dstl")}


def _slope_claim(tmp_path: Path) -> Claim:
    return make_claim(tmp_path, effect="slope", value=LOSSES["rec"], against=LOSSES["dstl"],
                      holds={"below": 0.0})  # fmt: skip


def test_the_slope_says_who_follows_the_teacher(tmp_path: Path) -> None:
    claim = _slope_claim(tmp_path)
    (robust,) = verdicts_of(claim, results(_robustness({"rec": 0.1, "dstl": 0.9})))
    (fragile,) = verdicts_of(claim, results(_robustness({"rec": 0.9, "dstl": 0.1})))
    assert (robust.outcome, fragile.outcome) == (SUPPORTED, REFUTED)
    assert robust.effect is not None
    assert robust.effect.mean == pytest.approx(-0.8)


def test_an_order_is_the_rank_correlation_with_the_base(tmp_path: Path) -> None:
    """Of three variants with two in the wrong order: 1/2. Distances are of different references."""
    claim = make_claim(tmp_path, effect="order", generator="grown", resolution="target", against=[],
                       value=["a", "b", "c"], against_generator="student",
                       holds={"above": 0.4})  # fmt: skip
    rows = []
    for seed in range(3):
        for variant, student, grown in (("a", 1.0, 30.0), ("b", 2.0, 50.0), ("c", 90.0, 40.0)):
            rows += [make_row(variant, seed, student), make_row(variant, seed, student + 1,
                     generator="grown", resolution=16, reference="cc" * 32),
                     make_row(variant, seed, grown, generator="grown", resolution=32,
                              reference="dd" * 32)]  # fmt: skip
    (found,) = verdicts_of(claim, results(rows))
    assert found.effect is not None and found.effect.mean == pytest.approx(0.5)
    assert found.outcome == SUPPORTED
    (some,) = verdicts_of(claim, results([r for r in rows if r.variant != "c"]))
    assert some.outcome == OPEN
    with pytest.raises(PagodaError, match="an order needs three variants"):
        make_claim(tmp_path, effect="order", value=["a", "b"], against_generator="student")


def test_students_may_share_a_teacher_of_one_seed(tmp_path: Path) -> None:
    rows = [
        dataclasses.replace(r, axis=float(r.variant[-1]),
                            variant=r.variant.replace("rec", "teacher")
                            if r.generator == "teacher" else r.variant)
        for r in _robustness({"rec": 0.1, "dstl": 0.9})
        if r.generator != "teacher" or (r.training_seed == 0 and r.variant.startswith("rec"))
    ]  # fmt: skip
    (found,) = verdicts_of(_slope_claim(tmp_path), results(rows))
    assert found.effect is not None
    assert (found.outcome, found.effect.n) == (SUPPORTED, 3)
    assert found.effect.mean == pytest.approx(-0.8)


def test_resolutions_are_picked_as_the_rule_says(tmp_path: Path) -> None:
    rows = []
    for res, factor in ((8, 1.0), (16, 2.0), (32, 8.0)):
        rows += make_rows({"few": [factor] * 3, "many": [1.0] * 3}, resolution=res)
    expected = {"base": 1.0, "target": 8.0, "grown": 4.0, 16: 2.0}
    for where, ratio in expected.items():
        (found,) = verdicts_of(make_claim(tmp_path, resolution=where), results(rows))
        assert found.effect is not None
        assert found.effect.mean == pytest.approx(ratio)


def test_a_generator_against_another_in_the_same_variant(tmp_path: Path) -> None:
    rows = make_rows({"few": [1.0, 1.1, 0.9]})
    rows += make_rows({"few": [2.0, 2.2, 1.8]}, generator="teacher")
    rule = {"against": [], "against_generator": "teacher", "holds": {"below": 1.0}}
    (found,) = verdicts_of(make_claim(tmp_path, **rule), results(rows))
    assert found.outcome == SUPPORTED
    assert found.effect is not None
    assert found.effect.mean == pytest.approx(0.5)


def test_what_was_not_run_is_not_evidence(tmp_path: Path) -> None:
    claim, other = make_claim(tmp_path), make_rows({"few": [1.0]}, metric="recall")
    for studies, profile in (([], ""), ([results(other)], "tiny")):
        (found,) = all_verdicts([claim], studies)
        assert (found.outcome, found.profile) == (OPEN, profile)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"holds": {"near": 1.0}}, "holds must be"),
        ({"holds": {"below": 0.0}}, "limit of a ratio must be above 0"),
        ({"effect": "vibes"}, "effect must be one of"),
        ({"against": ["a", "b"], "value": ["a", "b", "c"]}, "against must name one variant"),
        ({"against": []}, "a comparison needs against"),
        ({"resolution": "large"}, "resolution must be"),
        ({"refuted": " "}, "refuted is empty"),
        ({"colour": "red"}, "unknown keys: colour"),
    ],
)
def test_a_rule_that_cannot_decide_is_one_line(
    tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(PagodaError, match=message) as caught:
        make_claim(tmp_path, **overrides)
    assert "\n" not in str(caught.value)
    assert "pairs.few" in str(caught.value)


def test_counts_need_no_seeds_but_times_do(tmp_path: Path) -> None:
    rows = make_rows({"few": [1.0], "many": [2.0]}, metric="parameters", protocol="parameters")
    claim = make_claim(tmp_path, metric="parameters", holds={"below": 1.0})
    (found,) = verdicts_of(claim, results(rows))
    assert found.outcome == SUPPORTED
    claim = make_claim(tmp_path, metric="parameters", holds={"below": 0.4})
    assert verdicts_of(claim, results(rows))[0].outcome == REFUTED
    rows = make_rows({"few": [1.0], "many": [2.0]}, metric="seconds", protocol="seconds")
    claim = make_claim(tmp_path, metric="seconds", holds={"below": 1.0})
    assert verdicts_of(claim, results(rows))[0].outcome == OPEN


def test_columns_and_sums_over_stages_can_be_claimed(tmp_path: Path) -> None:
    rows = make_rows({"few": [1.0], "many": [2.0]}, nfe=3, train_flops=5.0)
    for variant, flops in (("few", (1.0, 2.0)), ("many", (1.0, 20.0))):
        for stage, value in zip(("teacher", "grow"), flops, strict=True):
            rows += make_rows({variant: [value]}, metric="stage_flops", generator="none",
                              protocol=f"stage_flops_{stage}")  # fmt: skip
    claim = make_claim(tmp_path, metric="total_flops", generator="none", holds={"below": 0.5})
    (found,) = all_verdicts([claim], [results(rows)])
    assert found.effect is not None
    assert found.outcome == SUPPORTED
    assert found.effect.mean == pytest.approx(3 / 21)
    claim = make_claim(tmp_path, metric="nfe", holds={"below": 1.0})
    assert all_verdicts([claim], [results(rows)])[0].outcome == REFUTED


def test_the_projects_claims_name_variants_that_their_studies_have() -> None:
    for claim in read_claims(ROOT / FOLDER):
        tree = yaml.safe_load((ROOT / FOLDER / claim.study / "study.yaml").read_text())
        assert {*claim.value, *claim.against} <= set(tree["variants"]), claim.id


def _held(claim: Claim, seed: int, *, right: bool) -> list[Row]:
    """Results of one seed that lie on one side of a claim's limit, by every variant it names."""
    factor = (0.5 if claim.below == right else 2.0) * (1 + 0.01 * seed)
    rows = []
    for first, second in claim.pairs:
        ours = claim.limit * factor if claim.effect in ("ratio", "value") else 0.5
        step = 0.1 if claim.below == right else -0.1
        theirs = 1.0 if claim.effect == "ratio" else 0.5 - claim.limit + step * (1 + 0.1 * seed)
        rows += _at(claim, first, seed, ours, claim.generator)
        if claim.effect == "value":
            continue
        rows += _at(claim, second, seed, theirs, claim.against_generator or claim.generator)
    return rows


def _followed(claim: Claim, seed: int, *, right: bool) -> list[Row]:
    """Students that follow their teachers by a power law, more or less closely than the others."""
    rows = []
    for variants, exponent in ((claim.value, 0.2), (claim.against, 0.8)):
        power = exponent if claim.below == right else 1 - exponent
        for stage, variant in enumerate(variants):
            rows += _at(claim, variant, seed, 2.0**stage, "teacher")
            noise = 1 + 0.01 * seed * stage
            rows += _at(claim, variant, seed, 2.0 ** (power * stage) * noise, claim.generator)
    return rows


def _ordered(claim: Claim, seed: int, *, right: bool) -> list[Row]:
    """Generators in the order of others at the base, or in the opposite one, however far apart."""
    rows, at_base = [], dataclasses.replace(claim, resolution="base")
    for place, variant in enumerate(claim.value):
        rows += _at(at_base, variant, seed, 2.0**place, claim.against_generator)
        rows += _at(claim, variant, seed, 5.0 + (place if right else -place) * 0.1, claim.generator)
    return [row for row in rows if row.generator == claim.against_generator or row.size > 8]


def _at(claim: Claim, variant: str, seed: int, value: float, generator: str) -> list[Row]:
    """A value of a variant where its claim looks: in a row, a column or a sum over stages."""
    sizes = {"base": [8], "target": [8, 32], "grown": [16, 32]}[str(claim.resolution)]
    facts: dict[str, Any] = {"axis": None, "generator": generator}
    if claim.metric in AS_METRICS:
        number = round(value * 1000) if claim.metric == "nfe" else value * 1e12
        facts |= {claim.metric: number}
    elif claim.metric in TOTALS.values():
        facts |= {"metric": {v: k for k, v in TOTALS.items()}[claim.metric],
                  "protocol": "stage_flops_teacher"}  # fmt: skip
        return [make_row(variant, seed, value, resolution=sizes[-1], **facts)]
    else:
        facts |= {"metric": claim.metric, "protocol": f"{claim.metric}_1k"}
    return [make_row(variant, seed, value, resolution=res, **facts) for res in sizes]


@pytest.mark.parametrize("claim", read_claims(ROOT / FOLDER), ids=lambda c: c.id)
def test_each_claim_of_the_project_can_come_out_either_way(claim: Claim) -> None:
    make = {"slope": _followed, "order": _ordered}.get(claim.effect, _held)
    variants = dict.fromkeys([*claim.value, *claim.against], "")
    for right, expected in ((True, SUPPORTED), (False, REFUTED)):
        seeds = claim.seeds
        rows = [row for seed in range(seeds) for row in make(claim, seed, right=right)]
        (found,) = all_verdicts([claim], [results(rows, study=claim.study, variants=variants)])
        assert (found.outcome, len(found.seeds)) == (expected, seeds), found.reason


def test_the_ledger_marks_a_rule_that_came_after_its_run(tmp_path: Path) -> None:
    values = {"few": MANY, "many": MANY}
    before = verdict(make_claim(tmp_path), values)
    after = verdict(make_claim(tmp_path, after_run="seed 0 was known"), values)
    assert before.outcome == after.outcome
    for found, marked in ((before, False), (after, True)):
        verdicts = verdict_table([found], "abc", tmp_path).rows[0][0].text
        rule = rule_table([found]).rows[0][2].text
        assert ("after the run" in verdicts, "seed 0 was known" in rule) == (marked, marked)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ([1.00, 1.01, 0.99], REFUTED),  # straddles the limit, but rules out a tenth
        ([0.95, 0.96, 0.94], SUPPORTED),  # below the limit, if by less than counts
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


def test_the_power_that_is_told_is_how_often_the_claim_is_supported(tmp_path: Path) -> None:
    claim = make_claim(tmp_path, seeds=5, pilot={"spread": 0.3, "run": "a pilot"})
    shown = claim.shown()
    assert shown is not None
    rng = np.random.default_rng(0)
    logs = math.log(shown) + 0.3 * rng.standard_normal((4000, 5))
    half = stats.t.ppf(0.975, 4) * logs.std(1, ddof=1) / math.sqrt(5)
    supported = (logs.mean(1) + half < math.log(claim.limit)).mean()
    assert supported == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 4000))
    assert (
        number(shown) in rule_table([verdict(claim, {"few": MANY, "many": MANY})]).rows[0][3].text
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"smallest": 1.2},
        {"smallest": -1.0},
        {"smallest": "little"},
        {"pilot": {"spread": 0.3}},
        {"pilot": {"spread": "x", "run": "a"}},
        {"pilot": 3},
    ],
)
def test_a_smallest_effect_or_pilot_that_makes_no_sense_is_named(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(PagodaError, match=next(iter(wrong)) + "|ratio"):
        make_claim(tmp_path, **wrong)
