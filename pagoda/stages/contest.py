"""What a variant of a study has made, as functions from latents to images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pagoda import artifacts
from pagoda.config import Config, VariantConfig
from pagoda.data.noise import standard_normal
from pagoda.diffusion.solver import edm_grid, nfe, sample
from pagoda.networks.denoiser import load_denoiser
from pagoda.networks.generator import load_generator
from pagoda.networks.super_resolution import condition, load_super_resolver
from pagoda.stages.paths import Paths

Map = Callable[[Tensor, Tensor, np.ndarray], Tensor]
"""Latents (n, 3, b, b), labels (n,) and indices (n,) of the samples -> images in [-1, 1]."""


@dataclass(frozen=True)
class Entry:
    """A generator that a variant made, at one resolution.

    Attributes:
        name: ``teacher``, ``student``, ``grown`` or ``cascade``.
        resolution: of its images.
        nfe: network evaluations an image.
        make: the generator.
        below: what the same latents give one resolution below, None at the base.
        parameters: of all networks that take part.
    """

    name: str
    resolution: int
    nfe: int
    make: Map
    below: Map | None
    parameters: int


def entries(config: VariantConfig, steps: tuple[str, ...], device: torch.device) -> list[Entry]:
    """Everything that the steps of a variant have made, lowest resolution first."""
    found = []
    if "teacher" in steps or "score_teacher" in steps:
        found.append(_teacher(config, device))
    if "distill" in steps:
        found.append(_one_step(config, config.base_res, device))
    if "grow" in steps or "grow_each" in steps:
        found += [
            _one_step(config, r, device, "grow_each" in steps) for r in config.resolutions[1:]
        ]
    if "cascade" in steps:
        found += cascade(config, device)
    return found


def without(config: VariantConfig, *keys: str) -> VariantConfig:
    """The variant with some artifacts read where the main pipeline left them."""
    return replace(config, places={k: v for k, v in config.places.items() if k not in keys})


def _one_step(
    config: VariantConfig, resolution: int, device: torch.device, each: bool = False
) -> Entry:
    name = "student" if resolution == config.base_res else "grown"
    make, parameters = _generator(config, resolution, device)
    below = None
    if resolution != config.base_res:
        lower = resolution // 2
        below, _ = _generator(without(config, f"gen/{lower}") if each else config, lower, device)
    return Entry(name, resolution, 1, make, below, parameters)


def _generator(config: Config, resolution: int, device: torch.device) -> tuple[Map, int]:
    artifact = artifacts.open_artifact(
        Paths(config).generator(resolution), "generator",
        {"name": config.name, "base_res": config.base_res, "resolution": resolution},
    )  # fmt: skip
    generator = artifact.network(load_generator)
    generator = generator.to(device).to(memory_format=torch.channels_last)
    return lambda z, labels, _: generator(z, labels), _count(generator)


def _teacher(config: Config, device: torch.device) -> Entry:
    make, parameters = _sampler(config, device)
    evaluations = nfe(config.evaluate.teacher_steps, "heun")
    return Entry("teacher", config.base_res, evaluations, make, None, parameters)


def _sampler(config: Config, device: torch.device) -> tuple[Map, int]:
    """The teacher, sampled by Heun on ``evaluate.teacher_steps`` levels."""
    identity = {"name": config.name, "base_res": config.base_res}
    artifact = artifacts.open_artifact(Paths(config).teacher, "teacher", identity)
    denoiser = artifact.network(load_denoiser)
    denoiser = denoiser.to(device).to(memory_format=torch.channels_last)
    law = config.diffusion
    grid = edm_grid(config.evaluate.teacher_steps, law.sigma_min, law.sigma_max, law.rho)
    return lambda z, labels, _: sample(denoiser, z * law.sigma_max, grid, labels), _count(denoiser)


def cascade(config: Config, device: torch.device) -> list[Entry]:
    """The teacher and the super-resolution models above it, each on the output of the last."""
    lowest = _teacher(config, device)
    found = [replace(lowest, name="cascade")]
    for resolution in config.resolutions[1:]:
        below = found[-1]
        make, parameters = _super_resolved(config, resolution, below.make, device)
        evaluations = below.nfe + nfe(config.studies.cascade.steps, "heun")
        total = below.parameters + parameters
        found.append(Entry("cascade", resolution, evaluations, make, below.make, total))
    return found


def _super_resolved(
    config: Config, resolution: int, below: Map, device: torch.device
) -> tuple[Map, int]:
    identity = {"name": config.name, "base_res": config.base_res, "resolution": resolution}
    artifact = artifacts.open_artifact(
        Paths(config).super_resolver(resolution), "super_resolution", identity
    )
    resolver = artifact.network(load_super_resolver)
    resolver = resolver.to(device).to(memory_format=torch.channels_last)
    law, section, seed = config.diffusion, config.studies.cascade, config.evaluate.seed
    grid = edm_grid(section.steps, law.sigma_min, law.sigma_max, law.rho)
    shape = (3, resolution, resolution)

    def noise(indices: np.ndarray, stream: str) -> Tensor:
        drawn = standard_normal(seed, indices, shape, f"{stream}-{resolution}")
        return torch.from_numpy(drawn).to(device).contiguous(memory_format=torch.channels_last)

    def make(z: Tensor, labels: Tensor, indices: np.ndarray) -> Tensor:
        low = below(z, labels, indices).clamp(-1, 1)
        level = low.new_full((len(low),), section.noise)
        seen = condition(low, resolution, level, noise(indices, "condition"))

        def denoiser(x: Tensor, sigma: Tensor, y: Tensor | None) -> Tensor:
            return resolver(x, sigma, y, seen, level)

        return sample(denoiser, noise(indices, "cascade") * law.sigma_max, grid, labels)

    return make, _count(resolver)


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
