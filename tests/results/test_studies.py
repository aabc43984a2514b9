"""The file format of a study: round trips, equal bytes, and one line for what is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pagoda.errors import PagodaError
from pagoda.results.studies import find_studies, read_study, study_folder, write_study
from tests.results.synthetic_study import make_card, make_rows


def test_a_study_round_trips_and_equal_results_give_equal_files(tmp_path: Path) -> None:
    card, rows = make_card(), make_rows({"few": [2.0, 1 / 3], "many": [1e-9, 1.0]})
    folder = study_folder("tiny", card.study, tmp_path)
    write_study(folder, card, rows)
    found = read_study(folder)
    assert found.card == card
    assert set(found.rows) == set(rows)
    first = (folder / "results.csv").read_bytes()
    write_study(folder, card, reversed(rows))
    assert (folder / "results.csv").read_bytes() == first
    assert [s.card.study for s in find_studies(tmp_path)] == [card.study]


def test_unknown_fields_are_none_not_zero(tmp_path: Path) -> None:
    row = dataclasses.replace(make_rows({"few": [2.0]})[0], nfe=None, axis=None, reference="")
    write_study(tmp_path, make_card(), [row])
    assert read_study(tmp_path).rows == (row,)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("few", "other", "is not in study.json"),
        ("2.0", "nan", "line 2: value = nan is not a finite number"),
        ("2.0", "two", "line 2: value = 'two' is not a finite number"),
        ("2.0", "", "line 2 lacks value"),
        ("protocol", "protokoll", "missing or unknown columns"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_study(tmp_path, make_card(), make_rows({"few": [2.0]}))
    path = tmp_path / "results.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(PagodaError, match=message) as caught:
        read_study(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_shapes_of_a_studys_files_are_one_line(tmp_path: Path) -> None:
    write_study(tmp_path, make_card(), make_rows({"few": [2.0]}))
    results, card = tmp_path / "results.csv", tmp_path / "study.json"
    whole, tree = results.read_text(), json.loads(card.read_text())
    for text, message in {
        whole + "\xff": "is not UTF-8 text",
        whole.replace("few,", 'f"ew,'): "variant .* is not in study.json",
        whole + "few\n": "line 3: not .* fields",
        whole.replace(",0,", ",,", 1): "lacks value, training_seed or resolution",
    }.items():
        results.write_bytes(text.encode("latin-1"))
        with pytest.raises(PagodaError, match=f"results.csv.*{message}.*run the study again"):
            read_study(tmp_path)
    results.unlink()
    with pytest.raises(PagodaError, match=r"results\.csv is missing"):
        read_study(tmp_path)
    shapes: dict[str, str] = {
        "{": "is not JSON", "[]": "is not a mapping", "{}": "missing or unknown entries",
        **{json.dumps(tree | {key: value}): told for key, value, told in (
            ("variants", ["few"], "variants = .* is no dict"),
            ("title", 7, "title = 7 is no str"),
            ("figures", [{"file": "x.png"}], "figures: missing or unknown entries"),
            ("failures", [3], "failures is not a mapping"),
        )},
    }  # fmt: skip
    for text, message in shapes.items():
        card.write_text(text)
        with pytest.raises(PagodaError, match=f"study.json.*{message}") as caught:
            read_study(tmp_path)
        assert "\n" not in str(caught.value)
