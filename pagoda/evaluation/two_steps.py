"""Two evaluations a sample, of generators whose network knows every noise level.

Consistency and average velocities (``consistency``, ``mean_flow``) train f(x_sigma, sigma), the end
of a path from any noise level. A second step puts noise of a level in the middle on the first one's
image and goes to the end again (Song et al. 2023, arXiv 2303.01469, algorithm 1):

    x = f(sigma_max z, sigma_max),    x' = f(x + sqrt(sigma^2 - sigma_min^2) e, sigma).

MeanFlow's own second step follows the path without new noise; it needs the embedding of the second
time, which the written generator is without.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from pagoda.artifacts import Artifact
from pagoda.data.noise import standard_normal
from pagoda.errors import PagodaError
from pagoda.evaluation.samplers import Draws, Map, Sampler, decoding, one_step
from pagoda.networks.generator import load_generator

NAME = "student_two_steps"
LEVEL = 0.8
"""Noise level that the second step begins at: our choice."""


def makes_two(artifact: Artifact) -> bool:
    """The network of a generator knows every noise level, as the card says."""
    return 2 in artifact.card().get("nfe", ())


def two_steps(artifact: Artifact, draws: Draws, sigma_min: float, sigma: float = LEVEL) -> Sampler:
    """A second step from noise level ``sigma``; its noise is a function of (seed, index).

    Raises:
        PagodaError: the generator's network knows one noise level alone.
    """
    if not makes_two(artifact):
        raise PagodaError(
            f"{artifact.path} makes images in one step alone; two are of generators that "
            "consistency or mean_flow trained"
        )
    added = math.sqrt(sigma**2 - sigma_min**2)

    @cache
    def opened() -> tuple[Map, int]:
        generator = artifact.network(load_generator).to(draws.device)
        decode, size = decoding(artifact, draws.device)

        def make(z: Tensor, labels: Tensor, indices: np.ndarray) -> Tensor:
            drawn = standard_normal(draws.seed, indices, tuple(z.shape[1:]), "second-step")
            first, second = (z.new_full((len(z),), at) for at in (generator.sigma_max, sigma))
            x = generator.consistency(generator.sigma_max * z, first, labels)
            noisy = x + added * torch.from_numpy(drawn).to(x)
            return decode(generator.consistency(noisy, second, labels))

        return make, sum(p.numel() for p in generator.parameters()) + size

    return dataclasses.replace(one_step(artifact, draws), name=NAME, nfe=2, open=opened)
