"""The headline of the page of everything: a line a protocol, or no table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pagoda.results.blocks import Table
from pagoda.results.studies import StudyResults
from pagoda.results.suite_front import headline
from pagoda.rows import Row
from tests.results.synthetic_study import make_card, make_rows

NETWORK, OTHER = "ab" * 32, "cd" * 32
VARIANTS = {"growth": "Growth", "cascade": "Cascade", "cascade-whole": "Longer"}


def study(rows: list[Row], name: str = "growth_baselines") -> StudyResults:
    card = make_card(study=name, variants=VARIANTS | {"share-100": "All"})
    return StudyResults(card, tuple(rows), Path(name))


def rows(features: str = NETWORK, seeds: int = 3) -> list[Row]:
    """Values at the base are the cascade's alone."""
    facts = {"features": features, "resolution": 16, "images_seen": 1500,
             "train_flops": 2.5e12}  # fmt: skip
    found = make_rows({"growth": [1.0, 1.2, 1.1][:seeds]}, generator="grown", **facts)
    found += make_rows({"growth": [0.05] * seeds}, generator="real", **facts)
    more = facts | {"images_seen": 3000, "train_flops": 5e12, "nfe": 53}
    found += make_rows({"cascade-whole": [2.0, 3.0, 2.5][:seeds]}, generator="cascade", **more)
    for size in (8, 16):
        found += make_rows({"cascade": [4.0, 5.0, 6.0][:seeds]}, generator="cascade",
                           resolution=size, features=features, nfe=53)  # fmt: skip
    return found


def texts(made: Table | None) -> list[list[str]]:
    assert made is not None
    return [[cell.text for cell in row] for row in made.rows]


def test_lines_are_of_one_study_and_one_protocol_each() -> None:
    """A student of another study, seen by another network, is on another scale."""
    student = make_rows({"share-100": [0.1, 0.1, 0.1]}, features=OTHER)
    second = [replace(r, protocol="fd_other_1k", features=OTHER) for r in rows()]
    found = texts(headline([study([*rows(), *second]), study(student, "pairs")]))
    first = rows()[0].protocol
    assert [line[1] for line in found[:2]] == [f"`{first}`", "`fd_other_1k`"]
    assert {line[0] for line in found[:2]} == {"`tiny`, 16×16"}
    assert found[0][2].startswith("1.10 (") and found[0][5].startswith("0.0500")
    assert found[2][0] == "`tiny`, 3 seeds"
    assert found[2][2:] == ["1,500 / 2.50 / 1", "– / – / 53", "3,000 / 5.00 / 53", "–"]
    assert len(found) == 3


def test_a_network_that_saw_a_lower_resolution_alone_has_no_line() -> None:
    lower = [replace(r, protocol="fd_other_1k", resolution=8, images_seen=700) for r in rows()]
    assert texts(headline([study([*rows(), *lower])])) == texts(headline([study(rows())]))


def test_profiles_stand_below_one_another_with_their_own_seeds() -> None:
    both = [study(rows()), study(rows(OTHER, seeds=1))]
    both[1] = replace(both[1], card=replace(both[1].card, profile="large"))
    found = texts(headline(both))
    assert [line[0].partition(",")[0] for line in found] == ["`tiny`"] * 2 + ["`large`"] * 2
    assert found[2][:1] + found[2][2:] == [
        "`large`, 16×16", "1.00", "4.00", "2.00", "0.0500",
    ]  # fmt: skip
    assert [line[0] for line in found[1::2]] == ["`tiny`, 3 seeds", "`large`, 1 seed"]


def test_a_way_that_was_not_run_is_a_dash() -> None:
    found = texts(headline([study([r for r in rows() if "cascade" not in r.variant])]))
    assert [line[3:5] for line in found] == [["–"] * 2] * 2


def test_networks_are_never_mixed_in_a_line() -> None:
    mixed = [r for r in rows() if "cascade" not in r.variant]
    mixed += [r for r in rows(OTHER) if "cascade" in r.variant]
    assert headline([study(mixed)]) is None
    assert headline([study([r for r in rows() if "cascade" in r.variant])]) is None
