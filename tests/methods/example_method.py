"""A method outside of the package, with a network of its own: a logistic density ratio.

A small classifier learns to tell real images from generated ones; its logit is the log of the ratio
of their densities, and the generator moves towards more of it (as in Uehara et al. 2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.fields import opt
from pagoda.training.draw import GlobalDraw
from pagoda.training.method import Given, Loss, Method
from pagoda.training.player import Player
from pagoda.training.settings import MethodConfig


@dataclass(frozen=True)
class RatioConfig(MethodConfig):
    """Generator against a density ratio."""

    width: int = opt("width of the classifier", default=8, ge=1)
    ratio_lr: float = opt("its learning rate", default=1e-3, gt=0)
    pull: float = opt("weight of the reconstruction", default=1.0, ge=0)


class Ratio(Method):
    """Both players train every step, the classifier first."""

    Config = RatioConfig

    def __init__(self, config: RatioConfig, given: Given) -> None:
        assert given.pairs is not None
        self.config, self.images, self.pairs = config, given.images, given.pairs
        self.ratio = nn.Sequential(
            nn.Conv2d(3, config.width, 3, stride=2, padding=1), nn.SiLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(config.width, 1),
        ).to(given.device)  # fmt: skip
        optim = replace(config.optim, lr=config.ratio_lr, weight_decay=0.0)
        self.players = {
            "generator": Player(given.network, config.optim, given.device),
            "ratio": Player(self.ratio, optim, given.device, main=False),
        }

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """Classify, then follow the classifier and the images of the latents."""
        n, player = self.config.optim.batch, self.players["generator"]
        z, x, labels = draw.pairs(self.pairs, n)
        real, _ = draw.images(self.images, n)
        with player.autocast():
            made = player.network(z, labels)
            apart = (
                F.softplus(-self.ratio(real)).mean() + F.softplus(self.ratio(made.detach())).mean()
            )
        yield Loss("ratio", draw.mean(apart, n), stats={"loss_ratio": draw.mean(apart.detach(), n)})
        self.ratio.requires_grad_(False)
        most = self.config.optim.micro_batch or len(z)
        for start in range(0, len(z), most):
            rows = slice(start, start + most)
            with player.autocast():
                made = player.network(z[rows], labels[rows])
                loss = self._towards(made, x[rows])
            last = start + most >= len(z)
            yield Loss("generator", draw.mean(loss, n, rows=len(made)), last=last)
        self.ratio.requires_grad_(True)

    def _towards(self, made: Tensor, x: Tensor) -> Tensor:
        return self.config.pull * F.mse_loss(made, x) - self.ratio(made).mean()
