"""The file format of a study: round trips, equal bytes, and one line for what is wrong."""

from __future__ import annotations

import dataclasses
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
        ("few", "other", "are not in study.json"),
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


def test_a_study_without_results_or_with_a_broken_card_is_one_line(tmp_path: Path) -> None:
    write_study(tmp_path, make_card(), make_rows({"few": [2.0]}))
    (tmp_path / "results.csv").unlink()
    with pytest.raises(PagodaError, match=r"results\.csv is missing"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(PagodaError, match="missing or unknown entries"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(PagodaError, match="is not JSON"):
        read_study(tmp_path)
