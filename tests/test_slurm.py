"""``docs/slurm.sh`` with stand-ins for Slurm and DVC: what it starts, what it does at its limit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny import ROOT

STAGE = "from pagoda.pipeline import launcher; raise SystemExit(launcher.run(['teacher']))"
SLURM = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NUM_NODES": "2"}


@pytest.fixture
def allocation(tmp_path: Path) -> Path:
    """A project whose environment has only stand-ins, which leave what they were told in files."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").write_text(f'PATH={tmp_path}/bin:"$PATH"\n')
    program(tmp_path, "sbatch", 'shift $(($# - 1)); exec bash "$1"')  # the script is last
    program(tmp_path, "srun", f'echo "$@" > {tmp_path}/srun')
    program(tmp_path, "scontrol", f'echo "$@" > {tmp_path}/scontrol')
    return tmp_path


def program(project: Path, name: str, text: str) -> None:
    """A shell script in the project's ``bin``."""
    file = project / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def submit(project: Path) -> subprocess.Popen[bytes]:
    """``sbatch docs/slurm.sh``, in the project."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "PAGODA_", "RANK"))}
    command = [project / "bin/sbatch", ROOT / "docs/slurm.sh"]
    return subprocess.Popen(command, cwd=project, env=kept | SLURM | {"PYTHONPATH": str(ROOT)})


def test_a_stage_is_started_on_all_nodes_a_task_a_gpu(allocation: Path) -> None:
    program(allocation, "dvc", f'[ "$*" = repro ] && exec {sys.executable} -c "{STAGE}"')
    assert submit(allocation).wait(60) == 0
    words = (allocation / "srun").read_text().strip()
    assert words.startswith("--nodes 2 --ntasks 16 ") and words.endswith("-m pagoda teacher")
    assert not (allocation / "scontrol").exists()


def test_a_failed_pipeline_is_a_failed_job(allocation: Path) -> None:
    program(allocation, "dvc", "exit 255")
    assert submit(allocation).wait(60) == 255


@pytest.mark.skipif(shutil.which("pkill") is None, reason="pkill is not installed")
def test_at_its_limit_the_stage_saves_and_the_job_is_queued_again(allocation: Path) -> None:
    program(allocation, "stage", "trap 'touch saved; exit 130' TERM; touch ready; "
                                 "for i in $(seq 300); do sleep 0.1; done")  # fmt: skip
    program(allocation, "dvc", "stage; exit 255")
    job = submit(allocation)
    for _ in range(300):
        if (allocation / "ready").exists():
            break
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    job.wait(60)
    assert (allocation / "saved").exists()
    assert (allocation / "scontrol").read_text() == "requeue 7\n"
