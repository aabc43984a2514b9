"""Training curves: which rows a training that goes on keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pagoda.errors import PagodaError
from pagoda.training.history import History


def test_history_keeps_rows_up_to_where_training_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "h.jsonl"
    for keep, images in ((-1, [8, 16, 24]), (16, [24, 32])):
        with History(path, keep) as history:
            for n in images:
                history.write(images=n, step=n // 8, seconds=1.0, loss=float(keep))
    read = [json.loads(row) for row in path.read_text().splitlines()]
    assert [row["images"] for row in read] == [8, 16, 24, 32]
    assert [row["loss"] for row in read] == [-1, -1, 16, 16]
    with History(path):
        assert path.read_text() == ""  # a new training starts afresh


@pytest.mark.parametrize("left", [None, '{"images": 8, "step": 1, "seconds": 9.0}\n'])
def test_history_is_made_again_from_the_run_s_own_copy(left: str | None, tmp_path: Path) -> None:
    """DVC deletes the outputs of a stage that was interrupted; other runs write there, too."""
    path, own = tmp_path / "h.jsonl", tmp_path / "own.jsonl"
    with History(path, -1, own) as history:
        history.write(images=8, step=1, seconds=1.0)
        history.write(images=16, step=2, seconds=2.0)
    path.unlink()
    if left:
        path.write_text(left)
    with History(path, 8, own) as history:
        history.write(images=16, step=2, seconds=3.0)
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    assert [(row["images"], row["seconds"]) for row in rows] == [(8, 1.0), (16, 3.0)]
    assert own.read_text() == path.read_text()


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_value_that_is_not_finite_is_no_row(value: float, tmp_path: Path) -> None:
    path = tmp_path / "features.jsonl"
    with History(path) as history, pytest.raises(PagodaError) as error:
        history.write(images=8, step=1, seconds=1.0, loss=1.0, accuracy=value)
    assert str(error.value).startswith("features: accuracy is not finite at step 1; lower the ")
    assert path.read_text() == ""


def test_history_drops_a_row_that_a_kill_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"images": 8, "step": 1, "seconds": 1.0}\n{"images": 16, "st')
    with History(path, 16):
        assert [json.loads(row)["images"] for row in path.read_text().splitlines()] == [8]
