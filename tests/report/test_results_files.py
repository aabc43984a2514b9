"""Files of ``pagoda evaluate``, ours or a user's, that are not what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pagoda.errors import PagodaError
from pagoda.report.results_files import read_results, results_table

ROW: dict[str, Any] = {
    "generator": "g", "metric": "fd", "protocol": "fd_custom_x_40", "value": 1.5, "n": 40,
    "seed": 0, "resolution": 32, "nfe": 1, "reference": "a" * 64, "reference_n": 90,
    "features": "b" * 64,
    "revision": "r", "device": "cpu", "base_res": None,
}  # fmt: skip


def write(folder: Path, tree: Any) -> Path:
    file = folder / "result.json"
    file.write_text(json.dumps(tree), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": float("nan")}, "row 2: value is nan, which is no finite number"),
        ({"value": None}, "row 2: value is None"),
        ({"value": True}, "row 2: value is True"),
        ({"n": "many"}, "row 2: n is 'many'"),
        ({"reference": None}, "row 2: reference is None"),
    ],
)
def test_a_row_that_is_none_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = write(tmp_path, {"reference": {}, "rows": [ROW, ROW | change]})
    with pytest.raises(PagodaError, match=said) as raised:
        read_results(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("key", sorted(ROW))
def test_a_missing_key_is_named_though_others_are_there(key: str, tmp_path: Path) -> None:
    row = {k: v for k, v in ROW.items() if k != key} | {"more": 1}
    with pytest.raises(PagodaError, match=f"row 1: {key} missing"):
        read_results(write(tmp_path, {"reference": {}, "rows": [row]}))


@pytest.mark.parametrize(
    "tree", [[], 3, {"rows": []}, {"rows": 3, "reference": {}}, {"rows": [ROW]},
             {"rows": [ROW], "reference": 4}, {"rows": ["x"], "reference": {}}],
)  # fmt: skip
def test_other_files_are_one_line(tree: Any, tmp_path: Path) -> None:
    with pytest.raises(PagodaError, match=r"result.json"):
        read_results(write(tmp_path, tree))


def test_deviation_and_interval_are_beside_the_value(tmp_path: Path) -> None:
    row = ROW | {"sd": 0.25, "low": 1.0, "high": 2.0, "interval": "influence_95"}
    table = results_table([write(tmp_path, {"reference": {}, "rows": [row]})])
    title = table.rows[0][-1].title
    assert title is not None and "standard deviation 0.25; influence_95: 1.00 to 2.00" in title
