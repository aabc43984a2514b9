"""Rows that ``pagoda evaluate --images ... --out FILE`` wrote, as a table of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pagoda import rows as files
from pagoda.errors import PagodaError
from pagoda.results.blocks import Cell, Grid, Table
from pagoda.results.numbers import SPREAD, listed, number, short, value_cell
from pagoda.rows import Row

_COMPARED = ("images", "recipe", "resolution", "split", "n", "extractor", "extractor_fingerprint")
_OVER_SEEDS = {"protocol", "seeds", "mean", "sd", "min"}


def read_evaluation(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """Rows of one file of results, and the whole of it.

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
    trees, seeds = tree.get("rows"), tree.setdefault("over_seeds", [])
    if not isinstance(trees, list) or not trees or not isinstance(seeds, list):
        raise PagodaError(nothing)
    for n, entry in enumerate(seeds, 1):
        best = any("_best_of_" in key for key in entry) if isinstance(entry, dict) else False
        if not best or not entry.keys() >= _OVER_SEEDS or not isinstance(entry["seeds"], list):
            raise PagodaError(
                f"{path}: entry {n} of over_seeds lacks what 'pagoda evaluate' writes"
            )
    return files.from_json(trees, str(path)), tree


def of_captions(tree: Mapping[str, Any]) -> bool:
    """Whether a file of results is of images of captions: ``pagoda evaluate --captions``."""
    return "captions" in tree


def evaluations_table(paths: Sequence[Path]) -> Table:
    """The rows of all files; a column holds one protocol at one resolution.

    Raises:
        PagodaError: if values of one column were compared with different references, or come from
            different features: one line that says what differs.
    """
    grid, found = Grid("Images", "Seed", "n"), [(path, *read_evaluation(path)) for path in paths]
    firsts: dict[str, tuple[Path, Row, dict[str, Any]]] = {}
    for path, rows, tree in found:
        for row in rows:
            column = _column(row.protocol, row)
            _check_comparable(firsts.setdefault(column, (path, row, tree)), (path, row, tree))
            seed = "–" if row.seed is None else str(row.seed)
            grid.line(row.generator, seed, f"{row.n:,}").add(column, value_cell(row))
    for _, (first, *_), tree in found:
        for entry in tree["over_seeds"]:
            best = next(key for key in entry if "_best_of_" in key)
            names = {"mean": "mean", "sd": "sd", "min": "least",
                     best: f"best of {len(entry['seeds'])}"}  # fmt: skip
            for key, name in names.items():
                line = grid.line(first.generator, name, f"{first.n:,}")
                value = Cell(number(entry[key]), f"{entry[key]!r}")
                line.add(_column(entry["protocol"], first), value)
    every = [row for _, rows, _ in found for row in rows]
    caption = (
        "**Other evaluations**, by `pagoda evaluate --images`. Compared with "
        f"{listed(short(row.reference) for row in every)}; code "
        f"{listed(f'`{row.revision}`' for row in every)}. Values compare within a column."
    )
    return grid.table(caption + SPREAD * any(row.sd is not None for row in every))


def _column(protocol: str, row: Row) -> str:
    return f"`{protocol}` {row.resolution}×{row.resolution}"


def _check_comparable(*both: tuple[Path, Row, dict[str, Any]]) -> None:
    (path, row, _), (other, again, _) = both
    if (row.reference, row.features) == (again.reference, again.features):
        return
    parts = []
    for key in _COMPARED:
        a, b = (tree["reference"].get(key) for *_, tree in both)
        if a != b:
            parts.append(f"{key.replace('_', ' ')} ({str(a)[:10]}, {str(b)[:10]})")
    what = ", ".join(parts) or "the fingerprints of their references"
    raise PagodaError(
        f"{row.protocol} of {path} and of {other} do not compare: {what} differ; compare both with "
        "one reference"
    )
