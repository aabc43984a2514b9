"""What judges the generator, from the configuration: discriminator and distance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pagoda.artifacts import Artifact
from pagoda.config import DiscriminatorConfig, LossConfig
from pagoda.errors import PagodaError
from pagoda.losses.distances import L1Distance, LpipsDistance, ProjectedDistance
from pagoda.networks.denoiser import load_denoiser
from pagoda.networks.discriminators import (
    ConvDiscriminator,
    Discriminator,
    EncoderDiscriminator,
    ProjectedDiscriminator,
)


def build_discriminator(
    section: DiscriminatorConfig, resolution: int, classes: int, teacher: Artifact, seed: int
) -> Discriminator:
    """The discriminator of ``section.kind`` for images of one resolution.

    Args:
        classes: number of classes.
        teacher: read for the ``encoder`` kind only.
        seed: of random projections.
    """
    if section.kind == "projected":
        table = section.class_embedding
        embedding = None if table is None else _class_embedding(Path(table), classes)
        return ProjectedDiscriminator(section.backbones, section.weights, classes, seed, embedding)
    if section.kind == "encoder":
        denoiser = teacher.network(load_denoiser)
        return EncoderDiscriminator(denoiser, section.sigma, classes, section.max_channels)
    return ConvDiscriminator(resolution, section.channels, section.max_channels, classes)


def build_distance(loss: LossConfig, seed: int) -> nn.Module | None:
    """The distance of the regression loss; None for the mean square over pixels."""
    if loss.regression == "none" or loss.distance == "l2":
        return None
    if loss.distance == "l1":
        return L1Distance()
    if loss.distance == "lpips":
        return LpipsDistance(loss.weights, loss.augment)
    # Other projections than the discriminator's, as in the official code.
    return ProjectedDistance(loss.backbones, loss.weights, seed + (1 << 32), loss.augment)


def _class_embedding(file: Path, classes: int) -> Tensor:
    try:
        table = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise PagodaError(f"discriminator.class_embedding: cannot read {file}: {error}") from error
    if table.ndim != 2 or len(table) != classes:
        raise PagodaError(
            f"discriminator.class_embedding: {file} has shape {table.shape}; it must be "
            f"({classes}, d), a row a class"
        )
    return torch.from_numpy(table.astype(np.float32))
