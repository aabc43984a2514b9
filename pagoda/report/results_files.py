"""Rows that ``pagoda evaluate --images ... --out FILE`` wrote, as a table of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pagoda.errors import PagodaError
from pagoda.report.document import Cell, Table
from pagoda.report.experiment import check_row
from pagoda.report.results import SPREAD, number, short, spread

_COMPARED = ("images", "recipe", "resolution", "split", "n", "extractor", "extractor_fingerprint")
_OVER_SEEDS = {"protocol", "seeds", "mean", "sd", "min"}


def read_results(path: Path) -> dict[str, Any]:
    """One file of results.

    Raises:
        PagodaError: if it is missing, damaged or something else: one line with file and row.
    """
    nothing = f"{path} holds no rows of 'pagoda evaluate'"
    try:
        tree = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PagodaError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise PagodaError(f"{nothing} ({error})") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("reference"), dict):
        raise PagodaError(nothing)
    rows, seeds = tree.get("rows"), tree.get("over_seeds", [])
    if not isinstance(rows, list) or not rows or not isinstance(seeds, list):
        raise PagodaError(nothing)
    for n, row in enumerate(rows, 1):
        unknown = dict.fromkeys(("seed", "base_res", "reference_n"))
        rows[n - 1] = check_row(
            unknown | row if isinstance(row, dict) else row, f"{path}, row {n}", tuple(unknown)
        )
    for n, entry in enumerate(seeds, 1):
        best = any("_best_of_" in key for key in entry) if isinstance(entry, dict) else False
        if not best or not entry.keys() >= _OVER_SEEDS or not isinstance(entry["seeds"], list):
            raise PagodaError(
                f"{path}: entry {n} of over_seeds lacks what 'pagoda evaluate' writes"
            )
    return tree


def results_table(files: Sequence[Path]) -> Table:
    """The rows of all files; a column holds one protocol at one resolution.

    Raises:
        PagodaError: if values of one column were held against different references, or come from
            different features: one line that says what differs.
    """
    trees = [read_results(path) for path in files]
    rows = [row for tree in trees for row in tree["rows"]]
    _check_comparable(files, trees)
    columns = list(dict.fromkeys((row["protocol"], row["resolution"]) for row in rows))
    lines = list(dict.fromkeys((row["generator"], row["seed"], row["n"]) for row in rows))
    values = {
        ((r["generator"], r["seed"], r["n"]), (r["protocol"], r["resolution"])): r for r in rows
    }
    table = []
    for line in lines:
        generator, seed, n = line
        cells = [Cell(generator), Cell("–" if seed is None else str(seed)), Cell(f"{n:,}")]
        cells += [_cell(values.get((line, column))) for column in columns]
        table.append(tuple(cells))
    table += [line for tree in trees for line in _over_seeds(tree, columns)]
    header = ("Images", "Seed", "n", *(f"`{p}` {res}×{res}" for p, res in columns))
    return Table(_caption(trees), header, tuple(table), "l" + "r" * (len(header) - 1))


def _over_seeds(
    tree: Mapping[str, Any], columns: Sequence[tuple[str, int]]
) -> list[tuple[Cell, ...]]:
    """Mean, deviation, least, and the best under the name that says of how many sample seeds."""
    entries, first = tree.get("over_seeds", []), tree["rows"][0]
    if not entries:
        return []
    held = {(entry["protocol"], first["resolution"]): entry for entry in entries}
    seeds = len(entries[0]["seeds"])
    names = {"mean": "mean", "sd": "sd", "min": "least", "best": f"best of {seeds}"}
    lines = []
    for key, name in names.items():
        cells = [Cell(first["generator"]), Cell(name), Cell(f"{first['n']:,}")]
        for column in columns:
            entry = held.get(column)
            best = next((k for k in entry or {} if "_best_of_" in k), "")
            value = None if entry is None else entry[best if key == "best" else key]
            cells.append(Cell("") if value is None else Cell(number(value), f"{value!r}"))
        lines.append(tuple(cells))
    return lines


def _check_comparable(files: Sequence[Path], trees: Sequence[Mapping[str, Any]]) -> None:
    first: dict[tuple[str, int], tuple[Path, Mapping[str, Any], Mapping[str, Any]]] = {}
    for path, tree in zip(files, trees, strict=True):
        for row in tree["rows"]:
            where, other, card = first.setdefault(
                (row["protocol"], row["resolution"]), (path, row, tree["reference"])
            )
            if all(row[key] == other[key] for key in ("reference", "features")):
                continue
            what = _differing(card, tree["reference"]) or "the fingerprints of their references"
            raise PagodaError(
                f"{row['protocol']} of {where} and of {path} do not compare: {what} differ; hold "
                "both against one reference"
            )


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    parts = []
    for key in _COMPARED:
        a, b = (str(card.get(key))[:10] for card in (first, second))
        if first.get(key) != second.get(key):
            parts.append(f"{key.replace('_', ' ')} ({a}, {b})")
    return ", ".join(parts)


def _cell(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell("")
    title = (
        f"{row['protocol']} = {row['value']!r}; n {row['n']}, seed {row['seed']}; reference "
        f"{row['reference'][:10]} (n {row['reference_n']}), features {row['features'][:10]}; code "
        f"{row['revision']}; {row['device']}"
    )
    if row.get("interval"):
        title += f"; {row['interval']} {row['low']!r} to {row['high']!r}"
    return Cell(spread(row["value"], row.get("sd")), title)


def _caption(trees: Sequence[Mapping[str, Any]]) -> str:
    rows = [row for tree in trees for row in tree["rows"]]
    held = ", ".join(dict.fromkeys(short(row["reference"]) for row in rows))
    code = ", ".join(dict.fromkeys(f"`{row['revision']}`" for row in rows))
    return (
        f"**Other evaluations**, by `pagoda evaluate --images`. Held against {held}; code {code}. "
        "Values compare within a column." + SPREAD * any(row.get("sd") is not None for row in rows)
    )
