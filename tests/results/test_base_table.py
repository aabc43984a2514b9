"""The study of base resolutions beside the paper's table 2."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pagoda.results.base_table import base_tables
from pagoda.results.studies import StudyResults
from pagoda.rows import Row
from tests.results.synthetic_study import make_card, make_rows


def study(rows: list[Row], name: str = "base_resolution") -> StudyResults:
    return StudyResults(make_card(study=name), tuple(rows), Path(name))


def of(generator: str, side: int, variant: str, *values: float, base: int = 8) -> list[Row]:
    rows = make_rows({variant: values}, generator=generator, resolution=side)
    return [
        dataclasses.replace(row, base_res=base, train_flops=1e12 * side, images_seen=side)
        for row in rows
    ]


def test_a_line_is_a_base_on_its_way_to_the_target_lowest_first() -> None:
    """Costs are those at the target; teachers and other studies are left out."""
    rows = of("student", 16, "many", 3.0, 3.0, base=16) + of("grown", 32, "many", 5.0, 5.0, base=16)
    rows += of("student", 8, "few", 2.0, 2.0) + of("teacher", 8, "few", 9.0, 9.0)
    rows += of("grown", 16, "few", 4.0, 4.0) + of("grown", 32, "few", 6.0, 6.0)
    rows += of("real", 16, "few", 0.5, 0.5) + of("real", 16, "many", 0.5, 0.5)
    ((name, table),) = base_tables([study(rows), study(rows, "pairs")]).items()
    assert name == "base-resolution-study-tiny"
    lines = [[cell if isinstance(cell, str) else cell.text for cell in row] for row in table.rows]
    assert [line[:2] for line in lines] == [
        ["8×8", "8 → 16 → 32"], ["16×16", "16 → 32"], ["Real images, held out (floor)", ""],
    ]  # fmt: skip
    values = [dict(zip(table.header[3:], line[3:], strict=True)) for line in lines]
    assert [
        {column.split(" ↓")[0]: value.split(" ±")[0] for column, value in line.items()}
        for line in values
    ] == [
        {"FD 8×8": "2.00", "FD 16×16": "4.00", "FD 32×32": "6.00", "Training, TFLOP": "32.0"},
        {"FD 8×8": "", "FD 16×16": "3.00", "FD 32×32": "5.00", "Training, TFLOP": "32.0"},
        {"FD 8×8": "", "FD 16×16": "0.500", "FD 32×32": "", "Training, TFLOP": ""},
    ]  # fmt: skip
    assert "2 training seeds" in table.caption and "code" in table.rows[0][4].title
