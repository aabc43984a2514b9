"""SIGTERM, as schedulers send it, in stages that have no training loop of their own."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pagoda import artifacts
from pagoda.config import Config, parse
from pagoda.config.paths import Paths
from pagoda.pipeline.cli import main
from pagoda.pipeline.stages import downsample, features, reference
from tests.group import log, start
from tests.pipeline.stages.untrained import write_models
from tests.tiny import tiny_tree

TREE = tiny_tree(**{"target_res": 8, "data.train_images": 64, "data.test_images": 20,
                    "features.images": 160, "invert.batch": 4, "evaluate.batch": 4})  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A folder with everything that the stages read."""
    made = parse(TREE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("stopped"))
        torch.set_num_threads(1)
        downsample.run(made, 8)
        features.run(made)
        write_models(made)
        reference.run(made, 8)
        Path("params.yaml").write_text(yaml.safe_dump(TREE), encoding="utf-8")
        yield made


def _stop(arguments: list[str], module: str, *name: str) -> None:
    """A command that gets SIGTERM in the third call of a function."""
    owner, calls = importlib.import_module(module), 0
    for part in name[:-1]:
        owner = getattr(owner, part)
    whole = getattr(owner, name[-1])

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(*args, **kwargs)

    setattr(owner, name[-1], counted)
    sys.argv = ["pagoda", *arguments]
    with pytest.raises(SystemExit, match=r"^130$"):
        main()


def stop(arguments: list[str], *where: str) -> None:
    """Stop a command; it says so in its last line."""
    folder = Path.cwd()
    (folder / "log-0").unlink(missing_ok=True)
    child = start(_stop, arguments, *where, folder=folder)
    child.join(60)
    assert child.exitcode == 0, log(folder)
    assert log(folder).splitlines()[-1] == "interrupted; run the same command again to go on"


@pytest.mark.longer
def test_sigterm_saves_the_feature_network_that_trains(config: Config) -> None:
    before = artifacts.open_artifact(Paths(config).features, "features").fingerprint
    stop(["features"], "pagoda.training.loop", "run_step")
    assert len(list(Path(".scratch/features").glob("*/000000003.safetensors"))) == 1
    features.run(config)
    assert artifacts.open_artifact(Paths(config).features, "features").fingerprint == before


def test_sigterm_keeps_the_batches_that_are_inverted(config: Config) -> None:
    stop(["invert"], "pagoda.pipeline.stages.invert", "Inverter", "__call__")
    (marks,) = Path(".scratch/invert").glob("*/done")
    assert np.flatnonzero(np.fromfile(marks, np.uint32)).tolist() == [0, 1]


def test_sigterm_ends_an_evaluation_with_a_word(config: Config) -> None:
    stop(["evaluate", "--resolution", "8"], "pagoda.evaluation.samplers", "to_uint8")
    assert not Paths(config).evaluation(8).exists()
