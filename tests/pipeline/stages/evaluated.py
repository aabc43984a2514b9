"""What an evaluation of untrained networks read and wrote."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_uint8
from pagoda.networks.generator import Generator, load_generator

SAMPLES, CLASSES = 64, 10


def evaluation(config: Config, resolution: int) -> Artifact:
    expect = {"name": config.name, "base_res": config.base_res, "resolution": resolution}
    return artifacts.open_artifact(Paths(config).evaluation(resolution), "evaluation", expect)


def values(config: Config, resolution: int) -> dict[tuple[str, str], dict[str, Any]]:
    rows = evaluation(config, resolution).json("results")["rows"]
    return {(row["generator"], row["metric"]): row for row in rows}


def generator_of(config: Config, resolution: int) -> Generator:
    artifact = artifacts.open_artifact(Paths(config).generator(resolution), "generator")
    return load_generator(artifact.weights(), artifact.card())


def prior(config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (3, config.base_res, config.base_res)
    z = standard_normal(config.evaluate.seed, np.arange(SAMPLES), shape)
    return torch.from_numpy(z), torch.arange(SAMPLES) % CLASSES


def images_of(config: Config, resolution: int, split: str = "train") -> np.ndarray:
    data = artifacts.open_artifact(Paths(config).data(resolution), "images")
    return np.array(data.array(f"{split}_images"))


@torch.inference_mode()
def drawn(config: Config, resolution: int) -> torch.Tensor:
    """What the generator of a resolution makes of the shared latents."""
    return to_uint8(generator_of(config, resolution)(*prior(config)))


def changed(config: Config, section: str, **keys: Any) -> Config:
    new = dataclasses.replace(getattr(config, section), **keys)
    return dataclasses.replace(config, **{section: new})
