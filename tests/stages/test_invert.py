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
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.data.shards import open_rows
from pagoda.stages import downsample, invert, teacher
from pagoda.stages.paths import Paths
from pagoda.stages.train_generator import pair_batches

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

    def dies(self: Any, x: Tensor, labels: Tensor, keys: np.ndarray) -> Tensor:
        nonlocal count
        count += 1
        if count == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, x, labels, keys)

    monkeypatch.setattr(invert.Inverter, "__call__", dies)
    child = in_child(lambda: invert.run(config))
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    (marks,) = Path(".scratch/invert").glob("*/done")
    assert list(marks.read_bytes()) == [1, 1, 1, 0, 0, 0, 0]
    curve = Paths(config).history("invert")
    rows = [json.loads(row) for row in curve.read_text().splitlines()]
    slow = [row | {"seconds": row["seconds"] + 1000} for row in rows]
    curve.write_text("".join(f"{json.dumps(row)}\n" for row in slow))
    count = -100
    invert.run(config)
    assert count == -96  # only the four batches that were not finished
    assert made(config).fingerprint == expected
    seconds = [json.loads(row)["seconds"] for row in curve.read_text().splitlines()]
    assert len(seconds) == 8 and seconds == sorted(seconds) and seconds[0] > 1000
    assert not [path for path in Path(".scratch/invert").iterdir() if path.is_dir()]


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
        drawn.append(pair_batches(artifact, data, torch.device("cpu")).draw(16))
    np.testing.assert_allclose(drawn[1][0], drawn[0][0], rtol=2**-10, atol=1e-3)
    assert torch.equal(drawn[0][1], drawn[1][1])
