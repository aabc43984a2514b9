"""A cascade's upper stage: super-resolution diffusion (CDM, Ho et al. 2022, arXiv 2106.15282)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pagoda.fields import opt
from pagoda.methods.teacher import Denoising
from pagoda.training.method import Loss
from pagoda.training.settings import MethodConfig

if TYPE_CHECKING:
    from pagoda.training.draw import GlobalDraw


@dataclass(frozen=True)
class CascadeTraining(MethodConfig):
    """How a super-resolver trains."""

    noise_max: float = opt("largest noise added to the condition", default=0.5, gt=0)


class Cascade(Denoising):
    """EDM denoising at the high resolution, given the same image at the low one.

    The low one is up-sampled and gets noise of a level s_c ~ U(0, noise_max), which the network is
    told: conditioning augmentation, section 4 of the paper.
    """

    Config = CascadeTraining
    config: CascadeTraining

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """One update."""
        from pagoda.networks.super_resolution import condition

        n = self.config.optim.batch
        low, high, labels = draw.images(self.images, n)
        sigma = self.sigma(draw, high)
        level = (draw.uniform(n) * self.config.noise_max).to(high)
        seen = condition(low, high.shape[-1], level, draw.noise(high, n))
        yield from self.losses(draw, high, labels, sigma, condition=seen, level=level)
