"""What stages 2 and 3 share: a generator trained on pairs and against a discriminator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pagoda.artifacts import Artifact
from pagoda.config import Config, DiscriminatorConfig, LossConfig, OptimConfig
from pagoda.data.shards import open_rows
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.networks.generator import Generator, load_generator
from pagoda.stages.critics import build_discriminator, build_distance
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
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.one_step import OneStepSpec, OneStepStep
from pagoda.training.optim import OptimSpec
from pagoda.training.sharding import place

_OF_DISTANCE = ("distance", "backbones", "weights", "augment")
"""Keys of ``loss`` that say which distance is built."""


def pair_batches(latents: Artifact, images: Artifact, device: torch.device) -> PairBatches:
    """Batches of inverted latents and their real images, at the images' resolution.

    Raises:
        PagodaError: the latents are of images that were cut by another recipe, or that are not
            there, or of classes that are not.
    """
    recipe, of_latents = (a.card().get("recipe") for a in (images, latents))
    if recipe != of_latents:
        raise PagodaError(
            f"{images.path} was cut by the recipe {recipe}, the images of {latents.path} by "
            f"{of_latents}; 'dvc repro' makes all of them by data.recipe"
        )
    rows, pixels = open_rows(latents, "latents"), open_images(images, "train")
    limits = {"indices": len(pixels), "flips": 2, "labels": len(images.card()["classes"])}
    of = {name: _below(limit, latents, name, len(rows)) for name, limit in limits.items()}
    return PairBatches(
        latents=rows,
        images=pixels,
        **of,
        device=device,
        scale=latents.card()["to_normalised"],
        ahead=reads_ahead(device),
    )


def _below(limit: int, latents: Artifact, name: str, count: int) -> np.ndarray:
    """An array of an entry a latent, all from 0 to below ``limit``."""
    array = latents.array(name)
    if len(array) != count:
        raise PagodaError(
            f"{latents.path} has {count} latents and {len(array)} {name}; invert again"
        )
    bad = np.flatnonzero((array < 0) | (array >= limit))
    if len(bad):
        raise PagodaError(
            f"{latents.path}: {name} holds {array[bad[0]]} at row {bad[0]}, and the images allow 0 "
            f"to {limit - 1}; invert again"
        )
    return array


def take_generator(
    config: Config, stage: str, folder: Path, data: Artifact, resolution: int
) -> None:
    """Write the generator of ``resolution`` from imported weights instead of training it."""
    made = Trained(
        "generator", Paths(config).generator(resolution), _identity(config, resolution),
        {"trainable": 0},
    )  # fmt: skip
    take_network(config, stage, folder, load_generator, made, data=data, resolution=resolution)


def _identity(config: Config, resolution: int) -> dict[str, Any]:
    return {"name": config.name, "base_res": config.base_res, "resolution": resolution}


def one_step_spec(
    optim: OptimConfig, loss: LossConfig, d: DiscriminatorConfig, prior_batch: int
) -> OneStepSpec:
    """The objective of stages 2 and 3 from their configuration."""
    return OneStepSpec(
        batch=optim.batch, prior_batch=prior_batch, clip=optim.clip, ema=optim.ema,
        precision=optim.precision, r1=d.r1, r1_every=d.r1_every, augment=d.augment,
        micro_batch=optim.micro_batch,
        **{k: v for k, v in vars(loss).items() if k not in _OF_DISTANCE},
    )  # fmt: skip


def train_generator(
    config: Config,
    stage: str,
    generator: Generator,
    pairs: PairBatches,
    data: Artifact,
    optim: OptimConfig,
    loss: LossConfig,
    discriminator_config: DiscriminatorConfig,
    prior_batch: int,
    *,
    inputs: dict[str, Artifact],
    sections: dict[str, Any],
) -> None:
    """Train ``generator`` as stages 2 and 3 do and write its artifact and history.

    ``inputs["teacher"]`` is read if the discriminator is built on its encoder.
    """
    paths, device = Paths(config), pairs.device
    check_device(stage.partition("-")[0], optim, device)
    torch.manual_seed(config.seed)
    generator = place(generator, device)
    d = discriminator_config
    discriminator = build_discriminator(
        d, generator.resolution, generator.spec.num_classes, inputs["teacher"], config.seed
    )
    distance = build_distance(loss, config.seed)
    discriminator = discriminator.to(device).to(memory_format=torch.channels_last)
    averages = power_averages(optim, generator)
    step = OneStepStep(
        generator,
        discriminator,
        pairs,
        ImageBatches(open_images(data, "train"), data.array("train_labels"), device),
        one_step_spec(optim, loss, d, prior_batch),
        optim_spec(optim),
        OptimSpec(d.optimizer, d.lr, (d.beta1, d.beta2)),
        distance.to(device) if distance is not None else None,
        averages,
    )
    # R1 differentiates the discriminator twice, which compiled code cannot.
    compile_networks(optim, generator, *([] if d.r1 else [discriminator]))
    res = generator.resolution
    trainable = sum(p.numel() for p in generator.parameters() if p.requires_grad)
    card = {**generator.card(), "trainable": trainable, "loss": vars(loss)}
    train_network(
        config, stage, step, optim,
        Trained("generator", paths.generator(res), _identity(config, res), card),
        inputs=inputs, sections=sections, averages=averages,
        ahead=step.prefetch if pairs.ahead else None,
    )  # fmt: skip
