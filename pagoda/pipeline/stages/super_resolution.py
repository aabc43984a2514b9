"""The cascade's upper stages: one super-resolution diffusion model a doubling (studies only)."""

from __future__ import annotations

from dataclasses import replace

import torch

from pagoda.config import Config
from pagoda.methods.cascade import Cascade, CascadeTraining
from pagoda.methods.teacher import UNetConfig
from pagoda.networks.super_resolution import SuperResolver
from pagoda.networks.unet import UNetSpec
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.made import open_made
from pagoda.pipeline.stages.study_spec import whole_batches
from pagoda.pipeline.stages.teacher import unet_spec
from pagoda.pipeline.stages.train import check_device, image_batches, train_stage
from pagoda.training.method import Given
from pagoda.training.settings import OptimConfig
from pagoda.training.sharding import place


def run(config: Config, from_res: int, to_res: int) -> None:
    """Train the model from ``from_res`` to ``to_res`` and write its artifact.

    Noise schedule and number of images are the teacher's; width and batch are the cascade's own.
    """
    optim, cascade, device = cascade_optim(config), config.studies.cascade, pick_device()
    check_device("teacher", optim, device)
    low, high = open_made(config, f"data/{from_res}"), open_made(config, f"data/{to_res}")
    torch.manual_seed(config.seed)
    spec = cascade_spec(config, to_res, len(high.card()["classes"]))
    resolver = place(SuperResolver(spec, config.diffusion.sigma_data), device)
    images = image_batches(device, low, high)
    method = Cascade(
        CascadeTraining(optim, noise_max=cascade.noise_max),
        Given(resolver, images, device, config.seed, config.diffusion),
    )
    card = {**resolver.card(), "from": from_res}
    train_stage(
        config, f"cascade-{to_res}", method, optim, f"sr/{to_res}", card, device=device,
        inputs={"low": low, "high": high}, code="cascade",
        sections={"teacher": config.teacher, "diffusion": config.diffusion, "cascade": cascade},
    )  # fmt: skip


def cascade_optim(config: Config) -> OptimConfig:
    """How one upper stage trains: as the teacher, in batches of the cascade's own size.

    Upper stages see few images at the sizes of a study, and in the teacher's batches that is too
    few steps.
    """
    optim, batch = config.teacher.optim, config.studies.cascade.batch
    return replace(optim, batch=batch, images=whole_batches(optim.images, batch))


def cascade_spec(config: Config, resolution: int, num_classes: int) -> UNetSpec:
    """The network of one upper stage: the teacher's shape, the cascade's width."""
    return replace(
        unet_spec(config, num_classes),
        resolution=resolution,
        channels=config.studies.cascade.channels,
        channel_mult=tuple(multipliers(config.teacher.network, resolution)),
        augment_labels=0,
    )


def multipliers(network: UNetConfig, resolution: int) -> list[int]:
    """Width multipliers of levels from a resolution down to the network's lowest one.

    The last is repeated for levels that the network does not have.
    """
    levels = (resolution // network.lowest_res).bit_length()
    return [*network.channel_mult, *[network.channel_mult[-1]] * levels][:levels]
