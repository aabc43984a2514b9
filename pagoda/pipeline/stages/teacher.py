"""Stage 1: train the diffusion teacher on downsampled images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pagoda.config import NO_WEIGHTS, Config
from pagoda.losses.edm_augment import LABELS
from pagoda.methods.teacher import Teacher
from pagoda.networks.captions import CaptionStates, CaptionTable, states_of
from pagoda.networks.denoiser import Denoiser, load_denoiser
from pagoda.networks.unet import UNetSpec
from pagoda.pipeline.stages.decoder import behind
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.made import open_made
from pagoda.pipeline.stages.progress import log_line
from pagoda.pipeline.stages.train import check_device, image_batches, take_network, train_stage
from pagoda.training.method import Given
from pagoda.training.sharding import place


def run(config: Config) -> None:
    """Train the denoiser, or take the imported one, and write the ``teacher`` artifact."""
    section, device = config.teacher, pick_device()
    if not config.growth:
        log_line(
            f"base_res = target_res = {config.base_res}: no growth, diffusion directly at the "
            "target; each doubling of base_res costs the teacher 4 times the time or more"
        )
    if section.imported == NO_WEIGHTS:
        check_device("teacher", section.optim, device)
    data = open_made(config, config.modelled(config.base_res))
    facts: dict[str, Any] = {"data": data.fingerprint, "diffusion": vars(config.diffusion)}
    if section.imported != NO_WEIGHTS:
        folder = Path(section.imported)
        take_network(config, "teacher", folder, load_denoiser, "teacher", facts, data)
        return
    torch.manual_seed(config.seed)
    denoiser = Denoiser(unet_spec(config, len(data.card()["classes"])), config.diffusion.sigma_data)
    if (captions := states_of(data)) is not None:
        denoiser = told(denoiser, captions)
    denoiser = place(denoiser, device)
    images = image_batches(device, data)
    method = Teacher(section, Given(denoiser, images, device, config.seed, config.diffusion))
    beside = behind(data)
    card = denoiser.card() | {"label_dropout": section.label_dropout} | facts | beside.card
    train_stage(
        config, "teacher", method, section.optim, "teacher", card, device=device,
        inputs={"data": data}, sections={"teacher": section, "diffusion": config.diffusion},
        code="teacher", beside=beside.weights,
    )  # fmt: skip


def told(denoiser: Denoiser, captions: CaptionStates) -> Denoiser:
    """The denoiser with captions for classes, and fresh weights."""
    spec = replace(denoiser.spec, num_classes=len(captions.tokens), captions=captions.shape)
    made = Denoiser(spec, denoiser.sigma_data)
    table = made.net.trunk.label
    assert isinstance(table, CaptionTable)
    table.fill(captions)
    return made


def unet_spec(config: Config, num_classes: int) -> UNetSpec:
    """The teacher's network at the base resolution: levels down to ``lowest_res``."""
    net = config.teacher.network
    side = config.base_res // config.factor
    levels = (side // net.lowest_res).bit_length()
    return UNetSpec(
        resolution=side,
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
        image_channels=config.image_channels,
    )
