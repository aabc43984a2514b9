"""Published figures, each with its source and how near it is to the authors.

They live in ``reports/published/*.csv``. A cell that nobody could source has no line there and
stays empty in every table. A user's own file of the same columns can fill it; such rows have the
grade ``user`` and are marked wherever they are shown.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from dataclasses import dataclass
from pathlib import Path

from pagoda.errors import PagodaError
from pagoda.rows import read_text

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
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        if wrong := set(COLUMNS) ^ set(reader.fieldnames or ()):
            raise PagodaError(
                f"{path}: missing or unknown columns {sorted(wrong)}; it must have "
                f"{', '.join(COLUMNS)}"
            )
        lines = list(reader)
    except csv.Error as error:
        raise PagodaError(f"{path} is no CSV ({error})") from error
    return [_row(line, f"{path} line {n}", grade) for n, line in enumerate(lines, 2)]


def _row(line: dict[str, str], where: str, grade: str) -> Published:
    if None in line or None in line.values():
        raise PagodaError(f"{where}: not {len(COLUMNS)} fields; quote fields that hold a comma")
    line = {key: value.strip() for key, value in line.items()}
    if empty := [key for key in _NEEDED if not line[key]]:
        raise PagodaError(f"{where}: {empty[0]} is empty; a figure needs all but the unknown")
    grade = grade or line["grade"]
    if grade not in (PRIMARY, SECONDARY, USER):
        raise PagodaError(f"{where}: grade {grade!r} must be {PRIMARY} or {SECONDARY}")
    numbers = {key: _number(line[key], f"{where}: {key}")
               for key in ("resolution", "value", "params_millions")}  # fmt: skip
    size, value = numbers["resolution"], numbers["value"]
    assert value is not None  # it was not empty
    return Published(
        table=line["table"], dataset=line["dataset"],
        resolution=None if size is None else int(size),
        method=line["method"], guidance=_GUIDANCE.get(line["guidance"], line["guidance"]),
        metric=line["metric"], value=value, nfe=line["nfe"],
        params_millions=numbers["params_millions"], grade=grade, source=line["source"],
    )  # fmt: skip


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
