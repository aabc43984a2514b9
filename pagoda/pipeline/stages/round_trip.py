"""Where inversion loses an image: the round-trip error, whole and of its fine detail."""

from __future__ import annotations

import numpy as np
import torch

from pagoda.config import Config
from pagoda.data.pixels import to_uint8
from pagoda.data.shards import open_rows
from pagoda.data.store import open_images
from pagoda.diffusion.solver import edm_grid, sample
from pagoda.evaluation.metrics.high_frequency import high_frequency_energy, high_frequency_error
from pagoda.evaluation.samplers import decoding
from pagoda.networks.denoiser import load_denoiser
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.invert import solved
from pagoda.pipeline.stages.made import open_made


@torch.inference_mode()
def round_trip_errors(config: Config) -> dict[str, tuple[str, float]]:
    """Image -> latent -> image, back along the grid and solver of the inversion.

    ``round_trip``: mean squared error, pixels in [-1, 1]. ``round_trip_hf``: its part above half
    the Nyquist frequency, of luminance. ``round_trip_hf_ratio``: high-frequency energy of the
    returned images over that of the originals; 1 if no detail is lost or added. Of a model of codes
    the autoencoder's own errors are in them.
    """
    schedule, section, device = config.diffusion, config.invert, pick_device()
    data, latents = open_made(config, f"data/{config.base_res}"), open_made(config, "latents")
    teacher = open_made(config, "teacher")
    denoiser = teacher.network(load_denoiser).to(device)
    decode, _ = decoding(teacher, device)
    grid = edm_grid(section.steps, schedule.sigma_min, schedule.sigma_max, schedule.rho)
    stored, card = open_rows(latents, "latents"), latents.card()
    weights = None if card.get("guidance_max") is None else latents.array("weights")
    n = min(section.round_trip_images, len(stored))
    images = np.array(open_images(data, "train")[latents.array("indices")[:n]])
    mirrored = latents.array("flips")[:n] > 0
    images[mirrored] = images[mirrored][..., ::-1]
    labels = torch.from_numpy(np.array(latents.array("labels")[:n]))
    parts = []
    for i in range(0, n, section.batch):
        part = slice(i, min(i + section.batch, n))
        z = torch.from_numpy(stored[part].astype(np.float32) * card["to_normalised"])
        x = z.to(device) * schedule.sigma_max
        weight = None if weights is None else torch.from_numpy(np.array(weights[part])).to(device)
        network = solved(section, denoiser, weight)
        made = sample(network, x, grid, labels[part].to(device), section.solver)
        parts.append(to_uint8(decode(made)))
    back = torch.cat(parts).cpu().numpy()
    mse = float(np.square((back.astype(np.float32) - images) / 127.5).mean())
    ratio = high_frequency_energy(back) / max(high_frequency_energy(images), 1e-12)
    return {
        "round_trip": (f"round_trip_mse_{n}", mse),
        "round_trip_hf": (f"round_trip_hf_mse_{n}", high_frequency_error(back, images)),
        "round_trip_hf_ratio": (f"round_trip_hf_ratio_{n}", ratio),
    }
