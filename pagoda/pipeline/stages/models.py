"""What an experiment has made, opened: its generators and baselines at one resolution."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from pagoda.artifacts import Artifact
from pagoda.config import Config, VariantConfig
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
from pagoda.evaluation.two_steps import makes_two, two_steps
from pagoda.networks.generator import TOLD


def pipeline_samplers(
    config: Config, resolution: int, inputs: dict[str, Artifact], device: torch.device
) -> dict[str, Sampler]:
    """Generators and baselines at one resolution by name, the main generator first."""
    section, base = config.evaluate, inputs["base"]
    weight = section.guidance  # 1, none, unless the profile says otherwise
    draws = Draws(section.seed, section.samples, even_batch(section.batch), device)
    if resolution == config.base_res:
        card, source = base.card(), inputs["teacher"]
        start = partial(teacher_weights, source, card)
        found = [
            guided(base, draws, weight, "student"),
            teacher(source, draws, section.teacher_steps, weight),
            one_step(base, draws, "untrained_teacher_weights", start),
            one_step(base, draws, "untrained", lambda: untrained(card, section.seed)),
        ]
        if makes_two(base):
            found.insert(1, two_steps(base, draws, source.card()["diffusion"]["sigma_min"]))
    else:
        found = [
            guided(inputs["generator"], draws, weight, "grown"),
            upsampled(guided(base, draws, weight), resolution, "upsampled_base"),
        ]
    return {sampler.name: sampler for sampler in found}


def guided(
    generator: Artifact, draws: Draws, weight: float, name: str = "generator",
    below: Sampler | None = None,
) -> Sampler:  # fmt: skip
    """:func:`one_step` under the weight of the evaluation, if the generator is told one."""
    return one_step(generator, draws, name, below=below, guidance=weight_of(generator, weight))


def weight_of(generator: Artifact, weight: float) -> float:
    """The weight of guidance that a generator is asked for: 1, none, if it is told none."""
    return weight if generator.card().get(TOLD) else 1.0


def without(config: VariantConfig, *keys: str) -> VariantConfig:
    """The variant with some artifacts read where the main pipeline left them."""
    return replace(config, places={k: v for k, v in config.places.items() if k not in keys})
