"""Stage 2a: invert real images to latents along the probability-flow ODE."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda import artifacts, distributed
from pagoda.config import Config, InvertConfig
from pagoda.config.paths import Paths
from pagoda.data.noise import dithered, uniform
from pagoda.data.pixels import seen
from pagoda.data.shards import ShardedArray, shard_names
from pagoda.data.store import Images, open_images
from pagoda.diffusion.solver import clamped, edm_grid, guided, invert, nfe, sample
from pagoda.errors import PagodaError
from pagoda.networks.denoiser import Denoiser, load_denoiser
from pagoda.outputs import link_or_copy
from pagoda.pipeline.stages.decoder import behind, check_codes
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.filled import Filled, history_of
from pagoda.pipeline.stages.made import identity, open_made
from pagoda.pipeline.stages.scratch import stage_scratch
from pagoda.training.player import autocast

_DTYPES = {"fp32": "float32", "fp16": "float16"}
_TOLD = ("dtype", "precision", "solver", "steps", "guidance", "noise", "clamp")  # in the card


@dataclass(frozen=True)
class Rows:
    """What row i of the store is: which image, mirrored or not, its class, and the weight of the
    guidance where they differ.
    """

    indices: np.ndarray
    flips: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)


def run(config: Config) -> None:
    """Invert the first ``invert.images`` training images and write the ``latents`` artifact.

    Several processes share the work if a launcher such as ``torchrun`` started them. A run that
    was stopped goes on after the last finished batch. Batches are cut in the same places whatever
    the number of processes, so the latents are the same bits.
    """
    with distributed.group():
        paths, device = Paths(config), pick_device()
        artifacts.check_out(paths.latents, "latents")
        data, teacher = (
            open_made(config, key) for key in (config.modelled(config.base_res), "teacher")
        )
        check_codes(data, teacher)
        if config.invert.guided and not teacher.card().get("label_dropout"):
            key = "guidance" if config.invert.guidance != 1 else "guidance_max"
            raise PagodaError(
                f"invert.{key} = {config.invert.costliest:g}, but {teacher.path} was trained "
                "with every class told; train it with teacher.label_dropout=0.1 or set it to 1"
            )
        inputs = {"data": data, "teacher": teacher}
        denoiser = teacher.network(load_denoiser).to(device)
        inverter = Inverter(config, denoiser.to(memory_format=torch.channels_last), device)
        images = open_images(data, "train")
        rows = _rows(config.invert, data.array("train_labels"), config.seed)
        sections = {"invert": config.invert, "diffusion": config.diffusion}
        folder = stage_scratch("invert", sections, inputs, seed=config.seed)
        section = config.invert
        store = Filled(folder, "latents", _DTYPES[section.dtype], (len(rows), *images.shape[-3:]),
                       section.shard, section.batch)  # fmt: skip
        with history_of(paths.history("invert"), folder, store.finished) as history:
            store.fill(_maker(inverter, images, rows), "invert", history)
            if distributed.is_main_process():
                card = inverter.card(store.rows, images, rows) | {"recipe": data.card()["recipe"]}
                card |= behind(data).card
                moments = {k: card[k] for k in ("latent_mean", "latent_std", "latent_kurtosis")}
                history(len(rows), round_trip_mse=card["round_trip_mse"], **moments)
        if distributed.is_main_process():
            of = identity(config, "latents")
            with artifacts.create(paths.latents, "latents", config=of, inputs=inputs) as out:
                _write(out, folder, config.invert, rows, card)
            shutil.rmtree(folder)


def _rows(section: InvertConfig, labels: np.ndarray, seed: int) -> Rows:
    count = min(section.images or len(labels), len(labels))
    flips = np.array((0, 1) if section.flips else (0,), np.uint8)
    indices = np.repeat(np.arange(count), len(flips))
    mirrored, weights = np.tile(flips, count), None
    if section.guidance_max is not None:
        weights = uniform(seed, indices * 2 + mirrored, *section.weight_range, "guidance")
    return Rows(indices, mirrored, labels[indices].astype(np.int64), weights)


def _maker(inverter: Inverter, images: Images, rows: Rows) -> Callable[[slice], np.ndarray]:
    """Latents of rows, in the type of the store."""
    device, dtype = inverter.device, np.dtype(_DTYPES[inverter.section.dtype])

    def make(part: slice) -> np.ndarray:
        index, flips = rows.indices[part], rows.flips[part]
        x = _load(images, index, flips, device)
        y = torch.from_numpy(rows.labels[part]).to(device)
        z = inverter(x, y, index * 2 + flips, _weights(rows, part, device))
        return _stored(z, dtype, index, flips)

    return make


def _stored(z: Tensor, dtype: np.dtype, indices: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Latents in the type of the store, in which they must be finite."""
    with np.errstate(over="ignore"):
        latents: np.ndarray = z.cpu().numpy().astype(dtype)
    bad = np.flatnonzero(~np.isfinite(latents).reshape(len(latents), -1).all(1))
    if len(bad):
        mirrored = " mirrored" * int(flips[bad[0]])
        raise PagodaError(
            f"invert: latents of {len(bad)} of {len(latents)} images are not finite, the first of "
            f"training image {indices[bad[0]]}{mirrored}; the teacher is damaged, or its numbers "
            "are too large for invert.precision or invert.dtype: set them to fp32 or train it anew"
        )
    return latents


def _write(
    out: Path, folder: Path, section: InvertConfig, rows: Rows, card: dict[str, Any]
) -> None:
    """The files of the artifact. Latents are linked: scratch stays whole until all is well."""
    np.save(out / "indices.npy", rows.indices.astype(np.int64))
    np.save(out / "flips.npy", rows.flips)
    np.save(out / "labels.npy", rows.labels)
    if rows.weights is not None:
        np.save(out / "weights.npy", rows.weights)
    artifacts.write_json(out / "card.json", card)
    for name in shard_names("latents", len(rows), section.shard):
        link_or_copy(folder / name, out / name)


def guided_by(
    section: InvertConfig, denoiser: Callable[..., Tensor], weights: Tensor | None
) -> Callable[..., Tensor]:
    """The denoiser under the weights (n,) of images, or under the one weight of all."""
    weight = section.guidance if weights is None else weights
    return guided(denoiser, weight if section.guided else 1.0)


def solved(
    section: InvertConfig, denoiser: Callable[..., Tensor], weights: Tensor | None
) -> Callable[..., Tensor]:
    """The denoiser whose ODE the inversion solves."""
    network = guided_by(section, denoiser, weights)
    return clamped(network) if section.clamp else network


class Inverter:
    """Images to latents with one teacher and one grid."""

    def __init__(self, config: Config, denoiser: Denoiser, device: torch.device) -> None:
        self.config, self.section, self.device = config, config.invert, device
        self.grid = self._grid(config.diffusion.sigma_min)
        self.network = denoiser

    def _grid(self, start: float) -> Tensor:
        schedule = self.config.diffusion
        return edm_grid(self.section.steps, start, schedule.sigma_max, schedule.rho)

    @torch.inference_mode()
    def __call__(
        self, x: Tensor, labels: Tensor, keys: np.ndarray, weights: Tensor | None = None
    ) -> Tensor:
        """x (n, 3, b, b) in [-1, 1] -> latents in the units of ``invert.units``.

        With ``invert.noise`` = s > 0 noise of that size is added first and the ODE starts at s;
        ``keys`` (n,) choose it.
        """
        grid = self.grid
        if start := self.section.noise:
            grid = self._grid(start)
            x = dithered(x, start, self.config.seed, keys)
        with autocast(self.device, self.section.precision):
            z = invert(
                solved(self.section, self.network, weights), x, grid, labels, self.section.solver
            )
        return z if self.section.units == "raw" else z / grid[0].item()

    @torch.inference_mode()
    def round_trip(self, z: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Normalised latents back to images, by the same solver and grid."""
        x = z * self.grid[0].item()
        with autocast(self.device, self.section.precision):
            network = solved(self.section, self.network, weights)
            return sample(network, x, self.grid, labels, self.section.solver)

    def card(self, latents: ShardedArray, images: Images, of: Rows) -> dict[str, Any]:
        """Round-trip error (pixels in [-1, 1]) and the moments of the normalised latents.

        Latents of a perfect teacher and dithered images are standard normal: mean 0, standard
        deviation 1, kurtosis 3.
        """
        section, raw = self.section, self.section.units == "raw"
        scale = 1 / self.grid[0].item() if raw else 1.0
        n = min(section.round_trip_images, len(latents))
        errors = []
        for i in range(0, n, section.batch):
            rows = slice(i, min(i + section.batch, n))
            x = _load(images, of.indices[rows], of.flips[rows], self.device)
            z = torch.from_numpy(latents[rows].astype(np.float32)).to(self.device) * scale
            y = torch.from_numpy(of.labels[rows]).to(self.device)
            back = self.round_trip(z, y, _weights(of, rows, self.device))
            errors.append((back - x).square().flatten(1).mean(1))
        sample_of = latents[:4096].astype(np.float64) * scale
        mean, std = float(sample_of.mean()), float(sample_of.std())
        kurtosis = float((((sample_of - mean) / std) ** 4).mean())
        return {
            "units": "x(sigma_max)" if raw else "x(sigma_max) / sigma_max",
            "to_normalised": scale,
            **{key: getattr(section, key) for key in _TOLD},
            **({} if of.weights is None else {"guidance_max": section.guidance_max}),
            "nfe": nfe(section.steps, section.solver, inverse=True, guidance=section.costliest),
            "round_trip_images": n,
            "round_trip_mse": float(torch.cat(errors).double().mean()),
            "latent_mean": mean,
            "latent_std": std,
            "latent_kurtosis": kurtosis,
        }


def _weights(rows: Rows, part: slice, device: torch.device) -> Tensor | None:
    return None if rows.weights is None else torch.from_numpy(rows.weights[part]).to(device)


def _load(images: Images, indices: np.ndarray, flips: np.ndarray, device: torch.device) -> Tensor:
    stored = torch.from_numpy(np.asarray(images[indices])).to(device)
    mirror = torch.from_numpy(flips > 0).to(device)
    return seen(stored, mirror).contiguous(memory_format=torch.channels_last)
