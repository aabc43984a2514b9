"""Stage 2b: distil the one-step generator at the base resolution."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from pagoda import distributed
from pagoda.artifacts import Artifact
from pagoda.config import NO_WEIGHTS, Config
from pagoda.data.noise import NormalRows
from pagoda.data.pixels import to_uint8
from pagoda.diffusion.solver import edm_grid, sample
from pagoda.networks.denoiser import Denoiser, load_denoiser
from pagoda.networks.generator import generator_from_teacher, load_generator
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.filled import Filled
from pagoda.pipeline.stages.invert import guided_by
from pagoda.pipeline.stages.made import open_made
from pagoda.pipeline.stages.scratch import stage_scratch
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
    inputs = {"data": data, "teacher": teacher, "latents": latents}
    made: list[Path] = []

    def sampled() -> PairBatches:
        made.append(_pairs_folder(config, inputs))
        return teacher_pairs(config, denoiser, pairs, made[0])

    train_generator(
        config, "distill", section, generator, pairs, inputs=inputs,
        sections={"distill": section, "diffusion": config.diffusion}, teacher_pairs=sampled,
    )  # fmt: skip
    for folder in made if distributed.is_main_process() else ():
        shutil.rmtree(folder, ignore_errors=True)


def _pairs_folder(config: Config, inputs: dict[str, Artifact]) -> Path:
    """In scratch, by all that :func:`teacher_pairs` depend on."""
    section, guidance = config.distill, config.invert
    return stage_scratch(
        "distill-pairs", {"diffusion": config.diffusion}, inputs, seed=config.seed,
        teacher_steps=section.teacher_steps, pair_share=section.pair_share,
        guidance=guidance.guidance, guidance_max=guidance.guidance_max, batch=guidance.batch,
    )  # fmt: skip


@torch.inference_mode()
def teacher_pairs(
    config: Config, denoiser: Denoiser, pairs: PairBatches, folder: Path
) -> PairBatches:
    """As many pairs (prior latent, teacher sample) as ``pairs`` has, with its labels and weights.

    The targets of noise-to-data distillation (eq. 1), by Heun on ``distill.teacher_steps`` levels.
    Processes share the work; samples are kept in ``folder``, so that a stop loses none.
    """
    noise, n, device, section = config.diffusion, len(pairs), pairs.device, config.invert
    denoiser = denoiser.to(device)
    grid = edm_grid(config.distill.teacher_steps, noise.sigma_min, noise.sigma_max, noise.rho)
    z = NormalRows(config.seed, (n, *pairs.latents.shape[1:]), "noise_to_data")
    samples = Filled(folder, "samples", "float32" if config.latent else "uint8",
                     (n, *pairs.latents.shape[1:]), section.shard, section.batch)  # fmt: skip

    def make(rows: slice) -> np.ndarray:
        x = torch.from_numpy(z[rows]).to(device) * noise.sigma_max
        labels = torch.from_numpy(np.array(pairs.labels[rows])).to(device)
        weights = None if pairs.weights is None else pairs.weights_of(np.arange(n)[rows])
        made = sample(guided_by(section, denoiser, weights), x, grid, labels)
        return np.asarray((made if config.latent else to_uint8(made)).cpu().numpy())

    samples.fill(make, "teacher samples")
    return PairBatches(
        latents=z, indices=np.arange(n), flips=np.zeros(n, np.uint8), images=samples.rows,
        labels=pairs.labels, device=device, weights=pairs.weights, weight_range=pairs.weight_range,
    )  # fmt: skip
