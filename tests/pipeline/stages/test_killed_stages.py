"""kill -9 at any moment, then the same command: the same weights, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pagoda import artifacts
from pagoda.config import parse
from pagoda.config.paths import Paths
from tests.group import log, start
from tests.tiny import tiny_tree

STAGES = ("features", "reference", "teacher", "invert", "distill", "grow", "evaluate")
SMALL = {
    "data.train_images": 64, "data.test_images": 16, "target_res": 16, "invert.images": 16,
    "teacher.optim.images": 768, "features.images": 768, "grow.optim.precision": "bf16",
}  # fmt: skip


def _stage(name: str, tree: dict[str, Any]) -> None:
    """Run one real stage, saving after every step."""
    from pagoda.pipeline.stages import (
        distill,
        downsample,
        evaluate,
        features,
        grow,
        invert,
        reference,
        teacher,
    )
    from pagoda.training import loop

    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    config = parse(tree)
    loop.SAVE_EVERY_S = -1.0  # this process is ours alone
    each = {"downsample": downsample, "reference": reference, "evaluate": evaluate}
    if name in each:
        for resolution in config.resolutions:
            each[name].run(config, resolution)
    elif name == "grow":
        grow.run(config, 8, 16)
    else:
        stages = {"features": features, "teacher": teacher, "invert": invert, "distill": distill}
        stages[name].run(config)


def _run(name: str, tree: dict[str, Any], folder: Path, kill_after: float | None = None) -> bool:
    """Whether the stage ended by itself."""
    child = start(_stage, name, tree, folder=folder)
    child.join(kill_after)
    if child.exitcode is None:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        return False
    assert child.exitcode == 0, log(folder)
    return True


def _fingerprints(tree: dict[str, Any], folder: Path) -> dict[str, str]:
    paths = Paths(parse(tree))
    where = {
        **{f"reference@{r}": (paths.reference(r), "reference") for r in (8, 16)},
        **{f"evaluate@{r}": (paths.evaluation(r), "evaluation") for r in (8, 16)},
        "features": (paths.features, "features"), "teacher": (paths.teacher, "teacher"),
        "invert": (paths.latents, "latents"), "distill": (paths.generator(8), "generator"),
        "grow": (paths.generator(16), "generator"),
    }  # fmt: skip
    return {
        stage: artifacts.open_artifact(folder / path, kind).fingerprint
        for stage, (path, kind) in where.items()
    }


@pytest.mark.slow
def test_stages_killed_at_random_moments_end_with_the_same_bits(tmp_path: Path) -> None:
    tree, rng, kills = tiny_tree(**SMALL), random.Random(1), 0
    seconds: dict[str, float] = {}
    for name in ("downsample", *STAGES):
        began = time.monotonic()
        _run(name, tree, tmp_path / "whole")
        seconds[name] = time.monotonic() - began
    _run("downsample", tree, tmp_path / "killed")
    for name in STAGES:
        for _ in range(3):
            kills += not _run(
                name, tree, tmp_path / "killed", rng.uniform(0.3, 1.0) * seconds[name]
            )
        _run(name, tree, tmp_path / "killed")
    assert kills >= len(STAGES)
    assert _fingerprints(tree, tmp_path / "killed") == _fingerprints(tree, tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.partial*"))  # nothing half-written is left


@pytest.mark.slow
def test_two_runs_of_one_stage_at_once_keep_scratch_apart(tmp_path: Path) -> None:
    tree = tiny_tree(**SMALL)
    _run("downsample", tree, tmp_path)
    pair = [start(_stage, "teacher", tree, folder=tmp_path) for _ in range(2)]
    for child in pair:
        child.join(120)
    assert [child.exitcode for child in pair] == [0, 0], log(tmp_path)
    assert not list((tmp_path / ".scratch").rglob("*.safetensors"))
    artifacts.open_artifact(tmp_path / Paths(parse(tree)).teacher, "teacher")
