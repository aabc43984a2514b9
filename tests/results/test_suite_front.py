"""The headline of the page of everything: a line a protocol, or no table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pagoda.results.studies import StudyResults
from pagoda.results.suite_front import headline
from pagoda.rows import Row
from tests.results.synthetic_study import make_card, make_rows

NETWORK, OTHER = "ab" * 32, "cd" * 32
VARIANTS = {"growth": "Growth", "adversarial": "Adversarial", "cascade": "Cascade"}


def study(rows: list[Row], name: str = "growth_baselines") -> StudyResults:
    card = make_card(study=name, variants=VARIANTS | {"share-100": "All"})
    return StudyResults(card, tuple(rows), Path(name))


def rows(features: str = NETWORK) -> list[Row]:
    """Values at the base are the cascade's alone."""
    facts = {"features": features, "resolution": 16, "images_seen": 1500,
             "train_flops": 2.5e12}  # fmt: skip
    found = make_rows({"growth": [1.0, 1.2, 1.1]}, generator="grown", **facts)
    found += make_rows({"growth": [0.05] * 3}, generator="real", **facts)
    found += make_rows({"adversarial": [8.0, 9.0, 7.0]}, generator="grown", **facts)
    for size in (8, 16):
        found += make_rows({"cascade": [4.0, 5.0, 6.0]}, generator="cascade", resolution=size,
                           features=features)  # fmt: skip
    return found


def test_lines_are_of_one_study_and_one_protocol_each() -> None:
    """A student of another study, seen by another network, is on another scale."""
    student = make_rows({"share-100": [0.1, 0.1, 0.1]}, features=OTHER)
    second = [replace(r, protocol="fd_other_1k", features=OTHER) for r in rows()]
    made = headline([study([*rows(), *second]), study(student, "pairs")])
    assert made is not None
    assert [[cell.text for cell in row[:2]] for row in made.rows] == [
        ["`tiny`, 16×16", f"`{rows()[0].protocol}`"], ["`tiny`, 16×16", "`fd_other_1k`"],
        ["`tiny`, training", "images"], ["`tiny`, training", "TFLOP"],
        ["`tiny`, sampling", "evaluations"],
    ]  # fmt: skip
    assert made.rows[0][2].text.startswith("1.10 (")
    assert [cell.text for cell in made.rows[2][2:]] == ["1,500", "–", "1,500", "–"]
    assert [cell.text for cell in made.rows[3][2:]] == ["2.50", "–", "2.50", "–"]
    assert [cell.text for cell in made.rows[4][2:]] == ["1", "1", "1", "–"]
    assert "0.100" not in str(made.rows)


def test_profiles_stand_below_one_another() -> None:
    both = [study(rows()), study(rows(OTHER))]
    both[1] = replace(both[1], card=replace(both[1].card, profile="large"))
    made = headline(both)
    assert made is not None
    assert [row[0].text.partition(",")[0] for row in made.rows] == ["`tiny`"] * 4 + ["`large`"] * 4


def test_networks_are_never_mixed_in_a_line() -> None:
    mixed = [r for r in rows() if r.variant != "cascade"]
    mixed += [r for r in rows(OTHER) if r.variant == "cascade"]
    assert headline([study(mixed)]) is None
    assert headline([study([r for r in rows() if r.variant == "cascade"])]) is None
