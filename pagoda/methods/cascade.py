"""A cascade's upper stage: super-resolution diffusion (CDM, Ho et al. 2022, arXiv 2106.15282)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pagoda.fields import opt
from pagoda.training.method import Given, Loss, Method
from pagoda.training.settings import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pagoda.training.draw import GlobalDraw


@dataclass(frozen=True)
class CascadeTraining(MethodConfig):
    """How a super-resolver trains."""

    noise_max: float = opt("largest noise added to the condition", default=0.5, gt=0)


class Cascade(Method):
    """EDM denoising at the high resolution, given the same image at the low one.

    The low one is up-sampled and gets noise of a level s_c ~ U(0, noise_max), which the network is
    told: conditioning augmentation, section 4 of the paper.
    """

    Config = CascadeTraining

    def __init__(self, config: CascadeTraining, given: Given) -> None:
        from pagoda.training.player import Player

        self.config, self.images, self.diffusion = config, given.images, given.diffusion
        self.player = Player(given.network, config.optim, given.device)
        self.players = {"resolver": self.player}

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """One update by the denoising loss, in micro batches."""
        from pagoda.diffusion.edm import sample_sigma
        from pagoda.losses.denoising import denoising_loss
        from pagoda.networks.super_resolution import condition
        from pagoda.training.micro_batch import slices

        n = self.config.optim.batch
        low, high, labels = draw.images(self.images, n)
        sigma = draw.local(sample_sigma(n, self.diffusion.p_mean, self.diffusion.p_std), n).to(high)
        level = (draw.uniform(n) * self.config.noise_max).to(high)
        seen = condition(low, high.shape[-1], level, draw.noise(high, n))
        noise = draw.noise(high, n)
        draw.own_stream()
        for rows in slices(len(high), self.config.optim.micro_batch):

            def denoiser(x: Tensor, s: Tensor, y: Tensor | None, rows: slice = rows) -> Tensor:
                return self.player.network(x, s, y, seen[rows], level[rows])

            with self.player.autocast():
                loss = denoising_loss(
                    denoiser, high[rows], labels[rows], sigma[rows], noise[rows],
                    self.diffusion.sigma_data,
                )  # fmt: skip
            part = draw.mean(loss, n, rows=len(high[rows]))
            yield Loss("resolver", part, last=rows.stop == len(high))
