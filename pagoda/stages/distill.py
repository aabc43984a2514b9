"""Stage 2b: distil the one-step generator at the base resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pagoda import artifacts
from pagoda.config import NO_WEIGHTS, Config
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_uint8
from pagoda.diffusion.solver import edm_grid, guided, sample
from pagoda.networks.denoiser import Denoiser, load_denoiser
from pagoda.networks.generator import generator_from_teacher
from pagoda.stages.device import pick_device
from pagoda.stages.paths import Paths
from pagoda.stages.progress import track
from pagoda.stages.train_generator import pair_batches, take_generator, train_generator
from pagoda.training.batches import PairBatches


def run(config: Config) -> None:
    """Train the teacher-initialised generator, or take one, and write its ``generator`` artifact.

    An imported one needs neither teacher nor latents.
    """
    paths, section, device = Paths(config), config.distill, pick_device()
    res = config.base_res
    identity = {"name": config.name, "base_res": res}
    data = artifacts.open_artifact(
        paths.data(res), "images", {"name": config.name, "resolution": res}
    )
    if section.imported != NO_WEIGHTS:
        take_generator(config, "distill", Path(section.imported), data, res)
        return
    teacher = artifacts.open_artifact(paths.teacher, "teacher", identity)
    latents = artifacts.open_artifact(paths.latents, "latents", identity)
    denoiser = teacher.network(load_denoiser)
    generator = generator_from_teacher(
        denoiser, sigma_max=config.diffusion.sigma_max, output=section.output,
        dropout=section.dropout,
    )  # fmt: skip
    pairs = pair_batches(latents, data, device).thinned(section.pair_share)
    if section.loss.regression == "noise_to_data":
        pairs = teacher_pairs(config, denoiser.to(device), pairs)
    train_generator(
        config, "distill", generator, pairs, data, section.optim, section.loss,
        section.discriminator, section.prior_batch,
        inputs={"data": data, "teacher": teacher, "latents": latents},
        sections={"distill": section, "diffusion": config.diffusion},
    )  # fmt: skip


@torch.inference_mode()
def teacher_pairs(config: Config, denoiser: Denoiser, pairs: PairBatches) -> PairBatches:
    """As many pairs (prior latent, teacher sample) as ``pairs`` has, with its labels.

    The targets of noise-to-data distillation (eq. 1), by Heun on ``distill.teacher_steps`` levels.
    """
    law, n = config.diffusion, len(pairs.latents)
    teacher = guided(denoiser, config.invert.guidance)
    grid = edm_grid(config.distill.teacher_steps, law.sigma_min, law.sigma_max, law.rho)
    z = standard_normal(config.seed, np.arange(n), pairs.latents.shape[1:], "noise_to_data")
    images = np.empty(pairs.latents.shape, np.uint8)
    with track(n, "teacher samples") as bar:
        for i in range(0, n, config.invert.batch):
            rows = slice(i, i + config.invert.batch)
            x = torch.from_numpy(z[rows]).to(pairs.device) * law.sigma_max
            labels = torch.from_numpy(np.array(pairs.labels[rows])).to(pairs.device)
            images[rows] = to_uint8(sample(teacher, x, grid, labels)).cpu().numpy()
            bar.advance(len(x))
    return PairBatches(
        latents=z,
        indices=np.arange(n),
        flips=np.zeros(n, np.uint8),
        images=images,
        labels=pairs.labels,
        device=pairs.device,
    )
