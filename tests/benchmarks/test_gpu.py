"""The command for a GPU machine: parts that end, fail, or run out of time, and what is kept."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import Part, arguments, as_markdown, finished, parts, run, write


def timed(name: str, statement: str) -> Part:
    return Part(name, ["timeit", "-n", "1", "-r", "1", statement])


def test_a_part_that_is_done_is_not_run_again(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    part = timed("mark", f"open({str(mark)!r}, 'a').write('x')")
    first, again = (run(part, tmp_path, math.inf) for _ in range(2))
    assert first == again and first["status"] == 0 and "loop" in first["output"]
    assert mark.read_text() == "x"


def test_a_part_of_another_command_is_run_anew(tmp_path: Path) -> None:
    """After ``--quick``, say: its result is none of the whole."""
    quick, whole = timed("part", "1 + 1"), timed("part", "2 + 2")
    run(quick, tmp_path, math.inf)
    assert finished(quick, tmp_path) is not None and finished(whole, tmp_path) is None
    assert run(whole, tmp_path, math.inf)["command"].endswith("2 + 2")
    assert finished(quick, tmp_path) is None


def test_a_part_that_fails_says_why_and_is_run_again(tmp_path: Path) -> None:
    part = timed("wrong", "raise RuntimeError('no such card')")
    for _ in range(2):
        found = run(part, tmp_path, 60)
        assert found["status"] == 1 and found["failed"] == "RuntimeError: no such card"
    assert "no such card" in (tmp_path / "wrong.log").read_text()


def test_a_part_out_of_time_is_stopped_and_leaves_no_result(tmp_path: Path) -> None:
    found = run(timed("long", "import time; time.sleep(600)"), tmp_path, 0.5)
    assert found["unfinished"] and found["seconds"] < 60
    assert not (tmp_path / "long.done.json").exists()


def test_pages_hold_what_is_there_and_no_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images.zip"
    given = ["gpu", f"--work={tmp_path}", f"--images={images}", "--set", "seed=1", "--runs=main"]
    monkeypatch.setattr(sys, "argv", given)
    made = parts(arguments(), tmp_path, "cuda")
    assert [part.name for part in made] == [
        "check", "plan", "teacher_step", "sampling", "sampling_speed", "metrics", "training",
        "profile",
    ]  # fmt: skip
    assert made[-1].command[-2:] == ["--set", "seed=1"]
    assert made[-1].shown == tmp_path / "profile" / "comparison.md"
    results = [run(timed("one", "pass"), tmp_path, 60), run(timed("two", "1 / 0"), tmp_path, 60)]
    write(tmp_path, results, {"gpu": None})
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"] == results
    text = (tmp_path / "gpu.md").read_text()
    assert "### one" in text and "Failed: ZeroDivisionError" in text
    done = {"part": "p", "command": f"module {tmp_path.name}", "seconds": 1.0, "output": {"a": 1}}
    assert '"a": 1' in as_markdown([done], {})
