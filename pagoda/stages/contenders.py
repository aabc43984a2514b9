"""What an evaluation compares: trained generators, baselines and real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_float, to_uint8
from pagoda.data.store import open_images
from pagoda.diffusion.solver import edm_grid, nfe, sample
from pagoda.evaluation.streaming import subset
from pagoda.networks.denoiser import load_denoiser
from pagoda.networks.generator import Generator, build_generator, load_generator

Map = Callable[[Tensor, Tensor], Tensor]
"""Latents (n, 3, b, b) and labels (n,) -> uint8 images (n, 3, r, r)."""


@dataclass(frozen=True)
class Contender:
    """A source of images to be scored.

    Attributes:
        name: as result rows have it.
        labels: (n,) class of each image.
        nfe: network evaluations an image; None for real images.
        images: rows -> uint8 images (rows, 3, r, r).
    """

    name: str
    labels: np.ndarray
    nfe: int | None
    images: Callable[[slice], np.ndarray]

    @property
    def has_latents(self) -> bool:
        """Whether its image i comes from latent i, so that sheets can set it beside others."""
        return self.nfe is not None


def contenders(
    config: Config, resolution: int, inputs: dict[str, Artifact], device: torch.device
) -> list[Contender]:
    """Everything that is scored at one resolution, the main generator first."""
    at_base = resolution == config.base_res
    maps = _at_base(config, inputs, device) if at_base else _above_base(inputs, device)
    labels = np.arange(config.evaluate.samples) % len(inputs["data"].card()["classes"])
    made = [
        Contender(name, labels, evaluations, _sampler(config, labels, device, image_map))
        for name, (evaluations, image_map) in maps.items()
    ]
    return [*made, _real(config, inputs)]


def _at_base(
    config: Config, inputs: dict[str, Artifact], device: torch.device
) -> dict[str, tuple[int, Map]]:
    card, teacher = inputs["base"].card(), inputs["teacher"]
    start = card | {"unet": teacher.card()["unet"]}  # imported ones can differ in it

    def as_generator(weights: dict[str, Tensor], _: dict[str, Any]) -> Generator:
        return load_generator({k.removeprefix("net."): v for k, v in weights.items()}, start)

    steps = config.evaluate.teacher_steps
    return {
        "student": (1, _one_step(_trained(inputs["base"]), device)),
        "teacher": (nfe(steps, "heun"), _teacher(teacher, steps, device)),
        "untrained_teacher_weights": (1, _one_step(teacher.network(as_generator), device)),
        "untrained": (1, _one_step(untrained(card, config.evaluate.seed), device)),
    }


def _above_base(inputs: dict[str, Artifact], device: torch.device) -> dict[str, tuple[int, Map]]:
    grown, base = _trained(inputs["generator"]), _one_step(_trained(inputs["base"]), device)
    return {
        "grown": (1, _one_step(grown, device)),
        "upsampled_base": (1, lambda z, y: upsample(base(z, y), grown.resolution)),
    }


def untrained(card: dict[str, object], seed: int) -> Generator:
    """The generator of a card with random weights in every layer.

    Layers that training starts at zero are made random too: as initialised, every sample would be
    the same grey.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = build_generator(card)
        for module in generator.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    return generator.eval()


def upsample(images: Tensor, resolution: int) -> Tensor:
    """uint8 images -> uint8 images of another resolution, bilinear, half-pixel centres."""
    size = (resolution, resolution)
    return to_uint8(F.interpolate(to_float(images), size, mode="bilinear", align_corners=False))


def _trained(artifact: Artifact) -> Generator:
    return artifact.network(load_generator)


def _one_step(generator: Generator, device: torch.device) -> Map:
    generator = generator.to(device).to(memory_format=torch.channels_last)
    return lambda z, labels: to_uint8(generator(z, labels))


def _teacher(artifact: Artifact, steps: int, device: torch.device) -> Map:
    card = artifact.card()
    law = card["diffusion"]
    denoiser = artifact.network(load_denoiser)
    denoiser = denoiser.to(device).to(memory_format=torch.channels_last)
    grid = edm_grid(steps, law["sigma_min"], law["sigma_max"], law["rho"])
    return lambda z, labels: to_uint8(sample(denoiser, z * law["sigma_max"], grid, labels))


def _sampler(
    config: Config, labels: np.ndarray, device: torch.device, image_map: Map
) -> Callable[[slice], np.ndarray]:
    shape = (3, config.base_res, config.base_res)

    def images(rows: slice) -> np.ndarray:
        indices = np.arange(rows.start, rows.stop)
        z = torch.from_numpy(standard_normal(config.evaluate.seed, indices, shape)).to(device)
        y = torch.from_numpy(labels[rows]).to(device)
        return image_map(z.contiguous(memory_format=torch.channels_last), y).cpu().numpy()

    return images


def _real(config: Config, inputs: dict[str, Artifact]) -> Contender:
    """Real images that the reference has not seen: the floor of every distance."""
    split = "train" if inputs["reference"].card()["split"] == "test" else "test"
    images = open_images(inputs["data"], split)
    labels = inputs["data"].array(f"{split}_labels")
    kept = subset(len(images), config.evaluate.samples)
    return Contender("real", labels[kept], None, lambda rows: images[kept[rows]])
