"""Orders of generators by two feature networks, of rows whose ranks are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pagoda.results.blocks import Table
from pagoda.results.rank_agreement import rank_table
from pagoda.results.runs import Facts, Run
from pagoda.results.studies import StudyResults
from pagoda.results.suite import Material, suite_tables, write_suite
from pagoda.rows import Row
from tests.results.synthetic_study import make_card, make_row, make_rows

OTHER = {"protocol": "fd_efficientnet_lite1_128_1k", "features": "aa" * 32, "reference": "cc" * 32}
ONE = {"teacher": 1.0, "student": 2.0, "untrained_teacher_weights": 3.0, "untrained": 4.0}
TWO = {"teacher": 10.0, "student": 30.0, "untrained_teacher_weights": 20.0, "untrained": 40.0}


def rows_of(values: Mapping[str, float], **overrides: object) -> list[Row]:
    """A distance of every generator of a run."""
    return [
        make_row("", 0, value, generator=name, axis=None, training_seed=None, **overrides)
        for name, value in values.items()
    ]


def run_of(*rows: Row, origin: str = "`here`", seed: int = 0) -> Run:
    return Run("tiny", 8, Facts(seed), origin, rows)


def texts(table: Table | None) -> list[list[str]]:
    assert table is not None
    return [[cell.text for cell in row] for row in table.rows]


def test_one_exchange_among_four_generators() -> None:
    """1 - 6 (1 + 1) / (4 (16 - 1)) = 0.8 (Spearman 1904), and that pair is named."""
    table = rank_table([run_of(*rows_of(ONE), *rows_of(TWO, **OTHER))], [])
    pair = "1 of 6: One-step student, Teacher's weights in one step"
    assert texts(table) == [
        ["`tiny`", "8×8", "`fd_classifier_1k`", f"`{OTHER['protocol']}`", "4", "0.800", pair]
    ]


@pytest.mark.parametrize(
    ("second", "rho", "pairs"),
    [((1.0, 2.0, 3.0), "1.00", "0 of 3"), ((3.0, 2.0, 1.0), "-1.00", "3 of 3: ")],
)
def test_the_same_order_and_the_opposite_one(second: Sequence[float], rho: str, pairs: str) -> None:
    names = ("teacher", "student", "untrained")
    first = rows_of(dict(zip(names, (0.5, 5.0, 50.0), strict=True)))
    other = rows_of(dict(zip(names, second, strict=True)), **OTHER)
    ((*_, found, told),) = texts(rank_table([run_of(*first, *other)], []))
    assert found == rho and told.startswith(pairs)


def test_what_was_not_seen_by_both_networks_has_no_rank() -> None:
    """Real images, another n, another resolution, one network under two protocols, two alone."""
    first = rows_of(ONE | {"real": 0.1})
    assert rank_table([run_of(*first)], []) is None
    fewer = rows_of(TWO, **OTHER | {"n": 512, "protocol": "fd_efficientnet_lite1_128_512"})
    assert rank_table([run_of(*first, *fewer)], []) is None
    assert rank_table([run_of(*first, *rows_of(TWO, **OTHER, resolution=16))], []) is None
    again = rows_of(TWO, protocol="fd_classifier_other_1k")
    assert rank_table([run_of(*first, *again)], []) is None
    two = {"teacher": 1.0, "student": 2.0, "real": 3.0}
    assert rank_table([run_of(*first, *rows_of(two, **OTHER))], []) is None
    other = rows_of(TWO | {"real": 99.0}, **OTHER)
    ((*_, n, _, _),) = texts(rank_table([run_of(*first, *other)], []))
    assert n == "4"


def test_runs_of_a_profile_are_ranked_together_and_told_apart() -> None:
    first = rows_of({"teacher": 1.0, "student": 2.0}), rows_of({"teacher": 3.0, "student": 4.0})
    other = (
        rows_of({"teacher": 1.0, "student": 3.0}, **OTHER),
        rows_of({"teacher": 2.0, "student": 4.0}, **OTHER),
    )
    runs = [run_of(*first[i], *other[i], origin=f"`{i}`", seed=i) for i in (0, 1)]
    ((*_, n, rho, pairs),) = texts(rank_table(runs, []))
    assert (n, rho) == ("4", "0.800")
    names = enumerate(("One-step student", "Diffusion teacher"))
    student, teacher = (f"{name} (`tiny`, base 8, seed {i})" for i, name in names)
    assert pairs == f"1 of 6: {student}, {teacher}"


def test_a_study_is_ranked_by_means_over_the_seeds_of_both_networks(tmp_path: Path) -> None:
    """Few is nearer in the second network only by a seed that the first one did not see."""
    card = make_card(variants={"few": "1 %", "some": "10 %", "many": "100 %"})
    first = make_rows({"few": [3.0, 3.0], "some": [2.0, 2.2], "many": [1.0, 1.2]})
    other = make_rows(
        {"few": [9.0, 9.0, 0.0], "some": [4.0, 6.0, 4.0], "many": [6.0, 5.0]}, **OTHER
    )
    study = StudyResults(card, (*first, *other), tmp_path)
    ((where, _, _, _, n, rho, pairs),) = texts(rank_table([], [study]))
    assert (where, n, rho) == ("study `pairs` (`tiny`)", "3", "0.500")
    assert pairs == "1 of 3: 100 %: one-step student, 10 %: one-step student"


def test_evaluation_seeds_are_averaged_and_a_shared_teacher_counts_once(tmp_path: Path) -> None:
    """Each training seed of a study has an evaluation seed of its own."""
    card = make_card(variants={"few": "1 %", "some": "10 %", "many": "100 %", "more": "more"})

    def seen(scale: float, **features: object) -> list[Row]:
        rows = make_rows({"few": [3.0, 3.2], "some": [2.0, 2.2], "many": [1.0, 1.2]}, **features)
        rows += make_rows({"few": [7.0, 7.0], "more": [7.0, 7.0]}, generator="teacher", **features)
        return [dataclasses.replace(r, value=scale * r.number, seed=90 + (r.training_seed or 0))
                for r in rows]  # fmt: skip

    study = StudyResults(card, (*seen(1.0), *seen(10.0, **OTHER)), tmp_path)
    ((*_, n, rho, _),) = texts(rank_table([], [study]))
    assert (n, rho) == ("4", "1.00")


def test_the_page_has_the_section_where_two_networks_saw_the_same(tmp_path: Path) -> None:
    run = run_of(*rows_of(ONE), *rows_of(TWO, **OTHER))
    one = Material((), (run_of(*rows_of(ONE)),), (), (), "abc", tmp_path)
    assert "rank-agreement" not in suite_tables(one)
    assert "## How the feature networks agree" not in (write_suite(one) / "report.md").read_text()
    folder = write_suite(Material((), (run,), (), (), "abc", tmp_path))
    text = (folder / "report.md").read_text()
    assert "## How the feature networks agree" in text and "| 4 | 0.800 | 1 of 6: " in text
    assert "0.800" in (folder / "tables" / "rank-agreement.csv").read_text()
    assert (folder / "tables" / "rank-agreement.tex").is_file()
