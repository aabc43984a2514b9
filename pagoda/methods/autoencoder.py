"""The autoencoder of a latent-space pipeline, trained as those of latent diffusion are.

L1 + distance of frozen features + a small adversarial term from the middle of training on (Rombach
et al. 2022, arXiv 2112.10752, appendix G), + a small KL divergence where the encoder gives a
variance. The frozen features are of a network that no result is measured in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from pagoda.fields import Check, opt
from pagoda.training.method import Given, Loss, Method
from pagoda.training.settings import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pagoda.training.draw import GlobalDraw


@dataclass(frozen=True)
class AutoencoderConfig(MethodConfig):
    """Images to codes and back; ``data.space: latent`` trains it first."""

    imported: str = opt(
        "folder of an autoencoder to take instead of training: config.json and safetensors as "
        "diffusers saves them (AutoencoderKL, AutoencoderTiny, AutoencoderDC), or an artifact; "
        "weights/none: train",
        default="weights/none",
    )
    factor: int = opt("pixels a side of a position of the codes", default=2, ge=2,
                      power_of_two=True)  # fmt: skip
    latent_channels: int = opt("channels of the codes", default=4, ge=1)
    pyramid: str = opt(
        "codes below the target resolution: of the images of that resolution, or means of the "
        "target's codes",
        default="images", choices=("images", "codes"),
    )  # fmt: skip
    channels: int = opt("width of its layers", default=32, ge=4)
    blocks: int = opt("residual blocks a resolution", default=1, ge=1)
    bottleneck: str = opt(
        "clamp: latents are squashed into (-3, 3), as TAESD does; kl: a normal distribution each",
        default="clamp", choices=("clamp", "kl"),
    )  # fmt: skip
    kl_weight: float = opt("weight of the KL divergence, summed over a latent", default=1e-6, ge=0)
    feature_weight: float = opt("weight of the distance of frozen features", default=0.1, ge=0)
    backbones: list[str] = opt(
        "their networks, of timm; none of reference.extractors", default=["tf_efficientnet_lite0"]
    )
    weights: str = opt(
        "their weights: pretrained, random, or the folder that holds them", default="pretrained"
    )
    input_side: int = opt("side that smaller images are resized to for them", default=64, ge=32)
    adversarial_weight: float = opt("weight of the adversarial loss", default=0.02, ge=0)
    adversarial_start: float = opt(
        "fraction of training before the adversarial loss", default=0.5, ge=0, lt=1
    )
    discriminator_channels: int = opt("width of the patch discriminator", default=16, ge=4)
    discriminator_lr: float = opt("its learning rate", default=5e-4, gt=0)

    def untrained(self) -> Self:
        """Frozen features with random weights."""
        return replace(self, weights="random")

    def published(self) -> Iterator[tuple[str, str]]:
        """The networks of the frozen features."""
        if self.feature_weight:
            yield from ((name, self.weights) for name in self.backbones)

    def checks(self, at: str) -> Iterator[Check]:
        """A side that the frozen networks halve five times."""
        side = self.input_side
        yield side % 32 == 0, f"{at}input_side", side, "a multiple of 32"
        yield (bool(self.backbones) or not self.feature_weight, f"{at}backbones", self.backbones,
               f"a list of networks while {at}feature_weight is above 0")  # fmt: skip


class Autoencoder(Method):
    """All resolutions of the pyramid in every step; the discriminator learns first."""

    of_generators = False
    Config = AutoencoderConfig

    def __init__(self, config: AutoencoderConfig, given: Given) -> None:
        from pagoda.losses.distances import ProjectedDistance
        from pagoda.networks.autoencoder import PatchDiscriminator
        from pagoda.training.player import Player

        self.config, self.images = config, given.images
        self.player = Player(given.network, config.optim, given.device)
        self.players = {"autoencoder": self.player}
        self.turns = (config.adversarial_start,) if config.adversarial_weight else ()
        if config.adversarial_weight:
            made = PatchDiscriminator(config.discriminator_channels).to(given.device)
            optim = config.optim.rival(lr=config.discriminator_lr, beta1=0.5)
            self.players["discriminator"] = Player(made, optim, given.device, main=False)
        if config.feature_weight:
            self.distance = ProjectedDistance(
                config.backbones, config.weights, given.seed, config.input_side
            ).to(given.device)
            self.modules = {"distance": self.distance}  # random projections

    def card(self) -> dict[str, Any]:
        """The objective."""
        keys = "bottleneck", "kl_weight", "feature_weight", "backbones", "adversarial_weight"
        return {"loss": {key: getattr(self.config, key) for key in keys}}

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """The discriminator's update, once it takes part, then the autoencoder's."""
        from pagoda.training.micro_batch import slices

        config, n = self.config, self.config.optim.batch
        *views, _ = draw.images(self.images, n)
        noise = [draw.normal(n, *self._shape(x), on=x.device, dtype=x.dtype) for x in views]
        against = bool(config.adversarial_weight) and progress >= config.adversarial_start
        parts = [(x[rows], z[rows]) for x, z in zip(views, noise, strict=True)
                 for rows in slices(len(x), config.optim.micro_batch)]  # fmt: skip
        if against:
            yield from self._discriminator(draw, parts, len(views))
        for k, (x, z) in enumerate(parts):
            loss, stats = self._loss(x, z, against)

            def part(value: Tensor, rows: int = len(x)) -> Tensor:
                return draw.mean(value / len(views), n, rows=rows)

            yield Loss("autoencoder", part(loss), last=k == len(parts) - 1,
                       stats={name: part(value.detach()) for name, value in stats.items()}
                       )  # fmt: skip

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        """Of the latents of images; nothing is drawn for an encoder without a variance."""
        if self.config.bottleneck != "kl":
            return (0,)
        side = x.shape[-1] // self.config.factor
        return self.config.latent_channels, side, side

    def _there_and_back(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """What comes back of images, and the KL divergence of their latents, summed over each."""
        import torch

        network: Any = self.player.network
        z, log_variance = network.network.moments(x)
        if log_variance is None:
            return network.network.images(z), None
        variance = log_variance.exp()
        kl = (z.square() + variance - 1 - log_variance).flatten(1).sum(1).mean() / 2
        return network.network.images(z + torch.sqrt(variance) * noise), kl

    def _discriminator(
        self, draw: GlobalDraw, parts: list[tuple[Tensor, Tensor]], views: int
    ) -> Iterator[Loss]:
        """Hinge loss of patches, real and returned."""
        import torch

        from pagoda.losses.adversarial import discriminator_losses

        discriminator, n = self.players["discriminator"].network, self.config.optim.batch
        discriminator.requires_grad_(True)
        for k, (x, z) in enumerate(parts):
            with self.player.autocast():
                with torch.no_grad():
                    back = self._there_and_back(x, z)[0]
                losses = discriminator_losses("hinge", discriminator(x), discriminator(back))
            value = draw.mean(sum(losses, x.new_zeros(())) / views, n, rows=len(x))
            yield Loss("discriminator", value, last=k == len(parts) - 1,
                       stats={"loss_d": value.detach()})  # fmt: skip
        discriminator.requires_grad_(False)

    def _loss(
        self, x: Tensor, noise: Tensor, against: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """The objective of some images, and its terms."""
        from torch.nn import functional as F

        from pagoda.losses.adversarial import generator_loss

        config = self.config
        with self.player.autocast():
            back, kl = self._there_and_back(x, noise)
            loss = F.l1_loss(back, x)
            stats = {"loss_l1": loss}
            if kl is not None:
                stats["loss_kl"], loss = kl, loss + config.kl_weight * kl
            if config.feature_weight:
                stats["loss_features"] = self.distance(back, x)
                loss = loss + config.feature_weight * stats["loss_features"]
            if against:
                logits = self.players["discriminator"].network(back)
                stats["loss_adv"] = generator_loss("hinge", logits)
                loss = loss + config.adversarial_weight * stats["loss_adv"]
        return loss, stats
