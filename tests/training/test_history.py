"""Training curves: which rows a training that goes on keeps."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_history_comes_back_when_the_output_was_deleted(tmp_path: Path) -> None:
    """DVC deletes the outputs of a stage that was interrupted; its scratch has a copy."""
    path, backup = tmp_path / "h.jsonl", tmp_path / "backup.jsonl"
    with History(path, -1, backup) as history:
        history.write(images=8, step=1, seconds=1.0)
        history.back_up()
        history.write(images=16, step=2, seconds=2.0)
    path.unlink()
    with History(path, 8, backup) as history:
        history.write(images=16, step=2, seconds=3.0)
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    assert [(row["images"], row["seconds"]) for row in rows] == [(8, 1.0), (16, 3.0)]


def test_history_drops_a_row_that_a_kill_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"images": 8, "step": 1, "seconds": 1.0}\n{"images": 16, "st')
    with History(path, 16):
        assert [json.loads(row)["images"] for row in path.read_text().splitlines()] == [8]
