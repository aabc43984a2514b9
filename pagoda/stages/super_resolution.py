"""The cascade's upper stages: one super-resolution diffusion model a doubling (studies only)."""

from __future__ import annotations

from dataclasses import replace

import torch

from pagoda import artifacts
from pagoda.config import Config
from pagoda.data.store import open_images
from pagoda.networks.super_resolution import SuperResolver
from pagoda.networks.unet import UNetSpec
from pagoda.stages.device import pick_device
from pagoda.stages.optim import check_device, compile_networks, optim_spec
from pagoda.stages.paths import Paths
from pagoda.stages.teacher import unet_spec
from pagoda.stages.train_network import Trained, train_network
from pagoda.training.sharding import place
from pagoda.training.super_resolution import (
    ResolutionPairs,
    SuperResolutionSpec,
    SuperResolutionStep,
)


def run(config: Config, from_res: int, to_res: int) -> None:
    """Train the model from ``from_res`` to ``to_res`` and write its artifact.

    Optimiser, noise law and length are the teacher's; the width is the cascade's own.
    """
    paths, optim, device = Paths(config), config.teacher.optim, pick_device()
    check_device("teacher", optim, device)
    name, stage = {"name": config.name}, f"cascade-{to_res}"
    low, high = (
        artifacts.open_artifact(paths.data(res), "images", name | {"resolution": res})
        for res in (from_res, to_res)
    )
    torch.manual_seed(config.seed)
    spec = cascade_spec(config, to_res, len(high.card()["classes"]))
    resolver = place(SuperResolver(spec, config.diffusion.sigma_data), device)
    pairs = ResolutionPairs(
        open_images(low, "train"), open_images(high, "train"), high.array("train_labels"), device
    )
    step = SuperResolutionStep(
        resolver,
        pairs,
        SuperResolutionSpec(
            optim.batch, config.studies.cascade.noise_max, config.diffusion.p_mean,
            config.diffusion.p_std, optim.clip, optim.ema, optim.precision, optim.micro_batch,
        ),
        optim_spec(optim),
    )  # fmt: skip
    compile_networks(optim, resolver)
    train_network(
        config, stage, step, optim,
        Trained(
            "super_resolution", paths.super_resolver(to_res),
            name | {"base_res": config.base_res, "resolution": to_res},
            {**resolver.card(), "from": from_res},
        ),
        inputs={"low": low, "high": high},
        sections={"teacher": config.teacher, "diffusion": config.diffusion,
                  "cascade": config.studies.cascade},
    )  # fmt: skip


def cascade_spec(config: Config, resolution: int, num_classes: int) -> UNetSpec:
    """The network of one upper stage: the teacher's shape, the cascade's width.

    Levels reach down to the teacher's lowest resolution; the last width multiplier is repeated for
    levels that the teacher does not have.
    """
    net = config.teacher.network
    levels = (resolution // net.lowest_res).bit_length()
    mult = [*net.channel_mult, *[net.channel_mult[-1]] * levels][:levels]
    return replace(
        unet_spec(config, num_classes),
        resolution=resolution,
        channels=config.studies.cascade.channels,
        channel_mult=tuple(mult),
        augment_labels=0,
    )
