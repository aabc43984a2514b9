"""A benchmark that was stopped goes on; figures of other versions are not mixed in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import metric_inputs, metric_table, metrics


def test_rows_in_the_file_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(metrics, "make_inputs", lambda folder: None)

    def run_row(row: str, inputs: Path, quick: bool) -> list[dict[str, Any]]:
        ran.append(row)
        if row == "stops":
            raise KeyboardInterrupt
        return [{"row": row, "name": "pagoda", "runs": [{"seconds": 1.0, "mib": 1, "value": 2.0}]}]

    monkeypatch.setattr(metrics, "run_row", run_row)
    out, conditions = tmp_path / "rows.json", {"versions": {"numpy": "2"}}
    first, second, *_ = metrics.IMPLEMENTATIONS
    with pytest.raises(KeyboardInterrupt):
        metrics.run_rows([second, "stops"], True, out, conditions)
    results = metrics.run_rows([first, second], True, out, conditions)
    assert ran == [second, "stops", first]
    assert [result["row"] for result in results] == [first, second]
    assert metric_table.table(results).count("\n") == 3
    with pytest.raises(SystemExit, match="other versions"):
        metrics.run_rows([first], True, out, {"versions": {"numpy": "3"}})


def test_every_goal_belongs_to_a_implementation_and_is_judged() -> None:
    goals = {**metric_table.RATIO_GOALS, **metric_table.MEMORY_GOALS, **metric_table.MIB_GOALS}
    assert all(name in metrics.IMPLEMENTATIONS[row] for row, name in goals)

    def result(row: str, name: str, seconds: float, mib: float, value: Any) -> dict[str, Any]:
        run = {"seconds": seconds, "mib": mib, "value": value}
        return {"row": row, "name": name, "runs": [run]}

    truth = "Frechet, rank 1000, truth known"
    lines = metric_table.table(
        [
            result("manifold", "prdc", 5.0, 40.0, 1.0),
            result("manifold", "pagoda", 2.0, 10.0, 1.0),
            result("statistics", "pagoda", 1.0, 199.0, 1.0),
            result(truth, metric_table.SQRTM, 1.0, 1.0, {"relative_error": 1e-8}),
            result(truth, "pagoda", 1.0, 1.0, {"relative_error": 2e-12}),
        ]
    ).splitlines()[2:]  # fmt: skip
    assert [line.split("|")[-2].strip() for line in lines] == [
        "at least 2.5x: met, memory at least 5x: NOT met", "", "at most 200 MiB: met", "",
        "at most 1e-12: NOT met",
    ]  # fmt: skip


def test_every_row_of_ours_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = metric_inputs.features
    monkeypatch.setattr(metric_inputs, "DIM", 32)
    monkeypatch.setattr(metric_inputs, "RANK", 16)
    monkeypatch.setattr(metric_inputs, "features", lambda n, *args: features(1000, *args))
    metric_inputs.make_inputs(tmp_path)
    for row, found in metrics.IMPLEMENTATIONS.items():
        value = list(found.values())[-1](tmp_path)()  # the quicker one of KID
        numbers = value if isinstance(value, dict) else {"value": value}
        assert all(math.isfinite(number) for number in numbers.values())
        if "truth known" in row:
            assert value["relative_error"] <= metric_table.ERROR_GOAL
