"""Stage 1: train the diffusion teacher on downsampled images."""

from __future__ import annotations

import sys

import torch

from pagoda import artifacts, processes
from pagoda.config import Config
from pagoda.data.store import open_images
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.unet import UNetSpec
from pagoda.objectives.edm_augment import LABELS
from pagoda.stages.device import pick_device
from pagoda.stages.optim import (
    check_device,
    compile_networks,
    keep_snapshots,
    loop_spec,
    optim_spec,
    power_averages,
    reads_ahead,
)
from pagoda.stages.paths import Paths
from pagoda.stages.progress import track
from pagoda.stages.revision import package_revision
from pagoda.stages.scratch import HISTORY, SNAPSHOTS, stage_scratch
from pagoda.training.batches import ImageBatches
from pagoda.training.checkpoint import Scratch
from pagoda.training.history import History
from pagoda.training.loop import train
from pagoda.training.teacher import TeacherStep


def run(config: Config) -> None:
    """Train the denoiser and write the ``teacher`` artifact."""
    paths, section, device = Paths(config), config.teacher, pick_device()
    if not config.growth:
        sys.stderr.write(
            f"base_res = target_res = {config.base_res}: no growth, diffusion directly at the "
            "target; each doubling of base_res costs the teacher 4 times the time or more\n"
        )
    check_device("teacher", section.optim, device)
    expect = {"name": config.name, "resolution": config.base_res}
    data = artifacts.open_artifact(paths.data(config.base_res), "images", expect)
    torch.manual_seed(config.seed)
    denoiser = Denoiser(unet_spec(config, len(data.card()["classes"])), config.diffusion.sigma_data)
    denoiser = denoiser.to(device).to(memory_format=torch.channels_last)
    images, labels = open_images(data, "train"), data.array("train_labels")
    batches = ImageBatches(images, labels, device, reads_ahead(device))
    averages = power_averages(section.optim, denoiser)
    step = TeacherStep(
        denoiser,
        batches,
        batch=section.optim.batch,
        optim=optim_spec(section.optim),
        p_mean=config.diffusion.p_mean,
        p_std=config.diffusion.p_std,
        clip=section.optim.clip,
        ema=section.optim.ema,
        precision=section.optim.precision,
        augment=section.augment,
        micro_batch=section.optim.micro_batch,
        averages=averages,
    )
    compile_networks(section.optim, denoiser)
    folder = stage_scratch(
        "teacher",
        {"teacher": section, "diffusion": config.diffusion},
        {"data": data},
        seed=config.seed,
    )
    if averages:
        averages.folder = folder / SNAPSHOTS
    scratch = Scratch(folder, step.modules, step.optimizers)
    with track(section.optim.images, "teacher") as bar:
        train(
            step,
            loop_spec("teacher", section.optim, config.seed),
            scratch,
            lambda kept: History(paths.history("teacher"), kept, folder / HISTORY),
            bar.advance,
            step.prefetch if batches.ahead else None,
        )
    card = {**denoiser.card(), "images_seen": section.optim.images, "data": data.fingerprint,
            "diffusion": vars(config.diffusion)}  # fmt: skip
    if not processes.first():
        return
    identity = {"name": config.name, "base_res": config.base_res}
    with artifacts.create(
        paths.teacher, "teacher", config=identity, inputs={"data": data},
        revision=package_revision(),
    ) as out:  # fmt: skip
        artifacts.save_model(out, step.ema.model, card)
        keep_snapshots(averages, out)
    scratch.discard()


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
