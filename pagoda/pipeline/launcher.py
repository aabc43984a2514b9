"""Start a stage once a GPU by torch's elastic agent, unless a launcher has done so already.

The number of processes is no parameter and no part of a stage's command: moving from one GPU to
eight must not make a result stale.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pagoda.distributed import LAUNCHED
from pagoda.errors import PagodaError

PROCESSES = "PAGODA_PROCESSES"
"""Environment variable: how many processes a stage starts; by default one a visible GPU."""

_STOP_S = 600  # for all processes to end their step and to save, after Ctrl-C or SIGTERM


def adopt_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """The usual variables for a task of ``srun`` with several tasks; nothing otherwise.

    A batch script itself, outside ``srun``, is no such task: SLURM_STEP_NUM_TASKS is not set there.
    """
    if "RANK" in environment or int(environment.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return {}
    job = int(environment.get("SLURM_JOB_ID", "0")) + int(environment.get("SLURM_STEP_ID", "0"))
    return {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": environment.get("MASTER_ADDR")
        or environment.get("SLURM_SRUN_COMM_HOST")
        or environment["SLURM_LAUNCH_NODE_IPADDR"],
        "MASTER_PORT": environment.get("MASTER_PORT") or str(20_000 + job % 20_000),
    }


def srun(arguments: list[str], environment: Mapping[str, str], local: int) -> list[str] | None:
    """How to start a stage on all nodes of a Slurm allocation, one task a GPU; None elsewhere."""
    nodes = int(environment.get("SLURM_JOB_NUM_NODES", "1"))
    found = shutil.which("srun")
    if nodes < 2 or "SLURM_STEP_ID" in environment or found is None:
        return None
    tasks = ["--nodes", str(nodes), "--ntasks", str(nodes * local), "--kill-on-bad-exit=1"]
    again = [sys.executable, "-m", "pagoda", *arguments]
    return [found, *tasks, "--ntasks-per-node", str(local), *again]


def run(arguments: list[str]) -> int | None:
    """Run a stage in several processes and return its exit status; None: run it in this one.

    Raises:
        PagodaError: PAGODA_PROCESSES is no positive whole number, or a process failed: which one
            and why.
        KeyboardInterrupt: after an orderly stop.
    """
    os.environ.update(adopt_slurm(os.environ))
    if "RANK" in os.environ:
        return None
    local = processes(os.environ)
    if line := srun(arguments, os.environ, local):
        return subprocess.run(line, check=False).returncode
    return run_copies(["-m", "pagoda", *arguments], local) if local > 1 else None


def run_copies(arguments: list[str], copies: int) -> int:
    """Run Python ``copies`` times on this machine as one process group, as ``torchrun`` does.

    When one fails the others get SIGTERM and, 30 s later, SIGKILL. Ctrl-C and SIGTERM go to all.

    Returns:
        0, or the exit status of a command line that was wrong.

    Raises:
        PagodaError: a process failed: which one and why.
        KeyboardInterrupt: after an orderly stop.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ[LAUNCHED] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // copies)))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    heard = [s.name for s, handler in handlers.items() if handler != signal.SIG_IGN]
    logging.disable()  # the agent's own report; ours is one line
    with tempfile.TemporaryDirectory(prefix="pagoda-") as folder:
        config = LaunchConfig(
            1, 1, copies, run_id="pagoda", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
            local_addr="127.0.0.1", max_restarts=0, logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle=",".join(heard), shutdown_timeout=_STOP_S,
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)(*arguments)
        except SignalException:
            raise KeyboardInterrupt from None
        except ChildFailedError as error:
            rank, first = error.get_first_failure()
            told = any(failure.exitcode == 130 for failure in error.failures.values())
            # One that is told to stop ends the others, which may die of that and be named first.
            if first.exitcode == 130 or (first.exitcode == -signal.SIGTERM and told):
                raise KeyboardInterrupt from None
            return _explain(rank, first, copies)
        finally:
            logging.disable(logging.NOTSET)
            del os.environ[LAUNCHED]
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return 0


def _explain(rank: int, failure: Any, copies: int) -> int:
    """Say why the first process failed, as an error; the status of one that has said so itself."""
    who = f"process {rank} of {copies}"
    if failure.exitcode < 0:
        raise PagodaError(
            f"{who} was killed ({failure.signal_name()}), out of memory perhaps; the others were "
            "stopped; run the same command again to go on"
        )
    if failure.error_file_data.get("timestamp"):
        raise PagodaError(f"{who}: {failure.message}")
    return int(failure.exitcode)


def processes(environment: Mapping[str, str]) -> int:
    """How many processes a machine runs a stage in.

    Raises:
        PagodaError: PAGODA_PROCESSES is no positive whole number.
    """
    if (text := environment.get(PROCESSES)) is not None:
        if not text.isdigit() or int(text) < 1:
            raise PagodaError(f"{PROCESSES} = {text!r}; it must be a positive whole number")
        return int(text)
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 1  # without importing torch, which takes seconds
    import torch

    return max(1, torch.cuda.device_count())
