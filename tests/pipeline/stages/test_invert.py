"""Inversion: units and types of the store, a run that was killed, and several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.data.shards import open_rows
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import downsample, invert, teacher
from pagoda.pipeline.stages.filled import Filled
from pagoda.pipeline.stages.train import pair_batches
from pagoda.training.draw import GlobalDraw
from pagoda.training.history import HISTORY
from tests.disk import small_disk

Make = Callable[..., Config]
SMALL = {
    "data.train_images": 60, "data.test_images": 20, "teacher.optim.images": 64,
    "invert.images": 40, "invert.batch": 12, "invert.shard": 32, "invert.steps": 3,
    "features.images": 32,
}  # fmt: skip
FORK = multiprocessing.get_context("fork")  # a child has torch already; a new one takes seconds


@pytest.fixture
def prepared(tiny_config: Make) -> Callable[..., Config]:
    """A tiny experiment with a teacher, ready to be inverted."""
    downsample.run(tiny_config(**SMALL), 8)
    teacher.run(tiny_config(**SMALL))
    return lambda **changes: tiny_config(**(SMALL | changes))


def made(config: Config) -> Artifact:
    return artifacts.open_artifact(Paths(config).latents, "latents")


def in_child(target: Callable[[], None], **environment: Any) -> Any:
    """A forked process that runs ``target``."""

    def main() -> None:
        os.environ.update({k: str(v) for k, v in environment.items()})
        torch.set_num_threads(1)
        target()

    process = FORK.Process(target=main)
    process.start()
    return process


def test_a_killed_run_goes_on_to_the_same_bits(
    prepared: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = prepared()
    invert.run(config)
    expected = made(config).fingerprint
    count = 0
    whole = invert.Inverter.__call__

    def dies(self: Any, *given: Any) -> Tensor:
        nonlocal count
        count += 1
        if count == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, *given)

    monkeypatch.setattr(invert.Inverter, "__call__", dies)
    child = in_child(lambda: invert.run(config))
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    (marks,) = Path(".scratch/invert").glob("*/done")
    assert list(np.fromfile(marks, np.uint32) > 0) == [True] * 3 + [False] * 4
    curve, own = Paths(config).history("invert"), marks.with_name(HISTORY)
    rows = [json.loads(row) for row in curve.read_text().splitlines()]
    slow = [row | {"seconds": row["seconds"] + 1000} for row in rows]
    own.write_text("".join(f"{json.dumps(row)}\n" for row in slow))
    count = -100
    invert.run(config)
    assert count == -96  # only the four batches that were not finished
    assert made(config).fingerprint == expected
    seconds = [json.loads(row)["seconds"] for row in curve.read_text().splitlines()]
    assert len(seconds) == 8 and seconds == sorted(seconds) and seconds[0] > 1000
    assert not [path for path in Path(".scratch/invert").iterdir() if path.is_dir()]


def test_a_row_counts_as_done_only_if_it_is_written(
    prepared: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What full disks, power cuts and half a deletion leave behind."""
    config = prepared()
    dies = SimpleNamespace(copyfile=shutil.copyfile, rmtree=lambda folder: None)
    monkeypatch.setattr(invert, "shutil", dies)  # killed before its last deed
    invert.run(config)
    expected = made(config).fingerprint
    (marks,) = Path(".scratch/invert").glob("*/done")
    (first, *_), whole = sorted(marks.parent.glob("latents-*.npy")), marks.read_bytes()
    content = first.read_bytes()
    for file, left in (
        (marks, b""),
        (marks, whole[:5]),
        (first, content[:-8] + bytes(8)),
        (first, content[: len(content) // 2]),
        (first, None),
    ):
        file.unlink()  # the artifact holds a link to it
        if left is not None:
            file.write_bytes(left)
        invert.run(config)
        assert made(config).fingerprint == expected
        assert marks.read_bytes() == whole and first.read_bytes() == content


def test_a_full_disk_leaves_no_half_written_map(tmp_path: Path) -> None:
    """However much room there is: the map of 4,200 batches is whole, or it is not there."""
    disk, full = tmp_path / "disk", 0
    disk.mkdir()
    with small_disk(disk, "128k"):
        for room in range(16_384, 65_536, 4096):
            ballast = disk / "ballast"
            ballast.write_bytes(b"x" * (shutil.disk_usage(disk).free - room))
            try:
                store = Filled(disk / "scratch", "latents", "float32", (4200, 1, 1, 1), 1 << 17, 1)
            except (OSError, PagodaError):
                full += 1
                assert not (disk / "scratch" / "done").exists()
            else:
                assert len(store.rows) == 4200 and store.finished == 0
                del store
            shutil.rmtree(disk / "scratch")
            ballast.unlink()
    assert 4 < full < 12


def test_latents_that_are_not_finite_are_refused_at_once(
    prepared: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, calls, whole = prepared(), 0, invert.Inverter.__call__

    def breaks(self: Any, *given: Any) -> Tensor:
        nonlocal calls
        calls += 1
        z = whole(self, *given).clone()
        if calls == 2:  # the row of training image 8, mirrored: rows 12 to 23 are this batch's
            z[5, 1, 2, 3] = float("nan")
        return z

    monkeypatch.setattr(invert.Inverter, "__call__", breaks)
    with pytest.raises(PagodaError) as error:
        invert.run(config)
    assert str(error.value).startswith(
        "invert: latents of 1 of 12 images are not finite, the first of training image 8 mirrored; "
    )
    assert calls == 2 and not Paths(config).latents.exists()


def test_latents_of_images_that_are_not_there_are_refused_when_opened(prepared: Make) -> None:
    invert.run(config := prepared())
    data, latents = artifacts.open_artifact(Paths(config).data(8), "images"), made(config)
    for name, value, said in (
        ("indices", 60, "indices holds 60 at row 7, and the images allow 0 to 59"),
        ("indices", -1, "indices holds -1 at row 7"),
        ("labels", 10, "labels holds 10 at row 7, and the images allow 0 to 9"),
        ("flips", 2, "flips holds 2 at row 7"),
        ("labels", None, "has 80 latents and 79 labels"),
    ):
        file = latents.path / f"{name}.npy"
        whole = np.load(file)
        broken = whole[:-1].copy() if value is None else whole.copy()
        if value is not None:
            broken[7] = value
        np.save(file, broken)
        with pytest.raises(PagodaError, match=said):
            pair_batches(latents, data, torch.device("cpu"))
        np.save(file, whole)
    assert len(pair_batches(latents, data, torch.device("cpu")).labels) == 80


def test_several_processes_make_the_same_bits(prepared: Make) -> None:
    config = prepared()
    invert.run(config)
    expected = made(config).fingerprint
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": 3, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [in_child(lambda: invert.run(config), RANK=r, **group) for r in range(3)]
    for child in children:
        child.join(90)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert made(config).fingerprint == expected


def test_units_types_and_shards_hold_the_same_latents(prepared: Make) -> None:
    invert.run(config := prepared(**{"invert.shard": 1000}))
    kept = Paths(config).latents.with_name("plain")
    shutil.copytree(Paths(config).latents, kept)
    plain = artifacts.open_artifact(kept, "latents")
    assert plain.card()["units"] == "x(sigma_max) / sigma_max"
    assert [p.name for p in plain.path.glob("latents*")] == ["latents.npy"]
    latents = plain.array("latents")
    assert latents.dtype == np.float32 and len(latents) == 80
    invert.run(config := prepared(**{"invert.units": "raw", "invert.dtype": "fp16"}))
    raw = made(config)
    assert raw.card()["units"] == "x(sigma_max)"
    assert len(list(raw.path.glob("latents-*"))) == 3
    rows = open_rows(raw, "latents")
    assert rows.dtype == np.float16
    np.testing.assert_allclose(rows[0:80] / 80, latents, rtol=2**-10, atol=1e-3)
    for moment in ("latent_mean", "latent_std", "latent_kurtosis"):
        assert raw.card()[moment] == pytest.approx(plain.card()[moment], abs=5e-3)
    assert raw.card()["round_trip_mse"] == pytest.approx(plain.card()["round_trip_mse"], rel=0.01)
    data = artifacts.open_artifact(Paths(config).data(8), "images")
    drawn = []
    for artifact in (plain, raw):
        torch.manual_seed(3)
        pairs = pair_batches(artifact, data, torch.device("cpu"))
        drawn.append(GlobalDraw(pairs.device).pairs(pairs, 16))
    np.testing.assert_allclose(drawn[1][0], drawn[0][0], rtol=2**-10, atol=1e-3)
    assert torch.equal(drawn[0][1], drawn[1][1])
