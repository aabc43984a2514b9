"""Opposite verdicts of two studies are told together, with how long each trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagoda.results.claim_verdicts import REFUTED, SUPPORTED, Verdict, verdicts_of
from pagoda.results.opposites import opposite_verdicts
from pagoda.results.studies import StudyResults
from tests.results.synthetic_claim import make_claim
from tests.results.synthetic_study import make_card, make_rows

LABELS = {"few": "Both losses", "many": "L_rec alone"}


def decided(folder: Path, study: str, few: float, images: int, **card: object) -> Verdict:
    """The verdict of a study of that name and length on "few is nearer than many"."""
    values = {"few": [few, few * 1.01, few * 0.99], "many": [1.0, 1.0, 1.0]}
    rows = make_rows(values, images_seen=images)
    facts = {"study": study, "variants": LABELS} | card
    folder = folder / study
    folder.mkdir()
    claim = make_claim(folder, id=f"{study}.claim", holds={"below": 1.0})
    results = StudyResults(make_card(**facts), tuple(rows), Path("reports/tiny/studies") / study)
    (found,) = verdicts_of(claim, results)
    claim_of = {"claim": found.claim.__class__(**(vars(claim) | {"study": study}))}
    return found.__class__(**(vars(found) | claim_of))


def test_opposite_verdicts_name_both_claims_and_lengths(tmp_path: Path) -> None:
    short, long = decided(tmp_path, "short", 2.0, 1000), decided(tmp_path, "long", 0.5, 9000)
    assert (short.outcome, long.outcome) == (REFUTED, SUPPORTED)
    told = opposite_verdicts([short, long])
    # One for each of the two variants that both compare.
    assert len(told) == 2 and "“Both losses”" in told[0] and "“L_rec alone”" in told[1]
    for text in told:
        assert "`long.claim` (supported; study `long`, 9,000 training images)" in text
        assert "`short.claim` (not supported; study `short`, 1,000 training images)" in text


@pytest.mark.parametrize(
    "other",
    [
        {"few": 0.6},
        {"few": 2.0, "variants": {"few": "Other", "many": "Another"}},
        {"few": 2.0, "profile": "elsewhere"},
    ],
    ids=["one side", "other variants", "other profile"],
)
def test_verdicts_that_do_not_meet_are_not_set_beside_each_other(
    tmp_path: Path, other: dict[str, object]
) -> None:
    second = decided(tmp_path, "short", images=1000, **other)  # type: ignore[arg-type]
    assert opposite_verdicts([decided(tmp_path, "long", 0.5, 9000), second]) == ()
