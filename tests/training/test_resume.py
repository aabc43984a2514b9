"""A training that was stopped and went on equals one that was not, bit for bit."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import torch

from pagoda.pipeline.cli import explain
from pagoda.training.checkpoint import scratch_folder
from pagoda.training.loop import checkpoints
from pagoda.training.method import Method
from tests.disk import small_disk
from tests.methods.small import assert_same, go, make, rows, state


def test_curves_belong_to_the_run_that_wrote_them(tmp_path: Path) -> None:
    """Another run between the stop and the end of one, whose curves go to the same file."""
    go(make("teacher"), tmp_path / "whole")
    go(make("teacher"), tmp_path / "parts", stop_after=2)
    go(radam(), tmp_path / "parts", run="other")
    assert rows(tmp_path / "parts") != rows(tmp_path / "whole")
    go(make("teacher"), tmp_path / "parts")
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


@pytest.mark.parametrize("name", ["adamw", "radam"])
def test_weight_decay_is_decoupled_from_the_gradient(name: str) -> None:
    """Where the gradient is 0, a step multiplies by 1 - lr decay."""
    method = make("teacher", **{"optim.optimizer": name, "optim.weight_decay": 0.3})
    (player,) = method.players.values()
    trained = list(player.network.parameters())
    before = [p.detach().clone() for p in trained]
    for p in trained:
        p.grad = torch.zeros_like(p)
    player.optimizer.step()
    rate = player.optimizer.param_groups[0]["lr"]
    for p, old in zip(trained, before, strict=True):
        torch.testing.assert_close(p.detach(), old * (1 - rate * 0.3))


def radam() -> Method:
    return make("teacher", **{"optim.optimizer": "radam"})


@pytest.mark.parametrize("damage", ["truncated", "changed", "no checksum"])
def test_a_damaged_newest_checkpoint_is_passed_over(damage: str, tmp_path: Path) -> None:
    whole = go(radam(), tmp_path / "whole")
    go(radam(), tmp_path / "parts", stop_after=3)
    newest = max((tmp_path / "parts" / "scratch").glob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[-1] ^= 1
        newest.write_bytes(content)
    else:
        newest.with_suffix(".sha256").unlink()
    restored, _ = checkpoints(radam(), newest.parent).restore()
    assert restored == int(newest.stem) - 1
    assert_same(go(radam(), tmp_path / "parts"), whole)


def test_clocks_and_temporary_folders_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(radam(), tmp_path / "whole")
    go(radam(), tmp_path / "parts", stop_after=3)
    for age, file in enumerate(sorted((tmp_path / "parts").rglob("*.*"))):
        os.utime(file, (4e9 - 1e9 * age,) * 2)  # some in the future, the newest the oldest
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert_same(go(radam(), tmp_path / "parts"), whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_a_full_disk_keeps_the_checkpoints_and_the_curves(tmp_path: Path) -> None:
    """On a small file system that fills up; room again, and the end is that of an empty one."""
    whole, small = go(radam(), tmp_path / "whole"), tmp_path / "small"
    small.mkdir()
    with small_disk(small, "64m"):
        go(radam(), small, stop_after=2)
        before = rows(small)
        free = shutil.disk_usage(small).free
        ballast = small / "ballast"
        ballast.write_bytes(b"x" * (free - 20_000))
        with pytest.raises(Exception, match="No space left") as error:
            go(radam(), small)
        assert explain(error.value) == (
            "no space left on the disk; free some and run the same command again"
        )
        kept = sorted(p.name for p in (small / "scratch").iterdir())
        assert kept.pop() == "history.jsonl"
        assert kept == [f"{s:09d}.{e}" for s in (1, 2) for e in ("safetensors", "sha256")]
        assert rows(small)[: len(before)] == before
        ballast.unlink()
        assert_same(go(radam(), small), whole)
        assert rows(small) == rows(tmp_path / "whole")


def test_at_most_two_checkpoints_are_kept(tmp_path: Path) -> None:
    go(make("teacher"), tmp_path, stop_after=3)
    names = sorted(p.name for p in (tmp_path / "scratch").glob("0*"))
    assert names == [f"{s:09d}.{e}" for s in (2, 3) for e in ("safetensors", "sha256")]


def test_nothing_to_restore(tmp_path: Path) -> None:
    method = make("teacher")
    before = state(method)
    assert checkpoints(method, tmp_path / "none").restore() == (0, 0.0)
    assert all(torch.equal(v, before[k]) for k, v in state(method).items())


def test_scratch_is_named_after_all_it_depends_on(tmp_path: Path) -> None:
    identity = {"sections": {"lr": 0.1, "clip": None}, "seed": 0}
    folder = scratch_folder(tmp_path, "teacher", identity)
    same = {"seed": 0, "sections": {"clip": None, "lr": 0.1}}
    assert scratch_folder(tmp_path, "teacher", same) == folder
    assert folder.parent == tmp_path / ".scratch" / "teacher"
    others = [
        scratch_folder(tmp_path, "teacher", identity | {"seed": 1}),
        scratch_folder(tmp_path, "teacher", identity | {"sections": {"lr": 0.2, "clip": None}}),
        scratch_folder(tmp_path, "distill", identity),
    ]
    assert len({folder, *others}) == 4
