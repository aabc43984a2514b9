"""Published figures, each with its source and how near it is to the authors.

They live in ``reports/published/*.csv``. A cell that nobody could source has no line there and
stays empty in every table. A user's own file of the same columns can fill it; such rows have the
grade ``user`` and are marked wherever they are shown.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.errors import PagodaError
from pagoda.rows import read_csv, read_text

FOLDER = Path("reports/published")
PRIMARY, SECONDARY, USER = "primary", "secondary", "user"
_GUIDANCE = {"": "", "n/r": "", "n/a": "", "no": "no", "none": "no", "yes": "yes"}


@dataclass(frozen=True)
class Published:
    """One published value."""

    table: str  # it stands beside
    dataset: str  # as its source names it
    resolution: int | None  # pixels; None if the value is of no single one
    method: str  # as its source names it
    guidance: str  # no, yes, a kind of guidance, or empty where the source does not say
    metric: str  # FID, IS, Recall, ...
    value: float
    nfe: str  # network evaluations an image, as printed (63x2: guidance doubles them)
    params_millions: float | None  # None where the source does not say
    grade: str  # PRIMARY (the method's authors), SECONDARY (quoted by others) or USER
    source: str  # where it was read


COLUMNS = tuple(f.name for f in dataclasses.fields(Published))
_NEEDED = ("table", "dataset", "method", "metric", "value", "source")


def read_published(folder: Path = FOLDER, own: Path | None = None) -> list[Published]:
    """All published rows, then a user's own.

    Args:
        folder: of the project's CSV files.
        own: a user's CSV of the same columns; its grade column may be empty.

    Raises:
        PagodaError: one line with file, line and what is wrong.
    """
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise PagodaError(f"{folder} has no CSV; 'git checkout -- {folder}' brings the files back")
    rows = [row for file in files for row in _read(file)]
    return rows if own is None else rows + _read(own, USER)


def _read(path: Path, grade: str = "") -> list[Published]:
    lines = read_csv(read_text(path), str(path), COLUMNS, COLUMNS)
    return [_row(line, where, grade) for where, line in lines]


def _row(texts: dict[str, str], where: str, grade: str) -> Published:
    line: dict[str, Any] = {key: text.strip() for key, text in texts.items()}
    if empty := [key for key in _NEEDED if not line[key]]:
        raise PagodaError(f"{where}: {empty[0]} is empty; a figure needs all but the unknown")
    line["grade"] = grade or line["grade"]
    if line["grade"] not in (PRIMARY, SECONDARY, USER):
        raise PagodaError(f"{where}: grade {line['grade']!r} must be {PRIMARY} or {SECONDARY}")
    line["guidance"] = _GUIDANCE.get(line["guidance"], line["guidance"])
    for key in ("resolution", "value", "params_millions"):
        line[key] = _number(line[key], f"{where}: {key}")
    size = line["resolution"]
    return Published(**line | {"resolution": None if size is None else int(size)})


def _number(text: str, where: str) -> float | None:
    """A finite number of at least zero; None for nothing."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise PagodaError(f"{where} = {text!r} is not a number") from error
    if not 0 <= value < math.inf:
        raise PagodaError(f"{where} = {text} is not a finite number from 0 up")
    return value
