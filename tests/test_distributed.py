"""Groups of real processes: parts, sums, gathers, and what happens when one fails or dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from pagoda import distributed
from pagoda.config import Config
from pagoda.errors import PagodaError
from pagoda.pipeline import launcher
from pagoda.pipeline.stages import downsample
from tests.group import log, run_group
from tests.tiny import ROOT


def test_alone_nothing_happens() -> None:
    assert (distributed.world_size(), distributed.rank()) == (1, 0)
    assert distributed.is_main_process()
    assert distributed.local_rows(7) == slice(0, 7)
    rows, x = np.arange(3), torch.ones(2)
    assert distributed.all_gather_rows(rows) is rows
    assert distributed.all_reduce_with_gradient(x) is x
    distributed.all_reduce_([x])
    distributed.broadcast_([x])
    distributed.barrier()
    assert torch.equal(x, torch.ones(2)) and distributed.all_reduce_max([1.5]) == [1.5]
    assert distributed.broadcast_object({"a": 1}) == {"a": 1}
    with distributed.group():
        pass


@pytest.mark.parametrize(("n", "world", "multiple"), [(10, 3, 1), (10, 3, 4), (2, 3, 1), (9, 2, 2)])
def test_parts_cover_all_rows_in_order_and_end_where_allowed(
    n: int, world: int, multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    parts = []
    for r in range(world):
        monkeypatch.setattr(distributed, "rank", lambda r=r: r)
        parts.append(distributed.local_rows(n, multiple))
    assert parts[0].start == 0 and parts[-1].stop == n
    assert all(a.stop == b.start for a, b in pairwise(parts))
    assert all(p.stop % multiple == 0 or p.stop == n for p in parts)
    blocks = [-(-(p.stop - p.start) // multiple) for p in parts]
    assert max(blocks) - min(blocks) <= 1


def _sums() -> None:
    with distributed.group():
        me, world = distributed.rank(), distributed.world_size()
        tensors = [torch.full((2, 3), me + 1.0), torch.ones(4, dtype=torch.float64) * me]
        tensors[0] = tensors[0].t()  # not contiguous
        distributed.all_reduce_(tensors)
        full = sum(range(1, world + 1))
        assert torch.equal(tensors[0], torch.full((3, 2), float(full)))
        assert torch.equal(tensors[1], torch.full((4,), float(full - world), dtype=torch.float64))
        assert distributed.all_reduce_max([float(me), -float(me)]) == [world - 1.0, 0.0]
        rows = np.arange(10, dtype=np.int32).reshape(5, 2)
        assert np.array_equal(distributed.all_gather_rows(rows[distributed.local_rows(5)]), rows)
        assert distributed.broadcast_object({"rank": me}) == {"rank": 0}
        weights = torch.full((3, 2), float(me)).t()
        distributed.broadcast_([weights])
        assert torch.equal(weights, torch.zeros(2, 3))
        x = torch.full((), me + 1.0, requires_grad=True)
        total = distributed.all_reduce_with_gradient(x)
        (first,) = torch.autograd.grad(total**3, x, create_graph=True)
        # d/dx_r of the sum over processes of s^3 is world * 3 s^2, and its derivative alike
        assert first.item() == pytest.approx(world * 3 * full**2)
        (second,) = torch.autograd.grad(first, x)
        assert second.item() == pytest.approx(world * world * 6 * full)


@pytest.mark.longer
def test_sums_gathers_and_derivatives(tmp_path: Path) -> None:
    assert run_group(3, _sums, folder=tmp_path) == [0] * 3, log(tmp_path)


_WORK = """
import os, signal, sys
from pagoda import distributed
from pagoda.pipeline import cli
from pagoda.errors import PagodaError

def work():
    with distributed.group():
        for step in range(10_000):
            if step == 5 and distributed.rank() == int(sys.argv[2]):
                if sys.argv[1] == "error":
                    raise PagodaError("the image cat.png cannot be read")
                if sys.argv[1] == "bug":
                    raise ValueError("no such thing")
                os.kill(os.getpid(), getattr(signal, sys.argv[1]))
            distributed.barrier()

cli.app = work
cli.main()
"""


@pytest.mark.longer
@pytest.mark.parametrize(
    ("how", "who", "copies", "message"),
    [
        ("error", 1, 2, "process 1 of 2: the image cat.png cannot be read"),
        ("bug", 0, 2, "process 0 of 2: ValueError: no such thing"),
        ("SIGKILL", 0, 3, "process 0 of 3 was killed (SIGKILL), out of memory perhaps; the others "
         "were stopped; run the same command again to go on"),
    ],
    ids=["error", "bug", "killed"],
)  # fmt: skip
def test_the_one_that_failed_is_named(
    how: str, who: int, copies: int, message: str, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By one line, soon, and the others say nothing."""
    monkeypatch.chdir(ROOT)
    began = time.monotonic()
    with pytest.raises(PagodaError) as error:
        launcher.run_copies(["-c", _WORK, how, str(who)], copies)
    assert str(error.value) == message
    assert time.monotonic() - began < 60
    said = capfd.readouterr().err
    assert said == "" if how != "bug" else said.count("Traceback") == 1


@pytest.mark.longer
def test_one_that_is_told_to_stop_interrupts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(KeyboardInterrupt):
        launcher.run_copies(["-c", _WORK, "SIGTERM", "1"], 2)
    assert launcher.run_copies(["-c", "pass"], 2) == 0


@pytest.mark.slow
def test_a_process_that_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(distributed.TIMEOUT, "4")
    began = time.monotonic()
    with pytest.raises(PagodaError, match=r"process 0 of 2: the other processes are gone or hang"):
        launcher.run_copies(["-c", _WORK, "SIGSTOP", "1"], 2)
    assert 4 < time.monotonic() - began < 90


_DIES_ONCE = """
import os, signal
from pagoda import distributed

with distributed.group():
    for step in range(10):
        if step == 5 and os.environ["TORCHELASTIC_RESTART_COUNT"] + os.environ["RANK"] == "01":
            os.kill(os.getpid(), signal.SIGKILL)
        distributed.barrier()
    open(f"done-{distributed.rank()}", "w").close()
"""


@pytest.mark.slow
def test_torchrun_starts_a_group_again_that_lost_a_process(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(_DIES_ONCE)
    line = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", *line, "work.py"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert {p.name for p in tmp_path.glob("done-*")} == {"done-0", "done-1"}


@pytest.mark.parametrize("value", ["0", "soon", "-1", ""])
def test_a_time_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(distributed.TIMEOUT, value)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PagodaError, match=r"PAGODA_TIMEOUT = .*positive whole number"), \
            distributed.group():  # fmt: skip
        pass


def _pagoda(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PAGODA_PROCESSES": "2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pagoda", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def _ranks(parent: int) -> list[int]:
    found = subprocess.run(["ps", "--ppid", str(parent), "-o", "pid="], text=True,
                           capture_output=True, check=False)  # fmt: skip
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.longer
def test_a_stage_in_two_processes_stops_in_order(tiny_config: Callable[..., Config]) -> None:
    """At Ctrl-C to the process that started them, and when that one is killed; both go on."""
    downsample.run(tiny_config(**{"teacher.optim.images": 160_000}), 8)
    folder = Path.cwd()
    history = folder / "runs/tiny/b8/history/teacher.jsonl"

    def begun(process: subprocess.Popen[str]) -> None:
        end = time.monotonic() + 120
        before = history.read_text() if history.exists() else ""
        while not history.exists() or history.read_text() == before:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)

    def checkpoints() -> list[Path]:
        return sorted(folder.glob(".scratch/teacher/*/*.safetensors"))

    process = _pagoda(folder, "teacher")
    begun(process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, "interrupted; run the same command again to go on\n")
    assert len(checkpoints()) == 1
    process = _pagoda(folder, "teacher")
    begun(process)
    ranks = _ranks(process.pid)
    process.kill()
    process.communicate(timeout=60)
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in ranks):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert len(ranks) == 2 and len(checkpoints()) == 2
