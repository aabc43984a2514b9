"""Processes for tests: forked from one that has imported torch already, so each starts at once."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_HEAVY = ["torch.distributed.fsdp", "safetensors.torch", "yaml", "rich.progress"]


def context() -> ForkServerContext:
    """Where children come from."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(_HEAVY)
    return made


def start(
    function: Callable[..., None], *arguments: Any, folder: Path, **environment: str
) -> BaseProcess:
    """Start ``function`` in a process of its own whose working folder is ``folder``.

    Its messages go to ``folder/log-<RANK>``. It leaves with status 1 on an error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A child gets this path. Some libraries install a package "tests" of their own: ours first.
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if entry != str(ROOT))]
    process = context().Process(target=_child, args=(folder, environment, function, arguments))
    process.start()
    return process


def run_group(
    n: int, function: Callable[..., None], *arguments: Any, folder: Path, limit: float = 120.0
) -> list[int | None]:
    """Run ``function`` in a group of ``n`` processes; their exit statuses."""
    group = start_group(n, function, *arguments, folder=folder)
    return finish(group, limit)


def start_group(
    n: int, function: Callable[..., None], *arguments: Any, folder: Path
) -> list[BaseProcess]:
    """The processes of a group, as ``torchrun`` would start them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {
        "WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
    }  # fmt: skip
    return [
        start(function, *arguments, folder=folder, RANK=str(r), LOCAL_RANK=str(r), **common)
        for r in range(n)
    ]


def finish(group: list[BaseProcess], limit: float) -> list[int | None]:
    """Exit statuses, None for a process that had to be ended after ``limit`` seconds."""
    end = time.monotonic() + limit
    for process in group:
        process.join(max(0.0, end - time.monotonic()))
    statuses = [process.exitcode for process in group]
    for process in group:
        process.kill()
        process.join()
    return statuses


def await_file(path: Path, group: list[BaseProcess], limit: float = 60.0) -> None:
    """Return when ``path`` is there; fail if the processes that should make it ended or hang."""
    end = time.monotonic() + limit
    while not path.exists():
        assert time.monotonic() < end and any(process.is_alive() for process in group)
        time.sleep(0.05)


def log(folder: Path, rank: int = 0) -> str:
    """What a process said."""
    return (folder / f"log-{rank}").read_text()


def _child(
    folder: Path,
    environment: dict[str, str],
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    import torch

    os.environ.update(environment)
    os.chdir(folder)
    stream = os.open(f"log-{environment.get('RANK', 0)}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    torch.set_num_threads(1)
    try:
        function(*arguments)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os.write(2, traceback.format_exc().encode())
        os._exit(1)
