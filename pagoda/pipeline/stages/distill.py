"""Stage 2b: distil the one-step generator at the base resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pagoda.config import NO_WEIGHTS, Config
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_uint8
from pagoda.diffusion.solver import edm_grid, sample
from pagoda.networks.denoiser import Denoiser, load_denoiser
from pagoda.networks.generator import generator_from_teacher, load_generator
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.invert import guided_by
from pagoda.pipeline.stages.made import open_made
from pagoda.pipeline.stages.progress import track
from pagoda.pipeline.stages.train import pair_batches, take_network, train_generator
from pagoda.training.batches import PairBatches


def run(config: Config) -> None:
    """Train the teacher-initialised generator, or take one, and write its ``generator`` artifact.

    An imported one needs neither teacher nor latents.
    """
    section, res = config.distill, config.base_res
    data = open_made(config, config.modelled(res))
    if section.imported != NO_WEIGHTS:
        folder, card = Path(section.imported), {"trainable": 0}
        take_network(config, "distill", folder, load_generator, f"gen/{res}", card, data)
        return
    teacher, latents = open_made(config, "teacher"), open_made(config, "latents")
    denoiser = teacher.network(load_denoiser)
    generator = generator_from_teacher(
        denoiser, sigma_max=config.diffusion.sigma_max, output=section.output,
        dropout=section.dropout,
    )  # fmt: skip
    pairs = pair_batches(latents, data, pick_device()).thinned(section.pair_share)
    train_generator(
        config, "distill", section, generator, pairs,
        inputs={"data": data, "teacher": teacher, "latents": latents},
        sections={"distill": section, "diffusion": config.diffusion},
        teacher_pairs=lambda: teacher_pairs(config, denoiser, pairs),
    )  # fmt: skip


@torch.inference_mode()
def teacher_pairs(config: Config, denoiser: Denoiser, pairs: PairBatches) -> PairBatches:
    """As many pairs (prior latent, teacher sample) as ``pairs`` has, with its labels and weights.

    The targets of noise-to-data distillation (eq. 1), by Heun on ``distill.teacher_steps`` levels.
    """
    noise, n, device = config.diffusion, len(pairs), pairs.device
    denoiser = denoiser.to(device)
    grid = edm_grid(config.distill.teacher_steps, noise.sigma_min, noise.sigma_max, noise.rho)
    z = standard_normal(config.seed, np.arange(n), pairs.latents.shape[1:], "noise_to_data")
    images = np.empty(pairs.latents.shape, np.float32 if config.latent else np.uint8)
    with track(n, "teacher samples") as bar:
        for i in range(0, n, config.invert.batch):
            rows = slice(i, i + config.invert.batch)
            x = torch.from_numpy(z[rows]).to(device) * noise.sigma_max
            labels = torch.from_numpy(np.array(pairs.labels[rows])).to(device)
            weights = None if pairs.weights is None else pairs.weights_of(np.arange(n)[rows])
            teacher = guided_by(config.invert, denoiser, weights)
            made = sample(teacher, x, grid, labels)
            images[rows] = (made if config.latent else to_uint8(made)).cpu().numpy()
            bar.advance(len(x))
    return PairBatches(
        latents=z, indices=np.arange(n), flips=np.zeros(n, np.uint8), images=images,
        labels=pairs.labels, device=device, ahead=False, weights=pairs.weights,
        weight_range=pairs.weight_range,
    )  # fmt: skip
