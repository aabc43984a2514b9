"""A benchmark that was stopped goes on; figures of other versions are not mixed in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import metrics


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
    first, second, *_ = metrics.CONTENDERS
    with pytest.raises(KeyboardInterrupt):
        metrics.run_rows([second, "stops"], True, out, conditions)
    results = metrics.run_rows([first, second], True, out, conditions)
    assert ran == [second, "stops", first]
    assert [result["row"] for result in results] == [first, second]
    assert metrics.table(results).count("\n") == 3
    with pytest.raises(SystemExit, match="other versions"):
        metrics.run_rows([first], True, out, {"versions": {"numpy": "3"}})
