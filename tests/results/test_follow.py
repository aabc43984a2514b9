"""Following an experiment that runs: its curves as they grow, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.results import tracking
from pagoda.results.follow import follow
from tests.results.runs import all_runs, client_of
from tests.results.synthetic import history_rows, write_history
from tests.tiny import ROOT


def _wait(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 300  # a loaded machine is slow, not wrong
    while not done():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)


@pytest.mark.longer
def test_follow_sends_a_growing_history_and_ends_at_ctrl_c(copy: Config, tmp_path: Path) -> None:
    rows = history_rows("teacher", 128000)
    path = Paths(copy).history("teacher")
    write_history(path, rows[:3])
    code = (
        "from tests.results.synthetic import make_config\n"
        "from pagoda.pipeline.stages import track\n"
        "track.follow(make_config(base_res=32), 0.05)"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    client = client_of(tmp_path)

    def steps() -> list[int]:
        runs = [r for r in all_runs(client) if r.data.tags.get("stage") == "teacher"]
        history = client.get_metric_history(runs[0].info.run_id, "loss") if runs else []
        return sorted(m.step for m in history)

    _wait(lambda: steps() == [row["images"] for row in rows[:3]], "the first rows")
    write_history(path, rows[:50])
    _wait(lambda: steps() == [row["images"] for row in rows[:50]], "new rows")
    anew = [row | {"loss": 9.0} for row in rows[:20]]
    write_history(path, anew)
    _wait(lambda: len(steps()) == 20, "a stage that began anew")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "following teacher" in said
    runs = all_runs(client)
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert {r.data.tags["live"] for r in runs} == {"true"}

    write_history(path, rows)
    tracked = tracking.track(copy)
    left = {r.info.run_id for r in all_runs(client)}
    assert left == {tracked.parent, *tracked.children.values()}


def test_follow_ends_when_the_experiment_is_tracked(copy: Config, tmp_path: Path) -> None:
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        if line == "following distill":
            tracking.track(copy)

    follow(copy, 0.01, tell)
    assert said[-1].endswith("nothing left to follow")
    assert len(all_runs(client_of(tmp_path))) == 1 + 4
