"""One and two evaluations a sample, for generators whose network knows every noise level.

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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.data.noise import standard_normal
from pagoda.errors import PagodaError
from pagoda.evaluation.results import check_out
from pagoda.evaluation.samplers import Draws, Map, Sampler, decoding, one_step
from pagoda.methods.consistency import consistency
from pagoda.networks.generator import load_generator
from pagoda.pipeline.stages.evaluate import open_inputs
from pagoda.pipeline.stages.verify import draws_of, measure


def run(config: Config, sigma: float, out: Path) -> None:
    """Measure both at the base resolution; write JSON to ``out``.

    Raises:
        PagodaError: the generator makes images in one step alone, or the level is out of range.
    """
    check_out(out)
    low, high = config.diffusion.sigma_min, config.diffusion.sigma_max
    if not low < sigma < high:
        raise PagodaError(f"--sigma {sigma:g}; it must be between {low:g} and {high:g}")
    inputs = open_inputs(config, config.base_res)
    generator, draws = inputs["base"], draws_of(config)
    sets: dict[str, Any] = {
        "one step": one_step(generator, draws),
        "two steps": two_steps(generator, draws, sigma, low),
    }
    about = {"generator": generator.fingerprint, "sigma": sigma}
    measure(config, config.base_res, inputs, sets, out, about)


def two_steps(artifact: Artifact, draws: Draws, sigma: float, sigma_min: float) -> Sampler:
    """A second step from noise level ``sigma``; its noise is a function of (seed, index).

    Raises:
        PagodaError: the generator's network knows one noise level alone.
    """
    if 2 not in artifact.card().get("nfe", ()):
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
            levels = (z.new_full((len(z),), level) for level in (generator.sigma_max, sigma))
            x = consistency(generator, generator.sigma_max * z, next(levels), labels)
            noisy = x + added * torch.from_numpy(drawn).to(x)
            return decode(consistency(generator, noisy, next(levels), labels))

        return make, sum(p.numel() for p in generator.parameters()) + size

    plain = one_step(artifact, draws)
    return dataclasses.replace(plain, name="two steps", nfe=2, open=opened)
