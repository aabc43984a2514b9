"""Rows that ``pagoda evaluate --images ... --out FILE`` wrote, as a table of the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pagoda.errors import PagodaError
from pagoda.report.document import Cell, Table
from pagoda.report.results import number, short

_COMPARED = ("images", "recipe", "resolution", "split", "n", "extractor", "extractor_fingerprint")
_KEYS = {
    "generator", "metric", "protocol", "value", "n", "seed", "resolution", "nfe", "reference",
    "reference_n", "features", "revision", "device", "base_res",
}  # fmt: skip


def read_results(path: Path) -> dict[str, Any]:
    """One file of results.

    Raises:
        PagodaError: if it is missing, damaged or something else.
    """
    try:
        tree = json.loads(path.read_text("utf-8"))
        rows, reference = list(tree["rows"]), dict(tree["reference"])
    except OSError as error:
        raise PagodaError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PagodaError(f"{path} holds no rows of 'pagoda evaluate' ({error})") from error
    if not rows:
        raise PagodaError(f"{path} holds no rows of 'pagoda evaluate'")
    for i, row in enumerate(rows, 1):
        if why := _trouble(row):
            raise PagodaError(f"{path}, row {i}: {why}; evaluate again")
    return dict(tree) | {"rows": rows, "reference": reference}


def _trouble(row: Any) -> str:
    """What is wrong with a row; empty if nothing is."""
    if not isinstance(row, dict):
        return f"{row!r} is no result"
    if missing := _KEYS - set(row):
        return f"{', '.join(sorted(missing))} missing"
    value, texts = row["value"], ("generator", "metric", "protocol", "reference", "features")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"value is {value!r}, which is no finite number"
    wrong = [key for key in texts if not isinstance(row[key], str)]
    wrong += [key for key in ("n", "resolution") if not isinstance(row[key], int)]
    return f"{wrong[0]} is {row[wrong[0]]!r}" if wrong else ""


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
    if row.get("sd") is not None:
        title += f"; standard deviation {row['sd']:.3g}"
    if row.get("interval"):
        title += f"; {row['interval']}: {number(row['low'])} to {number(row['high'])}"
    return Cell(number(row["value"]), title)


def _caption(trees: Sequence[Mapping[str, Any]]) -> str:
    rows = [row for tree in trees for row in tree["rows"]]
    held = ", ".join(dict.fromkeys(short(row["reference"]) for row in rows))
    code = ", ".join(dict.fromkeys(f"`{row['revision']}`" for row in rows))
    return (
        f"**Other evaluations**, by `pagoda evaluate --images`. Held against {held}; code {code}. "
        "Values compare within a column."
    )
