"""How a stage becomes a group: from nothing, on one machine, under torchrun, under Slurm."""

from __future__ import annotations

import shutil
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from pagoda import launcher
from pagoda.errors import PagodaError
from tests.tiny import ROOT

TASK = {
    "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "2", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
}  # fmt: skip
AGAIN = [sys.executable, "-m", "pagoda", "teacher"]


def test_a_task_of_srun_gets_the_usual_variables() -> None:
    found = launcher.adopt_slurm(TASK)
    assert (found["RANK"], found["LOCAL_RANK"], found["WORLD_SIZE"]) == ("3", "1", "4")
    assert found["MASTER_ADDR"] == "10.0.0.1" and 20_000 <= int(found["MASTER_PORT"]) < 40_000
    # All tasks of a step meet at one port, and two steps of one job at two.
    others = [launcher.adopt_slurm(TASK | change)["MASTER_PORT"]
              for change in ({"SLURM_PROCID": "0"}, {"SLURM_STEP_ID": "3"})]  # fmt: skip
    assert others[0] == found["MASTER_PORT"] != others[1]
    host = {"SLURM_SRUN_COMM_HOST": "10.0.0.2"}
    assert launcher.adopt_slurm(TASK | host)["MASTER_ADDR"] == "10.0.0.2"
    chosen = {"MASTER_ADDR": "node", "MASTER_PORT": "5"}
    assert launcher.adopt_slurm(TASK | chosen).items() >= chosen.items()


@pytest.mark.parametrize(
    "environment",
    [{}, {"SLURM_JOB_ID": "77"}, TASK | {"SLURM_STEP_NUM_TASKS": "1"}, TASK | {"RANK": "0"}],
    ids=["nothing", "batch script", "one task", "torchrun"],
)
def test_nothing_is_adopted_elsewhere(environment: dict[str, str]) -> None:
    assert launcher.adopt_slurm(environment) == {}


def test_who_starts_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    three = {"PAGODA_PROCESSES": "3"}
    assert launcher.command(["teacher"], three) == AGAIN
    assert launcher.command(["teacher"], {"PAGODA_PROCESSES": "1"}) is None
    assert launcher.command(["teacher"], three | {"RANK": "0"}) is None  # torchrun did
    assert launcher.command(["teacher"], three | TASK) is None  # srun did
    nodes = three | {"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2"}
    line = launcher.command(["teacher"], nodes)
    assert line is not None and line[0] == "/usr/bin/srun" and line[-4:] == AGAIN
    asked = dict(pairwise(line))
    assert (asked["--nodes"], asked["--ntasks"], asked["--ntasks-per-node"]) == ("2", "6", "3")
    assert "--kill-on-bad-exit=1" in line


@pytest.mark.parametrize("value", ["0", "two", "-1", ""])
def test_a_number_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(PagodaError, match=r"PAGODA_PROCESSES = .*positive whole number"):
        launcher.command(["teacher"], {"PAGODA_PROCESSES": value})


def test_the_first_to_fail_ends_the_others(tmp_path: Path) -> None:
    """Three processes: one leaves with 7 at once, the others would sleep for a minute."""
    script = tmp_path / "work.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "assert os.environ['WORLD_SIZE'] == '3' and os.environ['MASTER_PORT']\n"
        "pathlib.Path(sys.argv[1], os.environ['RANK']).touch()\n"
        "sys.exit(7) if os.environ['RANK'] == '1' else time.sleep(60)\n"
    )
    began = time.monotonic()
    assert launcher.run_copies([sys.executable, str(script), str(tmp_path)], 3) == 7
    assert time.monotonic() - began < 40
    assert (tmp_path / "1").exists()


def test_the_example_script_names_what_the_launcher_reads() -> None:
    text = (ROOT / "docs" / "slurm.sh").read_text()
    assert f"export {launcher.PROCESSES}=" in text and "dvc repro" in text
