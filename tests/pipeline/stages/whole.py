"""A whole run of small networks, stage by stage, up to the evaluation of its target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pagoda.config import Config
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


def run_all(
    folder: Path, config: Config, once: Callable[[Config], None],
    each: Callable[[Config, int], None],
) -> Path:  # fmt: skip
    """Run every stage of a base that is grown once, with two that only some experiments have.

    Args:
        folder: the project's.
        config: its parameters.
        once: the stage after ``features``.
        each: the stage that makes of the images of a resolution what is modelled.

    Returns:
        The folder of the run.
    """
    base, target = config.resolutions
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for resolution in config.resolutions:
            downsample.run(config, resolution)
        features.run(config)
        once(config)
        for resolution in config.resolutions:
            reference.run(config, resolution)
            each(config, resolution)
        for stage in (teacher, invert, distill):
            stage.run(config)
        grow.run(config, base, target)
        evaluate.run(config, target)
    return folder / "runs" / config.name
