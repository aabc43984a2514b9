"""A study's tables: what shares a line, what shares a column, and what a cell says."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from pagoda.results.blocks import Table
from pagoda.results.labels import COST, GROWTH, LATENTS, QUALITY, ROUND_TRIP, SAMPLING, STAGES
from pagoda.results.numbers import Interval, with_ends, with_half
from pagoda.results.studies import CARD, StudyResults, read_study
from pagoda.results.study_tables import rule_text, study_tables
from pagoda.rows import Row
from tests.results.synthetic_claim import make_claim
from tests.results.synthetic_study import make_card, make_row, make_rows

ROOT = Path(__file__).parents[2]
MEASURED = sorted(card.parent for card in (ROOT / "reports").glob(f"*/studies/*/{CARD}"))
VALUES = {"few": [3.0, 3.1, 2.9], "many": [1.0]}


def tables(rows: list[Row], **card: Any) -> dict[str, Table]:
    return study_tables(StudyResults(make_card(**card), tuple(rows), Path()).with_derived())


def column(table: Table, name: str) -> list[str]:
    return [row[table.header.index(name)].text for row in table.rows]


def everything() -> list[Row]:
    """A value of every group; costs and checks stand under the generator ``none``."""
    rows = make_rows(VALUES, train_flops=2e12)
    for metric in ("round_trip", "latent_std", "gradient_spread", "stage_flops"):
        protocol = {"stage_flops": "stage_flops_grow"}.get(metric, metric)
        rows += make_rows(VALUES, metric=metric, protocol=protocol, generator="none")
    return rows


def test_every_group_has_a_table_of_its_own_without_empty_columns() -> None:
    made = tables(everything())
    assert list(made) == [QUALITY, GROWTH, ROUND_TRIP, LATENTS, COST, STAGES]
    for table in made.values():
        for i, _ in enumerate(table.header):
            assert any(row[i].text for row in table.rows)


def test_an_enlarged_student_has_no_training_of_its_own() -> None:
    own = make_rows(VALUES, train_flops=2e12)
    enlarged = make_rows(VALUES, train_flops=9e12, generator="upsampled_base", nfe=1)
    assert len(tables(own + enlarged)[COST].rows) == len(tables(own)[COST].rows)


def test_real_images_that_are_enlarged_stand_last_but_one_with_their_base() -> None:
    """Once where variants share them, and once for each base where they do not."""
    facts: dict[str, Any] = {"resolution": 32, "nfe": None}
    few, many = (make_rows({name: [4.0]}, resolution=32) for name in ("few", "many"))
    real = make_rows({"few": [0.1], "many": [0.1]}, generator="real", **facts)
    one = make_rows({"few": [35.0], "many": [35.0]}, generator="upsampled_real", **facts)
    two = make_rows({"many": [9.0]}, generator="upsampled_real", **facts | {"base_res": 16})
    label = "Real images at the base, bilinear upsampling"
    for rows, expected in ((one, ["8×8"]), (one[:1] + two, ["8×8", "16×16"])):
        lines = [row[0].text for row in tables(few + many + real + rows)[QUALITY].rows]
        assert lines[-1] == "Real images, held out (floor)"
        assert lines[2:-1] == [f"{label} ({base})" for base in expected]


def test_variants_that_train_nothing_have_a_table_of_their_own_beside_others() -> None:
    few, many = make_rows({"few": [0.1]}, train_flops=2e12), make_rows({"many": [0.1]})
    timed = [dataclasses.replace(row, metric="seconds_per_image", protocol="seconds_per_image_b8")
             for row in few + many]  # fmt: skip
    counted = make_rows({"many": [1e9]}, metric="sampling_flops", protocol="sampling_flops")
    made = tables(few + many + timed + counted)
    assert len(made[COST].rows) == len(made[SAMPLING].rows) == 1
    assert "Training" not in "".join(made[SAMPLING].header)
    assert len(tables(few + many + timed)[COST].rows) == 2  # no column of its own
    assert SAMPLING not in tables(many + timed[len(few) :] + counted)


def test_what_a_stage_holds_stands_in_the_line_of_its_compute() -> None:
    rows = []
    for stage, held in (("teacher", 1.0), ("distill", 3.0)):
        for metric, value in (("stage_flops", 2e12), ("held_networks", held)):
            rows += make_rows({"few": [value] * 3}, metric=metric, protocol=f"{metric}_{stage}",
                              generator="none")  # fmt: skip
    table = tables(rows)[STAGES]
    lines = zip(column(table, "Stage"), column(table, "Networks held"), strict=True)
    assert [line for line in lines if line[0] != "all stages"] == [
        ("teacher", "1.00"), ("distill", "3.00")
    ]  # fmt: skip


def test_a_cell_is_the_mean_with_half_of_students_interval() -> None:
    cells = column(tables(make_rows(VALUES))[QUALITY], "FD ↓ `fd_classifier_1k`")
    half = stats.t.ppf(0.975, 2) * stats.sem(VALUES["few"])
    assert cells == [f"3.00 ± {half:.2f}", "1.00"]


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (1.627, 0.0908, "1.627 ± 0.091"),
        (45.0, 46.9, "45 ± 47"),
        (46.1, 151.0, "46 ± 151"),
        (1234.5, 12.0, "1,234 ± 12"),
        (2.0, 0.0, "2.00"),
        (1.0, float("inf"), "1.00"),
    ],
)
def test_a_mean_is_printed_to_the_digits_that_its_interval_allows(
    mean: float, half: float, text: str
) -> None:
    assert with_half(Interval(mean, mean - half, mean + half, 3)) == text


def test_units_are_scaled_and_named_and_the_provenance_keeps_the_measured_value() -> None:
    rows = make_rows({"few": [0.0125]}, metric="seconds_per_image", protocol="seconds_b64")
    table = tables(rows)[COST]
    (cell,) = [row[-1] for row in table.rows]
    assert table.header[-1] == "Time an image ↓, ms `seconds_b64`"
    assert cell.text == "12.5"
    assert "seed 0: 0.0125" in cell.title


def test_the_caption_tells_what_a_reviewer_asks_for() -> None:
    caption = tables(make_rows(VALUES))[QUALITY].caption
    for fact in (
        "`tiny` (scaled down)", "made up, 8 images", "seeds 0, 1, 2", "Student's 95%",
        "n 1,024 images", "evaluation seed 7", "8,192 real images at 8×8", "features `fefe",
        "code `0123456789ab`", "on cpu", "NFE 1",
    ):  # fmt: skip
        assert fact in caption
    alone = tables(make_rows({"few": [1.0], "many": [2.0]}))[QUALITY].caption
    assert "Values of seed 0 alone: no interval" in alone
    full = tables(make_rows(VALUES), profile="imagenet")[QUALITY].caption
    assert "`imagenet` (full size)" in full


def test_seeds_are_of_training_only_where_something_was_trained() -> None:
    trained = tables(make_rows(VALUES, train_flops=2e12))[QUALITY].caption
    assert "Mean over training seeds 0, 1, 2" in trained and "nothing is trained" not in trained
    drawn = tables(make_rows(VALUES))[QUALITY].caption
    assert "Mean over seeds 0, 1, 2" in drawn and "nothing is trained" in drawn


def test_a_rule_with_a_claim_of_after_a_trial_is_not_said_to_be_before(tmp_path: Path) -> None:
    card = make_card()
    before, late = make_claim(tmp_path), make_claim(tmp_path, after_run="a trial gave 3 dB")
    other = dataclasses.replace(late, study="another")
    assert rule_text(card, [before, other]) == f"**Rule, fixed before the run.** {card.rule}"
    told = rule_text(card, [before, late])
    assert told.startswith("**Rule.**") and "`pairs.few` (a trial gave 3 dB)" in told


def test_values_of_two_protocols_stand_in_two_columns() -> None:
    rows = make_rows({"few": [1.0]}) + make_rows({"many": [2.0]}, protocol="fid_clean_1k")
    table = tables(rows)[QUALITY]
    assert column(table, "FD ↓ `fd_classifier_1k`") == ["1.00", ""]
    assert column(table, "FD ↓ `fid_clean_1k`") == ["", "2.00"]


def test_fewer_real_images_stand_in_the_column_of_the_samples_with_their_n() -> None:
    own = make_rows({"few": [3.0], "many": [1.0]}, protocol="fd_classifier_4k", n=4096)
    facts: dict[str, Any] = {"generator": "real", "nfe": None, "protocol": "fd_classifier_2k"}
    fewer = make_rows({"few": [0.5]}, n=2048, **facts)
    table = tables(own + fewer)[QUALITY]
    assert column(table, "FD ↓ `fd_classifier_4k`") == ["3.00", "1.00", "0.500 (n 2,048)"]
    assert "Real images are not as many" in table.caption
    assert "FD ↓ `fd_classifier_2k`" not in table.header
    # of another network, or beside two protocols of samples, they have a column of their own
    others = make_rows({"few": [0.5]}, features="beef" * 16, **facts)
    assert "FD ↓ `fd_classifier_2k`" in tables(own + others)[QUALITY].header
    two = make_rows({"many": [1.0]}, protocol="fd_classifier_1k")
    assert "FD ↓ `fd_classifier_2k`" in tables(own + two + fewer)[QUALITY].header


def test_a_shared_teacher_and_real_images_are_shown_once() -> None:
    rows = make_rows({"few": [3.0, 3.1], "many": [1.0, 1.1]})
    for who, nfe in (("teacher", 23), ("real", None)):
        rows += make_rows({"few": [0.5, 0.5], "many": [0.5, 0.5]}, generator=who, nfe=nfe)
    variants = column(tables(rows)[QUALITY], "Variant")
    assert variants == ["1 %", "1 %: diffusion teacher", "100 %", "Real images, held out (floor)"]
    other = [
        dataclasses.replace(r, value=0.7) if (r.variant, r.generator) == ("many", "teacher") else r
        for r in rows
    ]
    assert "100 %: diffusion teacher" in column(tables(other)[QUALITY], "Variant")


def test_stages_are_summed_where_there_are_several() -> None:
    one = make_rows({"few": [2e12]}, metric="stage_flops", protocol="stage_flops_teacher",
                    generator="none")  # fmt: skip
    assert column(tables(one)[STAGES], "Variant") == ["1 %"]
    more = [make_row("few", 0, 3e12, metric="stage_flops", protocol="stage_flops_grow",
                     generator="none", resolution=16)]  # fmt: skip
    table = tables(one + more)[STAGES]
    assert column(table, "Stage") == ["teacher", "grow", "all stages"]
    assert column(table, "Compute, TFLOP") == ["2.00", "3.00", "5.00"]


@pytest.mark.parametrize("folder", MEASURED, ids=lambda f: f"{f.parts[-3]}-{f.name}")
def test_the_measured_studies_lose_no_value_and_have_no_mostly_empty_column(
    folder: Path,
) -> None:
    study = read_study(folder)
    made = study_tables(study.with_derived())
    told = "\n".join(cell.title for t in made.values() for row in t.rows for cell in row)
    for row in study.rows:
        assert f": {row.value!r}" in told
    # Edits are measured on three numbers of images (one answer to each, several to few, frames of
    # paths), and protocols are not blended: their columns are as full as their lines allow.
    least = 0.02 if study.card.study == "editing" else 0.5
    for table in made.values():
        columns: dict[str, list[int]] = {}
        for i, name in enumerate(table.header):
            # A variant of the study of speed has one size of batch: times are one column in two.
            own = name.partition("_b1")[0] if study.card.study == "speed" else name
            columns.setdefault(own, []).append(i)
        for name, places in columns.items():
            filled = sum(any(row[i].text for i in places) for row in table.rows)
            assert filled >= least * len(table.rows), name


@pytest.mark.parametrize("folder", MEASURED, ids=lambda f: f"{f.parts[-3]}-{f.name}")
def test_rows_of_another_network_do_not_name_the_classifiers_features(folder: Path) -> None:
    """Rows measured before networks had fingerprints of their own are corrected, once and again."""
    study = read_study(folder)
    features: dict[bool, set[str | None]] = {True: set(), False: set()}
    for row in study.rows:
        if row.features:
            features["efficientnet" in row.protocol].add(row.features)
    assert not features[True] & features[False]
    assert len(features[True]) <= 1


def test_an_interval_stands_behind_its_mean_where_there_is_one() -> None:
    assert with_ends("×2.00", 1.5, math.inf) == "×2.00 (1.50 to ∞)"
    assert with_ends("2.00", 2.0, 2.0) == with_ends("2.00", -math.inf, math.inf) == "2.00"
