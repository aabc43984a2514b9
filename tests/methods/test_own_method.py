"""A method outside of the package: named in a section, trained, stopped, written by its stage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pagoda import artifacts
from pagoda.config import Config, parse
from pagoda.errors import PagodaError
from pagoda.networks.generator import load_generator
from pagoda.stages import distill, downsample, invert
from pagoda.stages.paths import Paths
from pagoda.training import loop
from tests.stages.untrained import write_models
from tests.tiny import ROOT, tiny_tree

EXAMPLE = Path(__file__).with_name("example_method.py")
SMALL = {"data.train_images": 40, "data.test_images": 20, "invert.images": 16, "target_res": 8}


def tree(method: str, **section: Any) -> dict[str, Any]:
    """The tiny experiment with a distillation that has nothing of one_step's."""
    whole = tiny_tree(**SMALL)
    kept = ("imported", "pair_share", "output", "teacher_steps", "dropout")
    optim = {"images": 48, "batch": 16, "lr": 1e-3}
    stage = {key: whole["distill"][key] for key in kept}
    return whole | {"distill": stage | {"method": method, "optim": optim} | section}


def test_it_trains_stops_goes_on_and_writes_its_artifact(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_config()
    shutil.copy(EXAMPLE, tmp_path / "mine.py")
    config = parse(tree("mine.py:Ratio", width=4))
    downsample.run(config, 8)
    write_models(config)
    shutil.rmtree(Paths(config).generator(8))
    invert.run(config)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)
    whole, steps = loop.run_step, []

    def stopped(*arguments: Any) -> Any:
        steps.append(arguments[2])
        if len(steps) == 3:
            raise RuntimeError("power cut")
        return whole(*arguments)

    monkeypatch.setattr(loop, "run_step", stopped)
    with pytest.raises(RuntimeError):
        distill.run(config)
    (identity,) = Path(".scratch/distill").glob("*/identity.json")
    assert "mine.py" in json.loads(identity.read_text())["code"]
    distill.run(config)
    assert steps == [0, 1, 2, 2]
    made = artifacts.open_artifact(Paths(config).generator(8), "generator")
    assert {"loss", "loss_ratio"} <= made.card()["metrics"].keys()
    image = made.network(load_generator)(torch.randn(1, 3, 8, 8), torch.zeros(1, dtype=torch.long))
    assert image.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("two_step", "distill.method = 'two_step'; it must be one of cascade, one_step, teacher"),
        ("gone.py:Ratio", "distill.method = 'gone.py:...'; it must be of a file that is there"),
        (f"{EXAMPLE}:Missing", "has no method Missing, a class derived from Method"),
        (f"{EXAMPLE}:Ratio", "unknown key distill.loss"),
    ],
)
def test_a_method_that_is_none_is_one_line(method: str, said: str) -> None:
    with pytest.raises(PagodaError) as error:
        parse(tree(method, loss={}))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_reading_a_configuration_imports_no_torch() -> None:
    program = (
        "import sys; from pagoda.config import load; load(); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
