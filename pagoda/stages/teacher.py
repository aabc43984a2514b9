"""Stage 1: train the diffusion teacher on downsampled images."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from pagoda import artifacts
from pagoda.config import NO_WEIGHTS, Config
from pagoda.data.store import open_images
from pagoda.losses.edm_augment import LABELS
from pagoda.networks.denoiser import Denoiser, load_denoiser
from pagoda.networks.unet import UNetSpec
from pagoda.stages.device import pick_device
from pagoda.stages.imported import take_network
from pagoda.stages.optim import (
    check_device,
    compile_networks,
    optim_spec,
    power_averages,
    reads_ahead,
)
from pagoda.stages.paths import Paths
from pagoda.stages.train_network import Trained, train_network
from pagoda.training.batches import ImageBatches
from pagoda.training.ema import PowerAverages
from pagoda.training.sharding import place
from pagoda.training.teacher import TeacherStep


def run(config: Config) -> None:
    """Train the denoiser, or take the imported one, and write the ``teacher`` artifact."""
    paths, section, device = Paths(config), config.teacher, pick_device()
    if not config.growth:
        sys.stderr.write(
            f"base_res = target_res = {config.base_res}: no growth, diffusion directly at the "
            "target; each doubling of base_res costs the teacher 4 times the time or more\n"
        )
    imported = section.imported != NO_WEIGHTS
    if not imported:
        check_device("teacher", section.optim, device)
    expect = {"name": config.name, "resolution": config.base_res}
    data = artifacts.open_artifact(paths.data(config.base_res), "images", expect)
    made = Trained(
        "teacher", paths.teacher, {"name": config.name, "base_res": config.base_res},
        {"data": data.fingerprint, "diffusion": vars(config.diffusion)},
    )  # fmt: skip
    if imported:
        take_network(
            config, "teacher", Path(section.imported), load_denoiser, made,
            data=data, resolution=config.base_res,
        )  # fmt: skip
        return
    torch.manual_seed(config.seed)
    denoiser = Denoiser(unet_spec(config, len(data.card()["classes"])), config.diffusion.sigma_data)
    denoiser = place(denoiser, device)
    images, labels = open_images(data, "train"), data.array("train_labels")
    batches = ImageBatches(images, labels, device, reads_ahead(device))
    averages = power_averages(section.optim, denoiser)
    step = teacher_step(config, denoiser, batches, averages)
    compile_networks(section.optim, denoiser)
    train_network(
        config, "teacher", step, section.optim,
        replace(made, card=denoiser.card() | {"label_dropout": section.label_dropout} | made.card),
        inputs={"data": data},
        sections={"teacher": section, "diffusion": config.diffusion},
        averages=averages,
        ahead=step.prefetch if batches.ahead else None,
    )  # fmt: skip


def teacher_step(
    config: Config, denoiser: Denoiser, batches: ImageBatches, averages: PowerAverages | None = None
) -> TeacherStep:
    """The step of stage 1 from its configuration."""
    section, law = config.teacher, config.diffusion
    return TeacherStep(
        denoiser,
        batches,
        batch=section.optim.batch,
        optim=optim_spec(section.optim),
        p_mean=law.p_mean,
        p_std=law.p_std,
        clip=section.optim.clip,
        ema=section.optim.ema,
        precision=section.optim.precision,
        augment=section.augment,
        micro_batch=section.optim.micro_batch,
        averages=averages,
        label_dropout=section.label_dropout,
    )


def unet_spec(config: Config, num_classes: int) -> UNetSpec:
    """The teacher's network at the base resolution: levels down to ``lowest_res``."""
    net = config.teacher.network
    levels = (config.base_res // net.lowest_res).bit_length()
    return UNetSpec(
        resolution=config.base_res,
        channels=net.channels,
        channel_mult=tuple(net.channel_mult[:levels]),
        blocks=net.blocks,
        attention=tuple(net.attention),
        head_channels=net.head_channels,
        dropout=net.dropout,
        num_classes=num_classes,
        time_scale=net.time_scale,
        min_group=net.min_group,
        augment_labels=LABELS if config.teacher.augment else 0,
    )
