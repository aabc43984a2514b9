"""A run with everything that is used afterwards, made in seconds: its networks are not trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pagoda import artifacts
from pagoda.config import parse
from pagoda.config.paths import Paths
from pagoda.pipeline.stages import downsample, invert
from tests.pipeline.stages.untrained import write_models
from tests.tiny import tiny_tree

GEN, TEACHER = "runs/tiny/b8/gen/16", "runs/tiny/b8/teacher"


def make_run(folder: Path) -> None:
    """Images, a teacher, its latents, generators at 8 and 16, of which the latter knows its images.

    Its seed is 3.
    """
    config = parse(tiny_tree(target_res=16, seed=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)
        for resolution in config.resolutions:
            downsample.run(config, resolution)
        write_models(config)
        inputs = {"data": artifacts.open_artifact(Paths(config).data(16), "images"),
                  "teacher": artifacts.open_artifact(TEACHER, "teacher")}  # fmt: skip
        old = artifacts.open_artifact(GEN, "generator")
        weights, card = old.weights(), old.card()
        with artifacts.create(GEN, "generator", config=old.config, inputs=inputs) as out:
            artifacts.save_weights(out, weights, card)
        invert.run(config)
