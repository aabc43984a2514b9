"""Groups of real processes: shares, sums, gathers, and what happens when one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._C._distributed_c10d import FileStore

from pagoda import distributed
from pagoda.errors import PagodaError
from tests.group import await_file, finish, log, run_group, start_group
from tests.tiny import ROOT


def test_alone_nothing_happens() -> None:
    assert (distributed.world_size(), distributed.rank(), distributed.is_main_process()) == (
        1,
        0,
        True,
    )
    assert distributed.local_rows(7) == slice(0, 7) and distributed.local_fraction(7) == 1.0
    rows, x = np.arange(3), torch.ones(2)
    assert (
        distributed.all_gather_rows(rows) is rows and distributed.all_reduce_with_gradient(x) is x
    )
    distributed.all_reduce_([x])
    distributed.broadcast_([x])
    distributed.barrier()
    assert torch.equal(x, torch.ones(2)) and distributed.all_reduce_max([1.5]) == [1.5]
    with distributed.group():
        pass


@pytest.mark.parametrize(("n", "world", "multiple"), [(10, 3, 1), (10, 3, 4), (2, 3, 1), (9, 2, 2)])
def test_shares_cover_all_rows_in_order_and_cut_where_allowed(
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
        weights = torch.full((3,), float(me))
        distributed.broadcast_([weights])
        assert torch.equal(weights, torch.zeros(3))
        assert sum(distributed.all_reduce_max([distributed.local_fraction(5)])) <= 1
        x = torch.full((), me + 1.0, requires_grad=True)
        (first,) = torch.autograd.grad(
            distributed.all_reduce_with_gradient(x) ** 3, x, create_graph=True
        )
        # d/dx_r of the sum over processes of s^3 is world * 3 s^2, and its derivative alike
        assert first.item() == pytest.approx(world * 3 * full**2)
        (second,) = torch.autograd.grad(first, x)
        assert second.item() == pytest.approx(world * world * 6 * full)


@pytest.mark.parametrize("world", [2, 3])
def test_sums_gathers_and_derivatives(world: int, tmp_path: Path) -> None:
    assert run_group(world, _sums, folder=tmp_path) == [0] * world, log(tmp_path)


def _work(fails: int, how: str) -> None:
    with distributed.group():
        for step in range(10_000):
            if step == 5 and distributed.rank() == fails:
                if how == "error":
                    raise PagodaError("the image cat.png cannot be read")
                if how == "bug":
                    raise ValueError("no such thing")
                Path("ready").touch()
                time.sleep(60)
            distributed.barrier()


@pytest.mark.parametrize("fails", [0, 1])
def test_the_others_stop_with_the_message_of_the_one_that_failed(
    fails: int, tmp_path: Path
) -> None:
    began = time.monotonic()
    assert run_group(2, _work, fails, "error", folder=tmp_path) == [1, 1]
    assert time.monotonic() - began < 60
    assert "PagodaError: the image cat.png cannot be read" in log(tmp_path, fails)
    heard = log(tmp_path, 1 - fails).splitlines()[0]
    assert heard == f"GroupLost: process {fails} of 2 failed: the image cat.png cannot be read"


def test_a_bug_in_one_process_is_named_in_the_others(tmp_path: Path) -> None:
    assert run_group(2, _work, 1, "bug", folder=tmp_path) == [1, 1]
    assert log(tmp_path).startswith("GroupLost: process 1 of 2 failed: ValueError: no such thing")


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_process_ends_the_others_within_a_minute(victim: int, tmp_path: Path) -> None:
    group = start_group(3, _work, victim, "hang", folder=tmp_path)
    await_file(tmp_path / "ready", group)
    began, pid = time.monotonic(), group[victim].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    statuses = finish(group, 60)
    assert time.monotonic() - began < 60
    assert statuses.pop(victim) == -signal.SIGKILL and statuses == [1, 1]
    for survivor in {0, 1, 2} - {victim}:
        assert "GroupLost" in log(tmp_path, survivor) or "gone" in log(tmp_path, survivor)


@pytest.mark.parametrize(("me", "silent"), [(0, 2), (1, 0), (2, 0)])
@pytest.mark.parametrize("launched", ["", "1"])
def test_who_says_that_a_process_is_silent(
    me: int, silent: int, launched: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    """Under our own launcher, which sees an exit status only, one of those that notice says it."""
    monkeypatch.setattr(distributed, "_PATIENCE_S", -1.0)
    monkeypatch.setenv(distributed.LAUNCHED, launched)
    store = FileStore(str(tmp_path / "store"), 3)
    store.set(f"beat/{silent}", "7")
    message = distributed._Watch(store, me, 3)._look({silent: ("7", time.monotonic())})
    assert message is not None and message.startswith(f"process {silent} of 3 is gone or hangs")
    assert "run the same command again" in message
    said = f"error: {message}\n" if launched and me < 2 else ""
    assert capsys.readouterr().err == said


def _unbalanced(me_hangs: int) -> None:
    """One hangs outside any collective while the other waits: only the watch can notice."""
    with distributed.group():
        if distributed.rank() == me_hangs:
            Path("ready").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        distributed.barrier()


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [0, 1])
def test_a_frozen_process_is_noticed_within_a_minute(hangs: int, tmp_path: Path) -> None:
    group = start_group(2, _unbalanced, hangs, folder=tmp_path)
    await_file(tmp_path / "ready", group)
    began = time.monotonic()
    group[1 - hangs].join(60)
    assert group[1 - hangs].exitcode == 1 and time.monotonic() - began < 60
    assert f"process {hangs} of 2 is gone or hangs" in log(tmp_path, 1 - hangs)
    finish(group, 0)


_FREEZES = """
import os, signal
from pagoda import distributed
distributed._PATIENCE_S = 6.0
with distributed.group():
    if distributed.rank() == int(os.environ["FREEZES"]):
        os.kill(os.getpid(), signal.SIGSTOP)
    distributed.barrier()
"""


@pytest.mark.slow
@pytest.mark.parametrize("freezes", [0, 2])
def test_the_launcher_does_not_end_without_a_word(freezes: int, tmp_path: Path) -> None:
    line = [sys.executable, "-c", _FREEZES]
    program = f"import sys; from pagoda.launcher import run_copies; sys.exit(run_copies({line}, 3))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env=os.environ | {"FREEZES": str(freezes)},
    )  # fmt: skip
    assert done.returncode == 1
    assert [text for text in done.stderr.splitlines() if text.startswith("error: ")] == [
        f"error: process {freezes} of 3 is gone or hangs, nothing was heard of it for 6 s; run the "
        "same command again to go on"
    ]
