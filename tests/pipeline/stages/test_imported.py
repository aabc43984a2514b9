"""Weights that are at hand, in the place of the training stages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pagoda import artifacts
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.pipeline.cli import app
from pagoda.pipeline.stages import distill, downsample, evaluate, grow, invert, report, teacher
from tests.pipeline.stages.prepared import prepare
from tests.weights.released import unpack

Make = Callable[..., Config]
SMALL = {"target_res": 16, "data.train_images": 100, "data.test_images": 40}
IMPORTED = {
    "teacher.imported": "weights/teacher",
    "distill.imported": "weights/generator/8",
    "grow.imported": "weights/generator",
}


def generate(config: Config) -> list[dict[str, Any]]:
    """Everything from the teacher to the evaluations; their rows."""
    teacher.run(config)
    invert.run(config)
    distill.run(config)
    grow.run(config, 8, 16)
    rows = []
    for resolution in config.resolutions:
        evaluate.run(config, resolution)
        made = artifacts.open_artifact(Paths(config).evaluation(resolution), "evaluation")
        rows += made.json("results")["rows"]
    return rows


@pytest.mark.slow
def test_the_same_weights_give_the_same_values(tiny_config: Make) -> None:
    trained = tiny_config(**SMALL)
    prepare(trained)
    rows = generate(trained)
    paths = Paths(trained)
    shutil.copytree(paths.teacher, "weights/teacher")
    for resolution in (8, 16):
        shutil.copytree(paths.generator(resolution), f"weights/generator/{resolution}")
    shutil.rmtree(paths.base)
    taken = tiny_config(**SMALL | IMPORTED)
    assert generate(taken) == rows
    card = artifacts.open_artifact(paths.generator(16), "generator").card()
    assert card["imported"]["artifact"] == "weights/generator/16" and card["images_seen"] == 0
    for stage in ("teacher", "distill", "grow-16"):
        assert [json.loads(row)["images"] for row in paths.history(stage).open()] == [0]


def from_files(folder: Path) -> None:
    """``pagoda import`` of each file that the reference code wrote, as a user types it."""
    for file, out, options in (
        ("edm.pkl", "teacher", []),
        ("pagoda_8.pt", "generator/8", ["--kind", "generator"]),
        ("pagoda_16.pt", "generator/16", []),
    ):
        words = ["import", str(unpack(file, folder)), "--out", f"weights/{out}", *options]
        if file.endswith(".pt"):
            words += ["--resolution", "8", "--head-channels", "16"]
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output


@pytest.mark.longer
def test_released_weights_to_a_report(tiny_config: Make, tmp_path: Path) -> None:
    """The profile ``official`` in small: teacher and generators of different authors."""
    from_files(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 16, 16, 3), np.uint8)
    classes = np.arange(100) % 5
    np.savez("set.npz", x_train=pixels, y_train=classes, x_test=255 - pixels, y_test=classes)
    npz = SMALL | {"data.source": "npz", "data.path": "set.npz", "data.num_classes": 5}
    config = tiny_config(**npz | IMPORTED)
    prepare(config)
    rows = generate(config)
    assert {"teacher", "student", "grown", "untrained_teacher_weights"} <= {
        row["generator"] for row in rows
    }
    card = artifacts.open_artifact(Paths(config).teacher, "teacher").card()
    assert card["imported"]["file"] == "edm.pkl" and len(card["imported"]["sha256"]) == 64
    report.run(config)
    text = (Paths(config).report / "report.md").read_text()
    assert "grow from `weights/generator`" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher.imported": "weights/nothing"}, "no weights in weights/nothing; 'pagoda import"),
        (
            {"teacher.imported": "weights/generator/8"},
            "is an artifact of kind generator, not teacher",
        ),
        ({"base_res": 16}, "its base resolution is 8, the experiment's is 16"),
        ({}, "its number of classes is 5, the experiment's is 10"),
        ({"diffusion.sigma_data": 0.6}, "its sigma_data is 0.5, the experiment's is 0.6"),
    ],
)
def test_another_network_is_refused(
    changes: dict[str, Any], said: str, tiny_config: Make, tmp_path: Path
) -> None:
    from_files(tmp_path)
    config = tiny_config(**SMALL | IMPORTED | changes)
    downsample.run(config, config.base_res)
    with pytest.raises(PagodaError, match=said) as caught:
        teacher.run(config)
    assert "\n" not in str(caught.value) and not Paths(config).teacher.exists()
