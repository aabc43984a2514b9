"""Networks that nobody trained, where stages leave trained ones."""

from __future__ import annotations

from typing import Any

import torch

from pagoda import artifacts
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.generator import generator_from_teacher, grow
from pagoda.pipeline.stages.teacher import unet_spec


def awake(network: Any, seed: int) -> Any:
    """Random values instead of the zeros that layers start with, as training would leave some."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return network


def write_models(config: Config) -> None:
    """Teacher and generators as their stages leave them, but for the training."""
    paths, schedule = Paths(config), config.diffusion
    base = {"name": config.name, "base_res": config.base_res}
    torch.manual_seed(0)
    teacher = awake(Denoiser(unet_spec(config, config.data.num_classes), schedule.sigma_data), 1)
    with artifacts.create(paths.teacher, "teacher", config=base) as out:
        artifacts.save_model(out, teacher, teacher.card() | {"diffusion": vars(schedule)})
    generator = generator_from_teacher(teacher, sigma_max=schedule.sigma_max, output="denoiser")
    with torch.no_grad():
        generator.head[-1].bias.add_(0.3)  # type: ignore[operator]
    for resolution in config.resolutions:
        if resolution > config.base_res:
            generator = awake(grow(generator, channels=16, blocks=1), resolution)
        where = paths.generator(resolution)
        identity = base | {"resolution": resolution}
        with artifacts.create(where, "generator", config=identity) as out:
            artifacts.save_model(out, generator, generator.card())
