"""Stage 2b: distil the one-step generator at the base resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.config import Config, DiscriminatorConfig, LossConfig, OptimConfig
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_uint8
from pagoda.diffusion.solver import edm_grid, sample
from pagoda.networks.denoiser import Denoiser, load_denoiser
from pagoda.networks.discriminator import ConvDiscriminator
from pagoda.networks.generator import Generator, generator_from_teacher
from pagoda.stages.device import pick_device
from pagoda.stages.paths import Paths
from pagoda.stages.progress import track
from pagoda.stages.scratch import stage_scratch
from pagoda.stages.teacher import loop_spec, optim_spec
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.checkpoint import Scratch
from pagoda.training.history import History
from pagoda.training.loop import train
from pagoda.training.one_step import OneStepSpec, OneStepStep
from pagoda.training.optim import OptimSpec


def run(config: Config) -> None:
    """Train the teacher-initialised generator and write the ``generator`` artifact."""
    paths, section, device = Paths(config), config.distill, pick_device()
    res = config.base_res
    identity = {"name": config.name, "base_res": res}
    data = artifacts.open_artifact(
        paths.data(res), "images", {"name": config.name, "resolution": res}
    )
    teacher = artifacts.open_artifact(paths.teacher, "teacher", identity)
    latents = artifacts.open_artifact(paths.latents, "latents", identity)
    denoiser = load_denoiser(teacher.weights(), teacher.card())
    generator = generator_from_teacher(
        denoiser, sigma_max=config.diffusion.sigma_max, output=section.output
    )
    pairs = pair_batches(latents, data, device)
    if section.loss.regression == "noise_to_data":
        pairs = teacher_pairs(config, denoiser.to(device), pairs)
    train_generator(
        config, "distill", generator, pairs, data, section.optim, section.loss,
        section.discriminator, section.prior_batch,
        inputs={"data": data, "teacher": teacher, "latents": latents},
        sections={"distill": section, "diffusion": config.diffusion},
    )  # fmt: skip


def pair_batches(latents: Artifact, images: Artifact, device: torch.device) -> PairBatches:
    """Batches of inverted latents and their real images, at the images' resolution."""
    return PairBatches(
        latents=latents.array("latents"),
        indices=latents.array("indices"),
        flips=latents.array("flips"),
        images=images.array("train_images"),
        labels=latents.array("labels"),
        device=device,
    )


@torch.inference_mode()
def teacher_pairs(config: Config, denoiser: Denoiser, pairs: PairBatches) -> PairBatches:
    """As many pairs (prior latent, teacher sample) as ``pairs`` has, with its labels.

    The targets of noise-to-data distillation (eq. 1), by Heun on ``distill.teacher_steps`` levels.
    """
    law, n = config.diffusion, len(pairs.latents)
    grid = edm_grid(config.distill.teacher_steps, law.sigma_min, law.sigma_max, law.rho)
    z = standard_normal(config.seed, np.arange(n), pairs.latents.shape[1:], "noise_to_data")
    images = np.empty(pairs.latents.shape, np.uint8)
    with track(n, "teacher samples") as bar:
        for i in range(0, n, config.invert.batch):
            rows = slice(i, i + config.invert.batch)
            x = torch.from_numpy(z[rows]).to(pairs.device) * law.sigma_max
            labels = torch.from_numpy(np.asarray(pairs.labels[rows])).to(pairs.device)
            images[rows] = to_uint8(sample(denoiser, x, grid, labels)).cpu().numpy()
            bar.advance(len(x))
    return PairBatches(
        latents=z,
        indices=np.arange(n),
        flips=np.zeros(n, np.uint8),
        images=images,
        labels=pairs.labels,
        device=pairs.device,
    )


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
    """Train ``generator`` as stages 2 and 3 do and write its artifact and history."""
    paths, device = Paths(config), pairs.device
    torch.manual_seed(config.seed)
    generator = generator.to(device, memory_format=torch.channels_last)
    discriminator = ConvDiscriminator(
        generator.resolution, discriminator_config.channels, discriminator_config.max_channels,
        generator.spec.num_classes,
    ).to(device, memory_format=torch.channels_last)  # fmt: skip
    d = discriminator_config
    step = OneStepStep(
        generator,
        discriminator,
        pairs,
        ImageBatches(data.array("train_images"), data.array("train_labels"), device),
        OneStepSpec(
            batch=optim.batch, prior_batch=prior_batch, clip=optim.clip, ema=optim.ema,
            precision=optim.precision, r1=d.r1, r1_every=d.r1_every, augment=d.augment,
            **vars(loss),
        ),
        optim_spec(optim),
        OptimSpec("adamw", d.lr, (d.beta1, d.beta2)),
    )  # fmt: skip
    folder = stage_scratch(stage, sections, inputs, seed=config.seed)
    scratch = Scratch(folder, step.modules, step.optimizers)
    with track(optim.images, stage) as bar:
        train(
            step,
            loop_spec(stage, optim, config.seed),
            scratch,
            lambda kept: History(paths.history(stage), kept),
            bar.advance,
        )
    res = generator.resolution
    identity = {"name": config.name, "base_res": config.base_res, "resolution": res}
    card = {
        **generator.card(),
        "images_seen": optim.images,
        "trainable": sum(p.numel() for p in generator.parameters() if p.requires_grad),
        "loss": vars(loss),
    }
    with artifacts.create(
        paths.generator(res), "generator", config=identity, inputs=inputs
    ) as out:
        artifacts.save_model(out, step.ema.model, card)
    scratch.discard()
