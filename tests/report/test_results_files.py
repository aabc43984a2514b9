"""Files of ``pagoda evaluate --out`` in the report: any shape is read, or told in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagoda.errors import PagodaError
from pagoda.report.results_files import results_table
from tests.report.synthetic import make_config, result_rows


def _tree() -> dict[str, Any]:
    rows = result_rows(make_config(), 8)[:3]
    return {"rows": [row | {"seed": None, "base_res": None} for row in rows], "reference": {"n": 5}}


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda tree: tree["rows"][1].__setitem__(key, value)


def _table(tmp_path: Path, tree: Any) -> Any:
    path = tmp_path / "out.json"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree), "utf-8")
    return results_table([path])


def test_a_deviation_stands_beside_its_value_and_an_interval_shows_on_hover(tmp_path: Path) -> None:
    tree = _tree()
    tree["rows"][0] |= {"value": 8.0, "sd": 0.25}
    tree["rows"][1] |= {"value": 2.0, "low": 1.5, "high": 2.5, "interval": "bootstrap_95"}
    table = _table(tmp_path, tree)
    first, second = table.rows[0][3], table.rows[0][4]
    assert (first.text, second.text) == ("8.00 ± 0.250", "2.00")
    assert "bootstrap_95 1.5 to 2.5" in second.title
    assert "±" in table.caption and "±" not in _table(tmp_path, _tree()).caption


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t["rows"][1].pop("protocol"), "row 2 lacks protocol"),
        (_set("value", float("nan")), "row 2: value = nan is not a finite number"),
        (_set("value", float("inf")), "row 2: value = inf is not a finite number"),
        (_set("value", 10**400), "row 2: value = .* is not a finite number"),
        (_set("value", "12"), "row 2: value = '12' is not a finite number"),
        (_set("value", True), "row 2: value = True is not a finite number"),
        (_set("n", 2.5), "row 2: n = 2.5 is not a whole number"),
        (_set("generator", None), "row 2: generator = None is not text"),
        (_set("sd", []), r"row 2: sd = \[\] is not a finite number"),
        (lambda t: t["rows"].append([1]), "row 4 is no row"),
        (lambda t: t.update(rows={}), "holds no rows"),
        (lambda t: t.update(rows=[]), "holds no rows"),
        (lambda t: t.pop("reference"), "holds no rows"),
        (lambda t: t.update(over_seeds=[{"protocol": "fd"}]), "entry 1 of over_seeds lacks"),
    ],
)
def test_a_row_of_another_shape_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], told: str
) -> None:
    tree = _tree()
    change(tree)
    with pytest.raises(PagodaError, match=f"out.json.*{told}") as caught:
        _table(tmp_path, tree)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", '"rows"', '{"rows": 1}', "[" * 100_000])
def test_other_json_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(PagodaError, match="holds no rows of 'pagoda evaluate'"):
        _table(tmp_path, text)
