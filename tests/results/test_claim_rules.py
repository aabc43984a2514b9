"""Rules of claims: refused where they cannot decide, shown with what was known and their power."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pagoda.errors import PagodaError
from pagoda.results.claims import read_claims
from pagoda.results.ledger import rule_table, verdict_table
from pagoda.results.numbers import number
from tests.results.synthetic_claim import MANY, make_claim, verdict
from tests.results.synthetic_study import make_card


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"holds": {"near": 1.0}}, "holds must be"),
        ({"holds": {"below": 0.0}}, "limit of a ratio must be above 0"),
        ({"metric": "accuracy"}, "no row has metric 'accuracy'; there is .*accuracy"),
        ({"effect": "vibes"}, "effect must be one of"),
        ({"against": ["a", "b"], "value": ["a", "b", "c"]}, "against must name one variant"),
        ({"against": []}, "a comparison needs against"),
        ({"resolution": "large"}, "resolution must be"),
        ({"refuted": " "}, "refuted is empty"),
        ({"colour": "red"}, "unknown keys: colour"),
        ({"metric": ["fd"]}, "metric = .*; it must be text"),
        ({"caveat": 3}, "caveat = 3; it must be text"),
    ],
)
def test_a_rule_that_cannot_decide_is_one_line(
    tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(PagodaError, match=message) as caught:
        make_claim(tmp_path, **overrides)
    assert "\n" not in str(caught.value)
    assert "pairs.few" in str(caught.value)


def test_a_variant_that_there_is_not_is_refused(tmp_path: Path) -> None:
    make_claim(tmp_path)
    file = tmp_path / "pairs/study.yaml"
    text = file.read_text()
    file.write_text(text.replace("- many", "- mony"))
    with pytest.raises(PagodaError, match=r"no variant 'mony'; there is many"):
        read_claims(tmp_path)
    file.write_text(text.partition("variants:")[0] + "variants: 3\n")
    with pytest.raises(PagodaError, match=r"study\.yaml: variants = 3; it must be a mapping"):
        read_claims(tmp_path)


def test_a_metric_of_a_study_that_no_row_has_is_refused(tmp_path: Path) -> None:
    make_claim(tmp_path)
    file = tmp_path / "pairs/study.yaml"
    file.write_text("metrics: [fd, class_acuracy]\n" + file.read_text())
    wrong = r"study\.yaml, metrics: no row has metric 'class_acuracy'; there is class_accuracy$"
    with pytest.raises(PagodaError, match=wrong):
        read_claims(tmp_path)
    file.write_text(file.read_text().replace("[fd, class_acuracy]", "fd"))
    with pytest.raises(PagodaError, match=r"study\.yaml: metrics = 'fd'; it must be a list of"):
        read_claims(tmp_path)


def test_the_ledger_marks_a_rule_that_came_after_its_run(tmp_path: Path) -> None:
    values = {"few": MANY, "many": MANY}
    before = verdict(make_claim(tmp_path), values)
    after = verdict(make_claim(tmp_path, after_run="seed 0 was known"), values)
    assert before.outcome == after.outcome
    for found, marked in ((before, False), (after, True)):
        verdicts = verdict_table([found], "abc", tmp_path).rows[0][0].text
        rule = rule_table([found]).rows[0][2].text
        assert ("an earlier run was known" in verdicts, "seed 0 was known" in rule) == (
            marked,
            marked,
        )


def test_the_ledger_tells_a_caveat_and_the_level_of_a_second_look(tmp_path: Path) -> None:
    values = {"few": [f * m for f, m in zip([1.0, 1.02, 0.99, 1.01], MANY, strict=True)],
              "many": MANY}  # fmt: skip
    for profile, told in (("elsewhere", False), (make_card().profile, True)):
        own = {"caveat": "One of\n two failed.", "looks": 2}
        found = verdict(make_claim(tmp_path, caveat="Small.", profiles={profile: own}), values)
        line = [cell.text for cell in verdict_table([found], "abc", tmp_path).rows[0]]
        assert line[0].endswith("Caveat: Small. One of two failed." if told else "Caveat: Small.")
        assert ("(at 97.5%)" in line[5]) == told
        assert f"; on `{profile}` decided 2 times" in rule_table([found]).rows[0][2].text


def test_a_claim_is_told_once_with_the_profile_of_each_line(tmp_path: Path) -> None:
    """A caveat of one profile alone stays with its line."""
    values = {"few": [f * m for f, m in zip([1.0, 1.02, 0.99, 1.01], MANY, strict=True)],
              "many": MANY}  # fmt: skip
    plain = verdict(make_claim(tmp_path), values)
    other = verdict(make_claim(tmp_path, caveat="Late."), values)
    rows = verdict_table([plain, plain, other], "abc", tmp_path).rows
    name = f"`{plain.claim.id}`"
    assert [row[0].text for row in rows] == [
        f"{name} {plain.claim.claim}",
        name,
        f"{name} Caveat: Late.",
    ]
    assert all(row[1].text.startswith(f"`{make_card().profile}` ([study](") for row in rows)


def test_the_rule_tells_of_every_profile_whichever_was_run(tmp_path: Path) -> None:
    claim = make_claim(tmp_path, profiles={"evidence": {"first": 5}, "fashion": {"looks": 2}})
    for shown in (claim, claim.on("evidence"), claim.on("fashion")):
        assert shown.rule().endswith(
            "3 seeds; on `evidence` of the first 5; on `fashion` decided 2 times"
        )


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"looks": 0}, "looks = 0 must be 1 or more"),
        ({"first": 2}, "first = 2 must be a number of seeds, 3"),
        ({"caveat": 1}, "caveat must be text"),
        ({"seeds": 2}, "must be a mapping of looks, first and caveat"),
        ([], "must be a mapping of looks, first and caveat"),
    ],
)
def test_what_came_of_a_claim_on_one_profile_is_checked(
    tmp_path: Path, own: object, message: str
) -> None:
    with pytest.raises(PagodaError, match=f"profiles, evidence: .*{message}"):
        make_claim(tmp_path, profiles={"evidence": own})
    with pytest.raises(PagodaError, match="profiles must be a mapping"):
        make_claim(tmp_path, profiles=[own])


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
