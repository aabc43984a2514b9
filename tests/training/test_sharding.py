"""Sharded weights (FSDP2) train as full ones do, and checkpoints know no difference."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from pagoda import distributed
from pagoda.config import parse
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import downsample
from pagoda.pipeline.stages import teacher as stage_of_teacher
from pagoda.pipeline.stages.train import check_device
from pagoda.training import sharding
from pagoda.training.method import Method
from tests.group import log, run_group
from tests.methods.small import CPU, Case, denoiser, go, make, state
from tests.tiny import tiny_tree

STEPS, BATCH = 2, 7
CASES: dict[str, tuple[str | Case, dict[str, Any]]] = {
    **{
        what: (what, {"optim.images": STEPS * BATCH})
        for what in ("teacher", "one_step", "classifier")
    },
    "grow-parts": ("one_step, grown", {
        "optim.batch": 6, "optim.images": 12, "optim.micro_batch": 2, "prior_batch": 4,
    }),
}  # fmt: skip


def _go(name: str, what: str, stop_after: int | None = None) -> Method:
    """Train from whatever ``<name>/scratch`` holds; write the whole state to ``<name>/``."""
    case, settings = CASES[what]
    method = go(make(case, torch.float64, **settings), Path(name), stop_after=stop_after)
    if stop_after is None:
        kept = sharding.full_state_on_main(state(method))
        if distributed.is_main_process():
            safetensors.torch.save_file(kept, Path(name) / "all.safetensors")
    return method


def _stage(name: str) -> None:
    """A real stage, with snapshots of averages, in the working folder."""
    optim = {"teacher.optim.ema_profiles": [0.05, 0.1], "teacher.optim.ema_snapshots": 2,
             "teacher.optim.images": 96}  # fmt: skip
    sizes = {"name": name, "data.train_images": 64, "data.test_images": 16}
    config = parse(tiny_tree(**sizes, **optim))
    Path("params.yaml").touch()
    if distributed.is_main_process():
        downsample.run(config, 8)
    distributed.barrier()
    stage_of_teacher.run(config)


def _alone() -> None:
    for what in CASES:
        _go(f"full-{what}", what)
    _go("to-sharded", "one_step", stop_after=1)
    _stage("full")


def _held(network: nn.Module) -> float:
    """The fraction of a network's weights that this process holds."""
    parameters = list(network.parameters())
    return sum(sharding.local(p).numel() for p in parameters) / sum(p.numel() for p in parameters)


def _cut() -> None:
    os.environ[sharding.SHARD] = "1"
    with distributed.group():
        for what in CASES:
            method = _go(f"sharded-{what}", what)
            player = next(iter(method.players.values()))
            for network in (player.network, player.ema):
                assert 0.4 < _held(network) < 0.65, _held(network)
            for each in method.players.values():
                for parameter, kept in each.optimizer.state.items():
                    assert sharding.local(kept["exp_avg"]).shape == sharding.local(parameter).shape
        _go("to-sharded", "one_step")
        _go("to-full", "teacher", stop_after=1)
        _same_start()
        _stage("sharded")
        _refusals()


def _same_start() -> None:
    network = denoiser()
    expected = [p.detach().clone() for p in network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(float(distributed.is_main_process()))
    sharding.shard(CPU, network)
    for parameter, value in zip(network.parameters(), expected, strict=True):
        full: Any = parameter.detach()
        assert torch.equal(full.full_tensor(), value)


def _refusals() -> None:
    with pytest.raises(PagodaError, match=r"PAGODA_SHARD=1 .* precision = 'fp16'; use 'bf16'"):
        sharding.check("fp16", [8], None)
    with pytest.raises(PagodaError, match=r"micro_batch needs batches that 2 processes divide"):
        sharding.check("fp32", [8, 7], 2)
    sharding.check("bf16", [8, 6], 2)
    optim = parse(tiny_tree(**{"teacher.optim.compile": True})).teacher.optim
    with pytest.raises(PagodaError, match=r"PAGODA_SHARD=1 .* teacher\.optim\.compile = true"):
        check_device("teacher", optim, CPU)
    os.environ[sharding.SHARD] = "yes"
    with pytest.raises(PagodaError, match=r"PAGODA_SHARD = 'yes'; it must be 0 or 1"):
        sharding.wanted()


def _whole_again() -> None:
    _go("to-full", "teacher")


def _difference(a: Path, b: Path) -> float:
    files = sorted(f.name for f in a.glob("*.safetensors"))
    assert files == sorted(f.name for f in b.glob("*.safetensors")) and files
    worst = 0.0
    for name in files:
        left, right = (safetensors.torch.load_file(f / name) for f in (a, b))
        assert left.keys() == right.keys()
        worst = max(worst, *((left[k] - right[k]).abs().max().item() for k in left))
    return worst


@pytest.mark.longer
def test_cut_weights_train_as_whole_ones_and_checkpoints_move_between(tmp_path: Path) -> None:
    """Teacher and student, with adaptive weight and R1, in float64; restarts both ways."""
    assert run_group(1, _alone, folder=tmp_path, limit=900) == [0], log(tmp_path)
    assert run_group(2, _cut, folder=tmp_path, limit=900) == [0, 0], log(tmp_path) + log(
        tmp_path, 1
    )
    assert run_group(1, _whole_again, folder=tmp_path, limit=900) == [0], log(tmp_path)
    for name in CASES:
        assert _difference(tmp_path / f"full-{name}", tmp_path / f"sharded-{name}") < 1e-6, name
    assert _difference(tmp_path / "full-one_step", tmp_path / "to-sharded") < 1e-6
    assert _difference(tmp_path / "full-teacher", tmp_path / "to-full") < 1e-6
    made = [tmp_path / "runs" / name / "b8" / "teacher" for name in ("full", "sharded")]
    assert len(list(made[1].glob("*.safetensors"))) == 1 + 2 * 2  # the average and its snapshots
    assert _difference(*made) < 1e-4  # float32
