"""Start a stage once a GPU, unless a launcher has done so already.

The number of processes is no parameter and no part of a stage's command: moving from one GPU to
eight must not make a result stale.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from pagoda.distributed import LAUNCHED
from pagoda.errors import PagodaError

PROCESSES = "PAGODA_PROCESSES"
"""Environment variable: how many processes a stage starts; by default one a visible GPU."""

_PATIENCE_S = 15.0  # from the first failure to the end of the other processes
_SPOKE = 1  # exit status of a process that has said what was wrong


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


def command(arguments: list[str], environment: Mapping[str, str]) -> list[str] | None:
    """How to start this stage in several processes, None if it should run in this one.

    In a Slurm allocation of several nodes that is ``srun``, one task a GPU; on one machine it is
    this program again, PAGODA_PROCESSES times or once a visible GPU.

    Raises:
        PagodaError: PAGODA_PROCESSES is no positive whole number.
    """
    if "RANK" in environment or int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return None
    local = _wanted(environment)
    nodes = int(environment.get("SLURM_JOB_NUM_NODES", "1"))
    again = [sys.executable, "-m", "pagoda", *arguments]
    if nodes > 1 and "SLURM_STEP_ID" not in environment and (srun := shutil.which("srun")):
        tasks = ["--nodes", str(nodes), "--ntasks", str(nodes * local), "--kill-on-bad-exit=1"]
        return [srun, *tasks, "--ntasks-per-node", str(local), *again]
    return again if local > 1 else None


def run(arguments: list[str]) -> int | None:
    """Run a stage in several processes and return its exit status; None: run it in this one."""
    os.environ.update(adopt_slurm(os.environ))
    line = command(arguments, os.environ)
    if line is None:
        return None
    if line[0] != sys.executable:
        return subprocess.run(line, check=False).returncode
    return run_copies(line, _wanted(os.environ))


def run_copies(line: list[str], copies: int) -> int:
    """Run a command ``copies`` times on this machine as one process group.

    When one fails the others get SIGTERM and, ``_PATIENCE_S`` later, SIGKILL.

    Returns:
        The exit status of the first to fail, 0 if none did.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        **os.environ, LAUNCHED: "1", "WORLD_SIZE": str(copies), "LOCAL_WORLD_SIZE": str(copies),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    if sys.platform == "linux":
        shared.setdefault("GLOO_SOCKET_IFNAME", "lo")
    threads = max(1, (os.cpu_count() or 1) // copies)
    shared.setdefault("OMP_NUM_THREADS", str(threads))
    group = [
        subprocess.Popen(line, env={**shared, "RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(copies)
    ]
    with _passed_on(group):
        return _watch(group)


def _watch(group: list[subprocess.Popen[bytes]]) -> int:
    while True:
        states = [process.poll() for process in group]
        failed = next((r for r, state in enumerate(states) if state), None)
        if failed is not None:
            break
        if all(state == 0 for state in states):
            return 0
        time.sleep(0.1)
    status = states[failed] or 1
    _end(group)
    if status >= 0:
        return status
    name = signal.Signals(-status).name
    sys.stderr.write(
        f"error: process {failed} of {len(group)} was killed ({name}), out of memory perhaps; the "
        "others were stopped; run the same command again to go on\n"
    )
    return _SPOKE


def _end(group: list[subprocess.Popen[bytes]]) -> None:
    """Let the others read why, then end them."""
    limit = time.monotonic() + _PATIENCE_S
    for process in group:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, limit - time.monotonic() - _PATIENCE_S / 2))
        process.terminate()
    for process in group:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, limit - time.monotonic()))
        process.kill()
        process.wait()


@contextlib.contextmanager
def _passed_on(group: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """SIGTERM goes to every process; Ctrl-C reaches them from the terminal by itself."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in group:
            process.send_signal(number)

    caught = signal.signal(signal.SIGTERM, pass_on)
    ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, caught)
        signal.signal(signal.SIGINT, ctrl_c)


def _wanted(environment: Mapping[str, str]) -> int:
    if (text := environment.get(PROCESSES)) is not None:
        if not text.isdigit() or int(text) < 1:
            raise PagodaError(f"{PROCESSES} = {text!r}; it must be a positive whole number")
        return int(text)
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 1  # without importing torch, which takes seconds
    import torch

    return max(1, torch.cuda.device_count())
