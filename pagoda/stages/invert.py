"""Stage 2a: invert real images to latents along the probability-flow ODE."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda import artifacts
from pagoda.config import Config
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_float
from pagoda.diffusion.solver import edm_grid, invert, nfe, sample
from pagoda.networks.denoiser import Denoiser, load_denoiser
from pagoda.stages.device import pick_device
from pagoda.stages.paths import Paths
from pagoda.stages.progress import track
from pagoda.training.history import History


def run(config: Config) -> None:
    """Invert the first ``invert.images`` training images and write the ``latents`` artifact."""
    paths, section, device = Paths(config), config.invert, pick_device()
    name = {"name": config.name}
    data = artifacts.open_artifact(
        paths.data(config.base_res), "images", name | {"resolution": config.base_res}
    )
    identity = name | {"base_res": config.base_res}
    teacher = artifacts.open_artifact(paths.teacher, "teacher", identity)
    denoiser = load_denoiser(teacher.weights(), teacher.card())
    inverter = Inverter(config, denoiser.to(device).to(memory_format=torch.channels_last), device)
    images, labels = data.array("train_images"), data.array("train_labels")
    count = min(section.images or len(images), len(images))
    flips = (0, 1) if section.flips else (0,)
    indices = np.repeat(np.arange(count), len(flips))
    mirrored = np.tile(np.array(flips, np.uint8), count)
    inputs = {"data": data, "teacher": teacher}
    with artifacts.create(paths.latents, "latents", config=identity, inputs=inputs) as out:
        shape = (len(indices), *images.shape[1:])
        latents = artifacts.create_array(out / "latents.npy", np.float32, shape)
        with track(len(indices), "invert") as bar, History(paths.history("invert")) as history:
            start = time.monotonic()
            for i in range(0, len(indices), section.batch):
                rows = slice(i, i + section.batch)
                x = _load(images, indices[rows], mirrored[rows], device)
                y = torch.from_numpy(labels[indices[rows]]).to(device)
                z = inverter(x, y, indices[rows] * 2 + mirrored[rows])
                latents[rows] = z.cpu().numpy()
                bar.advance(len(z))
                done = min(i + section.batch, len(indices))
                history.write(images=done, step=done, seconds=time.monotonic() - start)
            card = inverter.card(latents, images, labels, indices, mirrored)
            moments = {k: card[k] for k in ("latent_mean", "latent_std", "latent_kurtosis")}
            history.write(
                images=len(indices), step=len(indices), seconds=time.monotonic() - start,
                round_trip_mse=card["round_trip_mse"], **moments,
            )  # fmt: skip
        del latents  # written out
        np.save(out / "indices.npy", indices.astype(np.int64))
        np.save(out / "flips.npy", mirrored)
        np.save(out / "labels.npy", labels[indices].astype(np.int64))
        artifacts.write_json(out / "card.json", card)


class Inverter:
    """Images to latents x(sigma_max) / sigma_max with one teacher and one grid."""

    def __init__(self, config: Config, denoiser: Denoiser, device: torch.device) -> None:
        self.config, self.section, self.device = config, config.invert, device
        law = config.diffusion
        self.grid = edm_grid(self.section.steps, law.sigma_min, law.sigma_max, law.rho)
        self._net = denoiser

    def denoiser(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """The teacher, clamped to [-1, 1] if the configuration says so."""
        out = self._net(x, sigma, labels)
        return out.clamp(-1, 1) if self.section.clamp else out

    @torch.inference_mode()
    def __call__(self, x: Tensor, labels: Tensor, keys: np.ndarray) -> Tensor:
        """x (n, 3, b, b) in [-1, 1] -> latents.

        With ``invert.noise`` = s > 0 noise of that size is added first and the ODE starts at s;
        ``keys`` (n,) choose it.
        """
        grid = self.grid
        if start := self.section.noise:
            law = self.config.diffusion
            grid = edm_grid(self.section.steps, start, law.sigma_max, law.rho)
            noise = standard_normal(self.config.seed, keys, tuple(x.shape[1:]), "invert")
            x = x + start * torch.from_numpy(noise).to(x)
        return invert(self.denoiser, x, grid, labels, self.section.solver) / grid[0].item()

    @torch.inference_mode()
    def round_trip(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents back to images, by the same solver and grid."""
        return sample(
            self.denoiser, z * self.grid[0].item(), self.grid, labels, self.section.solver
        )

    def card(
        self,
        latents: np.ndarray,
        images: np.ndarray,
        labels: np.ndarray,
        indices: np.ndarray,
        flips: np.ndarray,
    ) -> dict[str, Any]:
        """Round-trip error (pixels in [-1, 1]) and the moments of the latents.

        Latents of a perfect teacher and dithered images are standard normal: mean 0, standard
        deviation 1, kurtosis 3.
        """
        n = min(self.section.round_trip_images, len(latents))
        errors = []
        for i in range(0, n, self.section.batch):
            rows = slice(i, min(i + self.section.batch, n))
            x = _load(images, indices[rows], flips[rows], self.device)
            z = torch.from_numpy(np.asarray(latents[rows])).to(self.device)
            y = torch.from_numpy(labels[indices[rows]]).to(self.device)
            errors.append((self.round_trip(z, y) - x).square().flatten(1).mean(1))
        sample_of = np.asarray(latents[:4096], np.float64)
        mean, std = float(sample_of.mean()), float(sample_of.std())
        kurtosis = float((((sample_of - mean) / std) ** 4).mean())
        section = self.section
        return {
            "units": "x(sigma_max) / sigma_max",
            "solver": section.solver,
            "steps": section.steps,
            "nfe": nfe(section.steps, section.solver, inverse=True),
            "noise": section.noise,
            "clamp": section.clamp,
            "round_trip_images": n,
            "round_trip_mse": float(torch.cat(errors).double().mean()),
            "latent_mean": mean,
            "latent_std": std,
            "latent_kurtosis": kurtosis,
        }


def _load(
    images: np.ndarray, indices: np.ndarray, flips: np.ndarray, device: torch.device
) -> Tensor:
    x = to_float(torch.from_numpy(np.asarray(images[indices])).to(device))
    mirror = torch.from_numpy(flips > 0).to(device)[:, None, None, None]
    return torch.where(mirror, x.flip(3), x).contiguous(memory_format=torch.channels_last)
