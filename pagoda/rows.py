"""One measured value: the one row type that evaluation writes and everything else reads."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pagoda.errors import PagodaError

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measured value with all that is needed to trace it. None: unknown, or does not apply."""

    metric: str  # what is measured: fd, recall, drift, train_flops, ...
    protocol: str  # metric, features, n and settings; never compared with another protocol
    value: float | None  # None where it is infinite (PSNR of equal pairs)
    n: int  # images, or what else was counted
    generator: str = "none"  # teacher, student, grown, real, a file's name; none: of a variant
    variant: str = ""  # of a study; empty for the main pipeline
    axis: float | None = None  # where the variant stands on the study's axis
    training_seed: int | None = None  # of the networks that made the images
    seed: int | None = None  # of the latents, or of the choice of images
    resolution: int | None = None  # side of the images
    base_res: int | None = None  # side of the teacher's images
    nfe: int | None = None  # network evaluations an image
    reference: str = ""  # fingerprint of the real images' statistics
    reference_n: int | None = None  # real images in them
    features: str = ""  # fingerprint of the feature network
    revision: str = ""  # code that measured
    device: str = ""  # where it was measured
    sd: float | None = None  # standard deviation over the protocol's subsets or splits (ddof 0)
    low: float | None = None  # ends of the interval
    high: float | None = None
    interval: str | None = None  # how it was found, with its level: wilson_95
    images_seen: int | None = None  # training images of all stages up to this generator
    train_flops: float | None = None  # floating-point operations of that training
    train_seconds: float | None = None  # its wall time

    @property
    def number(self) -> float:
        """The value; infinite where it is None."""
        return math.inf if self.value is None else self.value

    @property
    def size(self) -> int:
        """The resolution; 0 where there is none."""
        return self.resolution or 0


COLUMNS = tuple(f.name for f in dataclasses.fields(Row))
_EMPTY = {f.name: f.default for f in dataclasses.fields(Row)}
_NEEDED = [name for name, default in _EMPTY.items() if default is dataclasses.MISSING]
_KINDS = {name: getattr(hint, "__args__", (hint,)) for name, hint in get_type_hints(Row).items()}
_WORDS = {str: "text", int: "a whole number", float: "a finite number"}


def grouped(items: Iterable[_V], key: Callable[[_V], _K]) -> dict[_K, list[_V]]:
    """Items by key, keys and items in order of first appearance."""
    found: dict[_K, list[_V]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def to_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as JSON holds them: keys that say nothing are left out."""
    return [{k: v for k, v in vars(row).items() if v != _EMPTY[k]} for row in rows]


def to_csv(rows: Iterable[Row]) -> str:
    """A line a value, floats in full; columns that are empty in every row are left out."""
    trees = [vars(row) for row in rows]
    names = [name for name in COLUMNS if any(tree[name] != _EMPTY[name] for tree in trees)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(trees)
    return stream.getvalue()


def from_json(trees: Any, where: str) -> list[Row]:
    """Rows of a list as :func:`to_json` gives it.

    Raises:
        PagodaError: one line with ``where`` and the row: an entry is missing, unknown or of the
            wrong type, or a number is not finite.
    """
    if not isinstance(trees, list):
        raise PagodaError(f"{where} is no list of rows")
    return [_row(tree, f"{where}, row {n}") for n, tree in enumerate(trees, 1)]


def from_csv(text: str, where: str) -> list[Row]:
    """Rows of a text as :func:`to_csv` gives it, in any order of columns.

    Raises:
        PagodaError: as :func:`from_json`, with the line.
    """
    return [
        _row({"value": None} | {k: _parsed(v, _KINDS[k][0]) for k, v in line.items() if v}, at)
        for at, line in read_csv(text, where, COLUMNS, _NEEDED)
    ]


def read_csv(
    text: str, where: str, columns: Sequence[str], needed: Sequence[str]
) -> list[tuple[str, dict[str, str]]]:
    """Every record of a CSV with its place (``FILE, line 7``).

    Raises:
        PagodaError: one line; it is no CSV, a column is missing or unknown, or a record is longer
            or shorter than the header.
    """
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        names = reader.fieldnames or ()
        lines = [(f"{where}, line {reader.line_num}", line) for line in reader]
    except csv.Error as error:
        raise PagodaError(f"{where} is no CSV ({error})") from error
    wrong = [name for name in needed if name not in names]
    if wrong := [*wrong, *(str(name) for name in names if name not in columns)]:
        raise PagodaError(
            f"{where}: missing or unknown columns: {', '.join(wrong)}; it must have "
            f"{', '.join(needed)}"
        )
    for at, line in lines:
        if None in line or None in line.values():
            raise PagodaError(f"{at}: not {len(names)} fields; quote fields that hold a comma")
    return lines


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        PagodaError: one line; it is missing, cannot be read or is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig")  # spreadsheets' UTF-8 has a mark
    except FileNotFoundError as error:
        raise PagodaError(f"{path} is missing") from error
    except OSError as error:
        raise PagodaError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PagodaError(
            f"{path} is not UTF-8 text (Windows-1252 or UTF-16?); save it as UTF-8, which "
            "spreadsheets call 'CSV UTF-8'"
        ) from error


def _row(tree: Any, where: str) -> Row:
    if not isinstance(tree, Mapping):
        raise PagodaError(f"{where} is no row of measured values")
    if lacking := [name for name in _NEEDED if name not in tree]:
        raise PagodaError(f"{where} lacks {lacking[0]}")
    if wrong := [str(key) for key in tree if key not in _KINDS]:
        raise PagodaError(f"{where} has unknown entries: {', '.join(wrong)}")
    for name, value in tree.items():
        kind, *others = _KINDS[name]
        if not (value is None and others) and not _is(value, kind):
            raise PagodaError(f"{where}: {name} = {value!r} is not {_WORDS[kind]}")
    return Row(**tree)


def _is(value: Any, kind: type) -> bool:
    if kind is float:  # no NaN, no bool; whole numbers of any size, as JSON has them
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is kind


def _parsed(text: str, kind: type) -> Any:
    """A field as its type; as it is, to be refused by name, where it is none."""
    try:
        return kind(text)
    except ValueError:
        return text
