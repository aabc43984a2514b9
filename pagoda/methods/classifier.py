"""The embedded feature network: a classifier of real images at every resolution it is to serve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from pagoda.fields import Check
from pagoda.training.method import Given, Loss, Method
from pagoda.training.settings import MethodConfig, OptimConfig

if TYPE_CHECKING:
    from pagoda.networks.classifier import FeatureNetwork
    from pagoda.training.draw import GlobalDraw

_DEGRADATION_WEIGHT = 0.05  # enough to notice blur, too little to make it all that counts


def optim(images: int, batch: int, lr: float) -> OptimConfig:
    """How the embedded feature network trains; its weights are not averaged."""
    return OptimConfig(
        images, batch, lr, beta2=0.999, weight_decay=0.05, warmup=0.2, decay=0.8, ema=0.0
    )


@dataclass(frozen=True)
class ClassifierConfig(MethodConfig):
    """How a feature network trains."""

    def checks(self, at: str) -> Iterator[Check]:
        """Batch normalisation mixes the rows of a batch."""
        most = self.optim.micro_batch
        yield most is None, f"{at}optim.micro_batch", most, "null for a network with batch norm"


class Classifier(Method):
    """Cross-entropy of the class, and a little of the resolution that an image was degraded to.

    Equal parts of a batch are degraded to each resolution, the network's halved again and again.
    """

    of_generators = False
    Config = ClassifierConfig

    def __init__(self, config: ClassifierConfig, given: Given) -> None:
        from pagoda.training.player import Player

        self.config, self.images = config, given.images
        self.player = Player(given.network, config.optim, given.device)
        self.players = {"network": self.player}

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """One update."""
        import torch
        from torch.nn import functional as F

        from pagoda.networks.classifier import averaged

        network, n = cast("FeatureNetwork", self.player.network), self.config.optim.batch
        images, labels = draw.images(self.images, n)
        count = network.architecture["degradations"]
        levels = draw.local(torch.arange(n) * count // n, n)
        parts = images.split(levels.bincount(minlength=count).tolist())
        seen = [
            network.prepare(averaged(part, 1 << (count - 1 - level)))
            for level, part in enumerate(parts) if len(part)
        ]  # fmt: skip
        with self.player.autocast():
            _, logits, degradations = network(torch.cat(seen))
            loss = F.cross_entropy(logits, labels)
            other = F.cross_entropy(degradations, levels.to(labels.device))
        right = (logits.argmax(1) == labels).float().mean()
        yield Loss(
            "network", draw.mean(loss + _DEGRADATION_WEIGHT * other, n),
            stats={"loss_degradation": draw.mean(other.detach(), n),
                   "accuracy": draw.mean(right, n)},
        )  # fmt: skip
