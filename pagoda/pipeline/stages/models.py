"""What an experiment has made, opened: its generators and baselines at one resolution."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.config import Config, VariantConfig
from pagoda.config.paths import Paths
from pagoda.evaluation.samplers import (
    Draws,
    Sampler,
    one_step,
    teacher,
    teacher_weights,
    untrained,
    upsampled,
)
from pagoda.evaluation.streaming import even_batch


def pipeline_samplers(
    config: Config, resolution: int, inputs: dict[str, Artifact], device: torch.device
) -> dict[str, Sampler]:
    """Generators and baselines at one resolution by name, the main generator first."""
    section, base = config.evaluate, inputs["base"]
    draws = Draws(section.seed, section.samples, even_batch(section.batch), device)
    if resolution == config.base_res:
        card, source = base.card(), inputs["teacher"]
        start = partial(teacher_weights, source, card)
        found = [
            one_step(base, draws, "student"),
            teacher(source, draws, section.teacher_steps),
            one_step(base, draws, "untrained_teacher_weights", start),
            one_step(base, draws, "untrained", lambda: untrained(card, section.seed)),
        ]
    else:
        found = [
            one_step(inputs["generator"], draws, "grown"),
            upsampled(one_step(base, draws), resolution, "upsampled_base"),
        ]
    return {sampler.name: sampler for sampler in found}


def open_teacher(config: Config) -> Artifact:
    """The teacher's artifact."""
    expect = {"name": config.name, "base_res": config.base_res}
    return artifacts.open_artifact(Paths(config).teacher, "teacher", expect)


def open_generator(config: Config, resolution: int) -> Artifact:
    """The artifact of the generator that ends at one resolution."""
    expect = {"name": config.name, "base_res": config.base_res, "resolution": resolution}
    return artifacts.open_artifact(Paths(config).generator(resolution), "generator", expect)


def without(config: VariantConfig, *keys: str) -> VariantConfig:
    """The variant with some artifacts read where the main pipeline left them."""
    return replace(config, places={k: v for k, v in config.places.items() if k not in keys})
