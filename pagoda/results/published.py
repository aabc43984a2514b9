"""Published figures, each with its source and how near it is to the authors.

They live in ``reports/published/*.csv``. A cell that nobody could source has no line there and
stays empty in every table. A user's own file of the same columns can fill it; such rows have the
grade ``user`` and are marked wherever they are shown.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.errors import PagodaError

FOLDER = Path("reports/published")
PRIMARY, SECONDARY, USER = "primary", "secondary", "user"
COLUMNS = ("table", "dataset", "resolution", "method", "guidance", "metric", "value", "nfe",
           "params_millions", "grade", "source")  # fmt: skip
_GUIDANCE = {"": "", "n/r": "", "n/a": "", "no": "no", "none": "no", "yes": "yes"}


@dataclass(frozen=True)
class Published:
    """One published value.

    Attributes:
        table: the table it stands beside.
        dataset: as its source names it.
        resolution: pixels; None if the value is of no single one.
        method: as its source names it.
        guidance: ``no``, ``yes``, a kind of guidance, or empty where the source does not say.
        metric: ``FID``, ``IS``, ``Recall``, …
        value: the number.
        nfe: network evaluations an image, as printed (``63x2``: guidance doubles them).
        params_millions: of the network; None where the source does not say.
        grade: :data:`PRIMARY` (the method's authors), :data:`SECONDARY` (quoted by others) or
            :data:`USER`.
        source: where it was read.
    """

    table: str
    dataset: str
    resolution: int | None
    method: str
    guidance: str
    metric: str
    value: float
    nfe: str
    params_millions: float | None
    grade: str
    source: str


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
    return rows if own is None else rows + _read(own, grade=USER)


def _read(path: Path, grade: str | None = None) -> list[Published]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:  # Excel's UTF-8 has a mark
            reader = csv.DictReader(stream)
            if wrong := set(COLUMNS) ^ set(reader.fieldnames or ()):
                raise PagodaError(
                    f"{path}: missing or unknown columns {sorted(wrong)}; it must have "
                    f"{', '.join(COLUMNS)}"
                )
            lines = list(reader)
    except OSError as error:
        raise PagodaError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PagodaError(
            f"{path} is not UTF-8 text (Windows-1252 or UTF-16, as spreadsheets write?); save it "
            "as 'CSV UTF-8'"
        ) from error
    except csv.Error as error:
        raise PagodaError(f"{path} is no CSV ({error})") from error
    return [_row(line, f"{path} line {n}", grade) for n, line in enumerate(lines, 2)]


def _row(line: dict[str, Any], where: str, grade: str | None) -> Published:
    if None in line or None in line.values():
        raise PagodaError(f"{where}: not {len(COLUMNS)} fields; quote fields that hold a comma")
    line = {key: value.strip() for key, value in line.items()}
    for key in ("table", "dataset", "method", "metric", "value", "source"):
        if not line[key]:
            raise PagodaError(f"{where}: {key} is empty; a figure needs all but the unknown")
    graded = grade or line["grade"]
    if graded not in (PRIMARY, SECONDARY, USER):
        raise PagodaError(f"{where}: grade {graded!r} must be {PRIMARY} or {SECONDARY}")
    resolution, params = line["resolution"], line["params_millions"]
    size = _number(resolution, "resolution", where)
    return Published(
        table=line["table"],
        dataset=line["dataset"],
        resolution=None if math.isnan(size) else int(size),
        method=line["method"],
        guidance=_GUIDANCE.get(line["guidance"], line["guidance"]),
        metric=line["metric"],
        value=_number(line["value"], "value", where),
        nfe=line["nfe"],
        params_millions=_number(params, "params_millions", where) if params else None,
        grade=graded,
        source=line["source"],
    )


def _number(text: str, key: str, where: str) -> float:
    """A finite number of at least zero; NaN for nothing."""
    try:
        value = float(text) if text else math.nan
    except ValueError as error:
        raise PagodaError(f"{where}: {key} = {text!r} is not a number") from error
    if math.isinf(value) or value < 0 or (text and math.isnan(value)):
        raise PagodaError(f"{where}: {key} = {text} is not a finite number from 0 up")
    return value
