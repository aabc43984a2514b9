"""The effects that claims are about: slopes, orders, resolutions, counts, in closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from pagoda.errors import PagodaError
from pagoda.results.claim_verdicts import OPEN, REFUTED, SUPPORTED, all_verdicts, verdicts_of
from pagoda.results.claims import Claim
from pagoda.results.ledger import study_verdicts, verdict_table
from pagoda.rows import Row
from tests.results.synthetic_claim import make_claim, results
from tests.results.synthetic_study import make_row, make_rows


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


@pytest.mark.parametrize(
    ("effect", "at_16", "at_32"), [("ratio", 0.2, 1.5), ("difference", -0.8, 0.5)]
)
def test_a_claim_over_resolutions_shows_where_it_does_not_hold(
    tmp_path: Path, effect: str, at_16: float, at_32: float
) -> None:
    """The mean may be on the claim's side though it is not at one of the resolutions."""
    rows = []
    for res, value in ((16, 0.2), (32, 1.5)):
        rows += make_rows({"few": [value] * 3, "many": [1.0] * 3}, resolution=res)
    limit = {"ratio": 1.0, "difference": 0.0}[effect]
    claim = make_claim(tmp_path, resolution="grown", effect=effect, holds={"below": limit})
    (found,) = verdicts_of(claim, results(rows))
    assert found.outcome == SUPPORTED
    assert found.sizes == pytest.approx({16: at_16, 32: at_32})
    times = "×" * (effect == "ratio")
    at_each = f"16×16: {times}{at_16:.3f}, 32×32: {times}{at_32:#.3g}"
    assert at_each in [c.text for c in verdict_table([found], "abc", tmp_path).rows[0]]
    (one,) = verdicts_of(make_claim(tmp_path, resolution="target"), results(rows))
    assert one.sizes == {}
    heads = [study_verdicts(told).header[-1] for told in ([one], [found], [one, found])]
    assert heads == ["Seeds", "At each resolution", "At each resolution"]


def test_caveats_of_a_study_are_notes_each_told_once(tmp_path: Path) -> None:
    rows = results(make_rows({"few": [0.2] * 3, "many": [1.0] * 3}))
    caveats = {"a": "One\n fell.", "b": "", "c": "Two.", "d": "One fell."}
    found = [
        verdicts_of(make_claim(tmp_path, id=name, caveat=caveat), rows)[0]
        for name, caveat in caveats.items()
    ]
    told = study_verdicts(found)
    ends = [row[0].text.partition("few pairs")[0][-12:] for row in told.rows]
    assert [end.partition("(")[2] for end in ends] == ["caveat a)", "", "caveat b)", "caveat a)"]
    assert told.caption.endswith(" **a**: One fell. **b**: Two.")


def test_a_claim_in_two_protocols_is_told_once_beside_each(tmp_path: Path) -> None:
    rows = make_rows({"few": [0.2] * 3, "many": [1.0] * 3})
    rows += make_rows({"few": [0.4] * 3, "many": [1.0] * 3}, protocol="fd_other_1k")
    claim = make_claim(tmp_path)
    lines = [
        [c.text for c in row] for row in study_verdicts(verdicts_of(claim, results(rows))).rows
    ]
    assert [line[0] for line in lines] == [f"`{claim.id}` {claim.claim}", f"`{claim.id}`"]
    assert [line[1] for line in lines] == [f"`{rows[0].protocol}`", "`fd_other_1k`"]


def test_a_generator_against_another_in_the_same_variant(tmp_path: Path) -> None:
    rows = make_rows({"few": [1.0, 1.1, 0.9]})
    rows += make_rows({"few": [2.0, 2.2, 1.8]}, generator="teacher")
    rule = {"against": [], "against_generator": "teacher", "holds": {"below": 1.0}}
    (found,) = verdicts_of(make_claim(tmp_path, **rule), results(rows))
    assert found.outcome == SUPPORTED
    assert found.effect is not None
    assert found.effect.mean == pytest.approx(0.5)


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
