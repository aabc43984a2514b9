"""The cascade's upper stages: one super-resolution diffusion model a doubling (studies only)."""

from __future__ import annotations

import torch

from pagoda import artifacts
from pagoda.config import Config
from pagoda.data.store import open_images
from pagoda.networks.super_resolution import SuperResolver
from pagoda.networks.unet import UNetSpec
from pagoda.stages.device import pick_device
from pagoda.stages.optim import loop_spec, optim_spec
from pagoda.stages.paths import Paths
from pagoda.stages.progress import track
from pagoda.stages.scratch import HISTORY, stage_scratch
from pagoda.training.checkpoint import Scratch
from pagoda.training.history import History
from pagoda.training.loop import train
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
    name, stage = {"name": config.name}, f"cascade-{to_res}"
    low, high = (
        artifacts.open_artifact(paths.data(res), "images", name | {"resolution": res})
        for res in (from_res, to_res)
    )
    torch.manual_seed(config.seed)
    spec = cascade_spec(config, to_res, len(high.card()["classes"]))
    resolver = SuperResolver(spec, config.diffusion.sigma_data)
    resolver = resolver.to(device).to(memory_format=torch.channels_last)
    pairs = ResolutionPairs(
        open_images(low, "train"), open_images(high, "train"), high.array("train_labels"), device
    )
    step = SuperResolutionStep(
        resolver,
        pairs,
        SuperResolutionSpec(
            optim.batch, config.studies.cascade.noise_max, config.diffusion.p_mean,
            config.diffusion.p_std, optim.clip, optim.ema, optim.precision,
        ),
        optim_spec(optim),
    )  # fmt: skip
    inputs = {"low": low, "high": high}
    sections = {"teacher": config.teacher, "diffusion": config.diffusion,
                "cascade": config.studies.cascade}  # fmt: skip
    folder = stage_scratch(stage, sections, inputs, seed=config.seed)
    scratch = Scratch(folder, step.modules, step.optimizers)
    with track(optim.images, stage) as bar:
        train(
            step,
            loop_spec(stage, optim, config.seed),
            scratch,
            lambda kept: History(paths.history(stage), kept, folder / HISTORY),
            bar.advance,
        )
    card = {**resolver.card(), "images_seen": optim.images, "from": from_res}
    identity = name | {"base_res": config.base_res, "resolution": to_res}
    where = paths.super_resolver(to_res)
    with artifacts.create(where, "super_resolution", config=identity, inputs=inputs) as out:
        artifacts.save_model(out, step.ema.model, card)
    scratch.discard()


def cascade_spec(config: Config, resolution: int, num_classes: int) -> UNetSpec:
    """The network of one upper stage: the teacher's shape, the cascade's width.

    Levels reach down to the teacher's lowest resolution; the last width multiplier is repeated for
    levels that the teacher does not have.
    """
    net = config.teacher.network
    levels = (resolution // net.lowest_res).bit_length()
    mult = [*net.channel_mult, *[net.channel_mult[-1]] * levels][:levels]
    return UNetSpec(
        resolution=resolution,
        channels=config.studies.cascade.channels,
        channel_mult=tuple(mult),
        blocks=net.blocks,
        attention=tuple(net.attention),
        head_channels=net.head_channels,
        dropout=net.dropout,
        num_classes=num_classes,
        time_scale=net.time_scale,
    )
