"""Tables, CSV, ``metrics.json`` and the rules: every number where it belongs, with its source."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.results.blocks import Cell, Document, Section, Table, to_markdown
from pagoda.results.experiment import Evaluation, Experiment, History
from pagoda.results.numbers import number, value_cell
from pagoda.results.report import metrics_tree, results_table
from pagoda.results.runs import make_run
from pagoda.results.verdicts import FAILS, HOLDS, NOT_MEASURED, verdict_table, verdicts
from pagoda.rows import Row, from_csv, from_json, to_csv, to_json
from tests.results.synthetic import CLASSES, make_config, result_rows


def make_experiment(rows: dict[int, list[dict[str, Any]]] | None = None) -> Experiment:
    """Results of 8 -> 16 -> 32, no pictures."""
    config = make_config()
    rows = rows or {r: result_rows(config, r) for r in config.resolutions}
    evaluations = {
        r: Evaluation(
            r, tuple(Row(**row) for row in rows[r]), ("student" if r == 8 else "grown",),
            np.zeros((1, 10, 1, 3, r, r), np.uint8), np.zeros((1, 10, 1, 3, r, r), np.uint8),
            "f" * 64,
        )
        for r in config.resolutions
    }  # fmt: skip
    return Experiment(
        config, tuple(CLASSES), {}, "d" * 64, {}, evaluations, {"teacher": History("teacher", ())}
    )


def with_rows(
    experiment: Experiment, resolution: int, change: Callable[[Row], Row | None]
) -> Experiment:
    """The experiment with rows of one resolution changed, or left out."""
    old = experiment.evaluations[resolution]
    rows = tuple(row for row in map(change, old.rows) if row is not None)
    new = dataclasses.replace(old, rows=rows)
    return dataclasses.replace(experiment, evaluations=experiment.evaluations | {resolution: new})


def with_distance(experiment: Experiment, resolution: int, name: str, value: float) -> Experiment:
    """The experiment with one Fréchet distance replaced."""
    return with_rows(
        experiment, resolution,
        lambda r: dataclasses.replace(r, value=value) if (r.generator, r.metric) == (name, "fd")
        else r,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(1887.4, "1,887"), (999.6, "1,000"), (206.31, "206"), (37.4, "37.4"), (6.127, "6.13"),
     (0.4021, "0.402"), (0.00312, "0.00312"), (0.0, "0.00"), (-3.14159, "-3.14"), (12, "12.0")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_every_value_is_in_its_cell() -> None:
    experiment = make_experiment()
    table = results_table(experiment.evaluations[8])
    names = [row[0].text for row in table.rows]
    assert names == ["Diffusion teacher", "**One-step student**", "Teacher's weights in one step",
                     "Untrained generator", "Real images, held out (floor)"]  # fmt: skip
    column = next(i for i, head in enumerate(table.header) if "`fd_classifier_2k`" in head)
    assert [row[column].text for row in table.rows] == ["3.63", "4.90", "288", "1,887", "0.402"]
    assert [row[1].text for row in table.rows] == ["35", "1", "1", "1", "–"]
    assert "n 2048, seed 7" in table.rows[1][column].title
    for fact in (
        "Seed 7.", "8,192 real images at 8×8 (`0808080808`), precision and recall 2,048 of them.",
        "Features `fefefefefe`.", "Code `0123456789ab`, on cpu.",
    ):  # fmt: skip
        assert fact in table.caption


def test_another_protocol_is_another_column() -> None:
    experiment = make_experiment()
    old = experiment.evaluations[16]
    extra = dataclasses.replace(old.rows[0], protocol="fd_classifier_64", value=99.0, n=64)
    table = results_table(dataclasses.replace(old, rows=(*old.rows, extra)))
    heads = [h for h in table.header if h.startswith("FD")]
    assert heads == ["FD ↓ `fd_classifier_2k`", "FD ↓ `fd_classifier_64`"]
    first, second = (table.header.index(h) for h in heads)
    pairs = {(row[first].text, row[second].text) for row in table.rows}
    assert ("20.8", "") in pairs
    assert ("", "99.0") in pairs


def test_several_seeds_are_rows_of_their_own() -> None:
    old = make_experiment().evaluations[16]
    other = [dataclasses.replace(r, seed=8, value=r.number + 1) for r in old.rows]
    table = results_table(dataclasses.replace(old, rows=(*old.rows, *other)))
    assert table.header[3] == "Seed"
    assert len(table.rows) == 8
    assert "Seeds 7, 8" in table.caption


def test_csv_returns_every_row_unrounded() -> None:
    experiment = make_experiment()
    read = list(csv.DictReader(io.StringIO(to_csv(experiment.rows))))
    assert len(read) == len(experiment.rows)
    for line, row in zip(read, experiment.rows, strict=True):
        assert float(line["value"]) == row.value
        assert line["protocol"] == row.protocol
        assert line["nfe"] == ("" if row.nfe is None else str(row.nfe))
        assert line["reference"] == row.reference


def test_a_deviation_is_shown_and_kept() -> None:
    experiment = make_experiment()
    old = experiment.evaluations[32]
    assert "sd" not in to_csv(experiment.rows).splitlines()[0].split(",")
    experiment = with_rows(
        experiment, 32, lambda r: dataclasses.replace(r, sd=0.5) if r.metric == "fd" else r
    )
    table = results_table(experiment.evaluations[32])
    assert "37.4 ± 0.500" in {cell.text for line in table.rows for cell in line}
    assert "±" in table.caption and "±" not in results_table(old).caption
    kept = make_run("smoke", to_csv(experiment.rows), "", "", "results.csv").rows
    assert kept == experiment.rows


def test_rows_survive_json_and_csv_and_an_infinite_value_is_shown() -> None:
    rows = [
        Row(metric="psnr", protocol="psnr_pixels_2", value=None, n=2, interval="student_95"),
        Row(metric="fd", protocol="fd_x_2", value=1 / 3, n=2, generator='a, "b"', axis=0.1, seed=0),
    ]
    for read in (from_json(to_json(rows), "x"), from_csv(to_csv(rows), "x")):
        assert read == rows
    assert set(to_json(rows)[0]) == {"metric", "protocol", "value", "n", "interval"}
    assert value_cell(rows[0]).text == "∞"
    with pytest.raises(PagodaError, match="x: missing or unknown columns: n, arm"):
        from_csv("metric,protocol,value,arm\n", "x")
    with pytest.raises(PagodaError, match="x, line 2: not 4 fields"):
        from_csv("metric,protocol,value,n\na,b\n", "x")


def test_metrics_line_up() -> None:
    tree = metrics_tree(make_experiment())
    assert list(tree["resolution"]) == ["0008", "0016", "0032"]
    assert tree["final"] == tree["resolution"]["0032"]
    assert tree["student"] == tree["resolution"]["0008"]
    assert tree["final"]["fd_classifier_2k"] == 37.4
    assert tree["student"]["fd_classifier_2k"] == 4.9
    assert len(tree["final"]) == 5


# Student 8, grown 16 and grown 32 at the edge of a rule, and the outcome the rule then has.
@pytest.mark.parametrize(
    ("resolution", "name", "value", "rule", "outcome"),
    [
        (8, "student", 3.63 * 1.5, 0, HOLDS),
        (8, "student", 3.63 * 1.5001, 0, FAILS),
        (8, "untrained", 49.0, 1, HOLDS),
        (8, "untrained", 48.9, 1, FAILS),
        (16, "grown", 206.2, 2, HOLDS),
        (16, "grown", 206.3, 2, FAILS),
        (16, "grown", 300.0, 2, FAILS),
        (16, "grown", 14.7, 3, HOLDS),
        (16, "grown", 14.71, 3, FAILS),
        (32, "grown", 80.5, 4, HOLDS),
        (32, "grown", 80.7, 4, FAILS),
        (32, "grown", 14.6, 5, HOLDS),
        (32, "grown", 37.4, 5, FAILS),
    ],
)
def test_rules_turn_at_their_limit(
    resolution: int, name: str, value: float, rule: int, outcome: str
) -> None:
    experiment = with_distance(make_experiment(), resolution, name, value)
    assert verdicts(experiment)[rule].outcome == outcome


def test_a_missing_yardstick_is_not_a_verdict() -> None:
    experiment = with_rows(make_experiment(), 8, lambda r: None if r.generator == "teacher" else r)
    found = verdicts(experiment)
    assert [v.outcome for v in found].count(NOT_MEASURED) == 1
    assert found[0].outcome == NOT_MEASURED
    assert "– not measured" in verdict_table(experiment).rows[0][2].text


def test_no_rule_holds_where_everything_is_noise() -> None:
    """Every generator as far as the untrained one, give or take: the ratios alone would hold."""
    experiment = make_experiment()
    noise = {"teacher": 1900.0, "student": 1850.0, "grown": 1800.0, "upsampled_base": 1880.0,
             "untrained": 1887.0}  # fmt: skip
    for res in (8, 16, 32):
        for name, value in noise.items():
            experiment = with_distance(experiment, res, name, value)
    found = verdicts(experiment)
    assert {v.outcome for v in found} == {FAILS}
    assert "an untrained generator is at" in found[0].measured and "noise" in found[0].measured


def test_distances_of_two_protocols_are_never_compared() -> None:
    experiment = with_rows(
        make_experiment(), 16,
        lambda r: dataclasses.replace(r, protocol="fd_other_2k") if r.metric == "fd" else r,
    )  # fmt: skip
    across = [v.outcome for v in verdicts(experiment)
              if "At 16×16" in v.rule and "student at 8×8" in v.rule]  # fmt: skip
    assert across and set(across) == {NOT_MEASURED}


def test_a_protocol_of_the_floor_alone_has_no_rules() -> None:
    experiment = make_experiment()
    count = len(verdicts(experiment))
    for res in (8, 16, 32):
        experiment = with_rows(
            experiment, res,
            lambda r: dataclasses.replace(r, protocol="fd_classifier_100", n=100)
            if (r.generator, r.metric) == ("real", "fd") else r,
        )  # fmt: skip
    assert len(verdicts(experiment)) == count
    assert {v.outcome for v in verdicts(experiment)} == {HOLDS, FAILS}


def test_markdown_tables_survive_their_cells() -> None:
    table = Table("c", ("a", "b"), ((Cell("x|y"), Cell("1\n2")),), "lr")
    text = to_markdown(Document("t", "s", (Section("S", (table, "words")),)))
    assert "| x\\|y | 1 2 |" in text
    assert "| --- | ---: |" in text
    with pytest.raises(ValueError, match="cells"):
        Table("c", ("a", "b"), ((Cell("x"),),), "lr")
