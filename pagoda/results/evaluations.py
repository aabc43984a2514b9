"""Rows that ``pagoda evaluate --images ... --out FILE`` wrote, as a table of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda import rows as files
from pagoda.errors import PagodaError
from pagoda.results.blocks import Cell, Grid, Table
from pagoda.results.numbers import SPREAD, listed, number, short, value_cell
from pagoda.rows import Row

_COMPARED = ("images", "recipe", "resolution", "split", "n", "extractor", "extractor_fingerprint")
_OVER_SEEDS = {"protocol", "seeds", "mean", "sd", "min"}


@dataclass(frozen=True)
class EvaluationFile:
    """One file of results: its rows, summaries over seeds, and the card of its reference."""

    path: Path
    rows: list[Row]
    over_seeds: list[dict[str, Any]]
    reference: Mapping[str, Any]


def read_evaluation(path: Path) -> EvaluationFile:
    """One file of results.

    Raises:
        PagodaError: if it is missing, damaged or something else: one line with file and row.
    """
    nothing = f"{path} holds no rows of 'pagoda evaluate'"
    try:
        tree = json.loads(files.read_text(path))
    except (ValueError, RecursionError) as error:
        raise PagodaError(f"{nothing} ({error})") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("reference"), dict):
        raise PagodaError(nothing)
    trees, seeds = tree.get("rows"), tree.get("over_seeds", [])
    if not isinstance(trees, list) or not trees or not isinstance(seeds, list):
        raise PagodaError(nothing)
    for n, entry in enumerate(seeds, 1):
        best = any("_best_of_" in key for key in entry) if isinstance(entry, dict) else False
        if not best or not entry.keys() >= _OVER_SEEDS or not isinstance(entry["seeds"], list):
            raise PagodaError(
                f"{path}: entry {n} of over_seeds lacks what 'pagoda evaluate' writes"
            )
    return EvaluationFile(path, files.from_json(trees, str(path)), seeds, tree["reference"])


def evaluations_table(paths: Sequence[Path]) -> Table:
    """The rows of all files; a column holds one protocol at one resolution.

    Raises:
        PagodaError: if values of one column were compared with different references, or come from
            different features: one line that says what differs.
    """
    found = [read_evaluation(path) for path in paths]
    _check_comparable(found)
    rows = [row for file in found for row in file.rows]
    grid = Grid("Images", "Seed", "n")
    for row in rows:
        seed = "–" if row.seed is None else str(row.seed)
        grid.line(row.generator, seed, f"{row.n:,}").add(
            _column(row.protocol, row), value_cell(row)
        )
    for file in found:
        for entry in file.over_seeds:
            first = file.rows[0]
            best = next(key for key in entry if "_best_of_" in key)
            names = {"mean": "mean", "sd": "sd", "min": "least",
                     best: f"best of {len(entry['seeds'])}"}  # fmt: skip
            for key, name in names.items():
                line = grid.line(first.generator, name, f"{first.n:,}")
                value = Cell(number(entry[key]), f"{entry[key]!r}")
                line.add(_column(entry["protocol"], first), value)
    caption = (
        "**Other evaluations**, by `pagoda evaluate --images`. Compared with "
        f"{listed(short(row.reference) for row in rows)}; code "
        f"{listed(f'`{row.revision}`' for row in rows)}. Values compare within a column."
    )
    return grid.table(caption + SPREAD * any(row.sd is not None for row in rows))


def _column(protocol: str, row: Row) -> str:
    return f"`{protocol}` {row.resolution}×{row.resolution}"


def _check_comparable(found: Sequence[EvaluationFile]) -> None:
    first: dict[str, tuple[EvaluationFile, Row]] = {}
    for file in found:
        for row in file.rows:
            other, known = first.setdefault(_column(row.protocol, row), (file, row))
            if (row.reference, row.features) == (known.reference, known.features):
                continue
            parts = []
            for key in _COMPARED:
                a, b = other.reference.get(key), file.reference.get(key)
                if a != b:
                    parts.append(f"{key.replace('_', ' ')} ({str(a)[:10]}, {str(b)[:10]})")
            what = ", ".join(parts) or "the fingerprints of their references"
            raise PagodaError(
                f"{row.protocol} of {other.path} and of {file.path} do not compare: {what} differ; "
                "compare both with one reference"
            )
