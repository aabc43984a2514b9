"""How a stage becomes a group: from nothing, on one machine, under torchrun, under Slurm."""

from __future__ import annotations

import shutil
import sys
from itertools import pairwise

import pytest

from pagoda.errors import PagodaError
from pagoda.pipeline import launcher
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


def test_a_slurm_allocation_of_several_nodes_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    nodes = {"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2"}
    line = launcher.srun(["teacher"], nodes, 3)
    assert line is not None and line[0] == "/usr/bin/srun" and line[-4:] == AGAIN
    asked = dict(pairwise(line))
    assert (asked["--nodes"], asked["--ntasks"], asked["--ntasks-per-node"]) == ("2", "6", "3")
    assert "--kill-on-bad-exit=1" in line
    assert launcher.srun(["teacher"], {}, 3) is None
    assert launcher.srun(["teacher"], nodes | {"SLURM_STEP_ID": "2"}, 3) is None  # srun did


def test_what_a_launcher_started_or_what_is_one_starts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PAGODA_PROCESSES", "1")
    assert launcher.run(["teacher"]) is None
    monkeypatch.setenv("PAGODA_PROCESSES", "3")
    monkeypatch.setenv("RANK", "0")
    assert launcher.run(["teacher"]) is None


@pytest.mark.parametrize("value", ["0", "two", "-1", ""])
def test_a_number_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(PagodaError, match=r"PAGODA_PROCESSES = .*positive whole number"):
        launcher.processes({"PAGODA_PROCESSES": value})


def test_the_example_script_names_what_the_launcher_reads() -> None:
    text = (ROOT / "docs" / "slurm.sh").read_text()
    assert f"export {launcher.PROCESSES}=" in text and "dvc repro" in text
