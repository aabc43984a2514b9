"""How latents of a text-to-image model become images: which noise levels, solver and guidance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pagoda.diffusion.solver import edm_grid
from pagoda.errors import PagodaError
from pagoda.text_to_image.schedule import NoiseSchedule

SOLVERS = "heun", "euler"
_RHO = 7.0  # of EDM's grid (table 1)


@dataclass(frozen=True)
class Steps:
    """How latents become images.

    Attributes:
        steps: noise levels; 1: what the denoiser gives at the first.
        guidance: weight of the prompt, w D(x; s, text) + (1 - w) D(x; s); 1 is none, and None 1.
            A consistency model has it as an input; None is then 8.5.
        solver: ``heun`` or ``euler``, of the ODE.
        sigma_min, sigma_max: of EDM's grid; None: the network's own, at most 80.
        times: the network's time steps, falling, instead of such a grid: diffusers' ``timesteps``.
    """

    steps: int = 40
    guidance: float | None = None
    solver: str = "heun"
    sigma_min: float | None = None
    sigma_max: float | None = None
    times: Sequence[int] | None = None

    @property
    def count(self) -> int:
        """Number of noise levels."""
        return self.steps if self.times is None else len(self.times)

    def grid(self, schedule: NoiseSchedule) -> Tensor:
        """Noise levels, falling, and 0; float64, (k + 1,).

        Raises:
            PagodaError: a level that the network does not know, or times that do not fall.
        """
        if self.times is not None:
            if (self.sigma_min, self.sigma_max) != (None, None):
                raise PagodaError(
                    "times are the noise levels; give them, or sigma_min and sigma_max"
                )
            levels = schedule.sigma(torch.tensor(list(self.times)))
            if not len(levels) or not bool((levels.diff() < 0).all()):
                raise PagodaError(f"times = {list(self.times)}; they must fall")
            return torch.cat([levels, levels.new_zeros(1)])
        low = schedule.sigma_min if self.sigma_min is None else self.sigma_min
        high = schedule.usual_max if self.sigma_max is None else self.sigma_max
        schedule.check(torch.tensor([low, high]).double())
        if self.count == 1:
            return torch.tensor([high, 0.0], dtype=torch.float64)
        return edm_grid(self.count, low, high, _RHO)


def chosen(how: dict[str, Any], usual: int) -> Steps:
    """Settings by name; ``usual`` steps where they say nothing of it.

    Raises:
        PagodaError: one is unknown, or has no such value.
    """
    known = Steps.__dataclass_fields__
    if unknown := sorted(set(how) - set(known)):
        raise PagodaError(f"there is no setting {unknown[0]!r}; there are {', '.join(known)}")
    if "times" in how and how.get("steps") is not None:
        raise PagodaError("times are the noise levels; give them, or steps")
    steps = Steps(**how | {"steps": usual if how.get("steps") is None else how["steps"]})
    if steps.solver not in SOLVERS:
        raise PagodaError(f"solver = {steps.solver!r}; it is one of {', '.join(SOLVERS)}")
    if type(steps.steps) is not int or steps.steps < 1:
        raise PagodaError(f"steps = {steps.steps!r}; they are a whole number from 1")
    if steps.guidance is not None and not math.isfinite(steps.guidance):
        raise PagodaError(f"guidance = {steps.guidance}; it must be finite, and 1 is none")
    return steps
