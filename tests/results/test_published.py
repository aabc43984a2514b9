"""Published figures: every row has what a reader needs, and a user's own file is checked."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pagoda.errors import PagodaError
from pagoda.results.published import COLUMNS, FOLDER, PRIMARY, SECONDARY, USER, read_published

ROW = "table1_imagenet,ImageNet,64,PaGoDA,no,IS,12.5,1,,,my own run"
OURS = ("PaGoDA", "FID", "table1_imagenet")


def own_file(tmp_path: Path, line: str = ROW) -> Path:
    path = tmp_path / "own.csv"
    path.write_text(",".join(COLUMNS) + "\n" + line + "\n")
    return path


def test_every_row_of_the_projects_files_is_read_and_sourced() -> None:
    rows = read_published()
    lines = sum(len(f.read_text().splitlines()) - 1 for f in FOLDER.glob("*.csv"))
    assert len(rows) == lines > 500
    assert {row.grade for row in rows} == {PRIMARY, SECONDARY}
    assert all(row.source for row in rows)


def test_the_papers_own_figures_are_there() -> None:
    with (FOLDER / "paper_tables.csv").open(newline="") as text:
        written = {(r["resolution"], r["value"]) for r in csv.DictReader(text)
                   if (r["method"], r["metric"], r["table"]) == OURS}  # fmt: skip
    read = {(str(p.resolution), f"{p.value:g}") for p in read_published()
            if (p.method, p.metric, p.table) == OURS}  # fmt: skip
    assert {r for r, _ in read} == {"64", "128", "256", "512"}
    assert read == written


def test_no_figure_is_there_twice_in_one_grade_of_one_source() -> None:
    rows = read_published()
    keys = [(p.table, p.dataset, p.resolution, p.method, p.guidance, p.metric, p.nfe, p.value,
             p.source) for p in rows]  # fmt: skip
    assert len(keys) == len(set(keys))
    assert {"FD-DINOv2"} == {p.metric for p in rows if "DINO" in p.metric}


def test_a_users_row_has_a_grade_of_its_own(tmp_path: Path) -> None:
    (mine,) = [p for p in read_published(own=own_file(tmp_path)) if p.grade == USER]
    assert (mine.method, mine.metric, mine.value) == ("PaGoDA", "IS", 12.5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (ROW.replace("12.5", "twelve"), "line 2: value = 'twelve' is not a number"),
        (ROW.replace("12.5", "-1"), "line 2: value = -1 is not a finite number"),
        (ROW.replace("12.5", "nan"), "is not a finite number"),
        (ROW.replace("my own run", ""), "line 2: source is empty"),
        (ROW.replace("PaGoDA", "Pa,GoDA"), "line 2: not 11 fields"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(PagodaError, match=message):
        read_published(own=own_file(tmp_path, line))


def test_a_spreadsheets_csv_is_read_or_its_encoding_told(tmp_path: Path) -> None:
    path = own_file(tmp_path, ROW.replace("my own run", "a café"))
    text = path.read_text("utf-8").replace("\n", "\r\n")
    path.write_bytes(text.encode("utf-8-sig"))  # as Excel's "CSV UTF-8"
    assert [p.source for p in read_published(own=path) if p.grade == USER] == ["a café"]
    for encoding in ("cp1252", "utf-16"):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(PagodaError, match=r"own\.csv is not UTF-8 text .*save it as"):
            read_published(own=path)


def test_wrong_columns_or_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PagodaError, match=r"none\.csv is missing"):
        read_published(own=tmp_path / "none.csv")
    (tmp_path / "own.csv").write_text("method,value\n")
    with pytest.raises(PagodaError, match="missing or unknown columns"):
        read_published(own=tmp_path / "own.csv")
    with pytest.raises(PagodaError, match="has no CSV"):
        read_published(tmp_path / "empty")
