"""PaGoDA's one-step objective: regression + lambda x adversarial (arXiv 2405.14822, eq. 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pagoda.errors import PagodaError
from pagoda.fields import Check, opt
from pagoda.training.method import Given, Loss, Method
from pagoda.training.settings import BACKBONES, DiscriminatorConfig, MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pagoda.losses.distances import Distance
    from pagoda.networks.discriminators import Discriminator
    from pagoda.training.draw import GlobalDraw

LPIPS = "VGG16 of LPIPS"


@dataclass(frozen=True)
class LossConfig:
    """The generator's objective."""

    regression: str = opt(
        "reconstruction of real images from their latents (eq. 2) or noise-to-data "
        "distillation of the teacher's samples (eq. 1)",
        default="reconstruction", choices=("reconstruction", "noise_to_data", "none"),
    )  # fmt: skip
    distance: str = opt(
        "distance of the regression: mean square or absolute difference of pixels, LPIPS, or "
        "projected features of timm networks",
        default="l2", choices=("l2", "l1", "lpips", "projected"),
    )  # fmt: skip
    backbones: list[str] = opt("projected: timm networks", default=BACKBONES)
    weights: str = opt(
        "lpips and projected: pretrained, random, or the folder that holds the weights",
        default="pretrained",
    )
    augment: bool = opt("lpips and projected: DiffAugment both images alike first", default=False)
    feature_weight: float = opt(
        "weight of the distance of discriminator features", default=0.0, ge=0
    )
    adversarial: str = opt(
        "adversarial loss", default="non_saturating", choices=("hinge", "non_saturating", "none")
    )
    fakes: str = opt(
        "images that the discriminator sees: from prior latents, reconstructions of real images, "
        "or both",
        default="prior", choices=("prior", "reconstructions", "both"),
    )  # fmt: skip
    separate_update: bool = opt(
        "one optimiser step of the generator by the regression and one by the adversarial loss, as "
        "in the official scripts for 256 and 512; false = one by their sum",
        default=False,
    )
    weighting: str = opt(
        "fixed lambda, or adaptive by the ratio of gradient norms or of their squares",
        default="fixed", choices=("fixed", "adaptive", "adaptive_squared"),
    )  # fmt: skip
    weight: float = opt("lambda, or the target ratio of gradients if adaptive", default=0.05, ge=0)
    weight_min: float = opt("smallest adaptive lambda", default=0.0, ge=0)
    weight_max: float = opt("largest adaptive lambda", default=10.0, ge=0)
    adversarial_start: float = opt(
        "fraction of training before the adversarial loss", default=0.0, ge=0, lt=1
    )
    adversarial_ramp: float = opt(
        "fraction of training over which lambda then rises", default=0.0, ge=0, le=1
    )

    def ramp(self, progress: float) -> float | None:
        """Share of lambda in force, None before the adversarial loss starts."""
        if self.adversarial == "none" or progress < self.adversarial_start:
            return None
        length = self.adversarial_ramp
        return min(1.0, (progress - self.adversarial_start) / length) if length else 1.0

    def checks(self, at: str) -> Iterator[Check]:
        """Terms that need each other."""
        regresses = self.regression != "none"
        yield (regresses or self.adversarial != "none", f"{at}regression", self.regression,
               "something other than none while adversarial is none")  # fmt: skip
        yield (regresses or self.fakes == "prior", f"{at}fakes", self.fakes,
               "prior while there is no regression, and so no reconstructions")  # fmt: skip
        apart = regresses and self.fakes == "prior" and self.weighting == "fixed"
        yield (not self.separate_update or apart, f"{at}separate_update", self.separate_update,
               "false unless there is a regression, fakes are prior and weighting is "
               "fixed")  # fmt: skip
        yield (self.weight_min <= self.weight_max, f"{at}weight_min", self.weight_min,
               f"at most {at}weight_max")  # fmt: skip


@dataclass(frozen=True)
class OneStepConfig(MethodConfig):
    """The objective of stages 2 and 3."""

    loss: LossConfig = opt("objective", default=LossConfig())
    discriminator: DiscriminatorConfig = opt("discriminator", default=DiscriminatorConfig())
    prior_batch: int = opt("prior latents a step, for the adversarial loss", default=64, ge=1)

    def scaled(self, images: int) -> Self:
        """As many prior latents an image as before."""
        prior = max(2, self.prior_batch * images // self.optim.batch)
        return replace(super().scaled(images), prior_batch=prior)

    def untrained(self) -> Self:
        """Backbones with random weights."""
        d = replace(self.discriminator, weights="random", class_embedding=None)
        return replace(self, loss=replace(self.loss, weights="random"), discriminator=d)

    def published(self) -> Iterator[tuple[str, str]]:
        """Backbones of the discriminator and of the distance, or LPIPS."""
        loss, discriminator = self.loss, self.discriminator
        if loss.adversarial != "none" and discriminator.kind in ("projected", "tokens"):
            yield from ((name, discriminator.weights) for name in discriminator.backbones)
        if loss.regression != "none" and loss.distance == "projected":
            yield from ((name, loss.weights) for name in loss.backbones)
        if loss.regression != "none" and loss.distance == "lpips":
            yield LPIPS, loss.weights


class OneStep(Method):
    """The generator against a discriminator, and towards the images of inverted latents.

    The generator maps pairs and prior latents in one call; the discriminator learns from the fakes
    and from ``prior_batch`` real images, then scores the fakes for the generator.
    """

    Config = OneStepConfig

    def __init__(self, config: OneStepConfig, given: Given) -> None:
        import torch

        from pagoda.networks.generator import Generator
        from pagoda.training.player import Player

        assert isinstance(given.network, Generator) and given.pairs is not None
        loss, d = config.loss, config.discriminator
        self.config, self.images, self.pairs = config, given.images, given.pairs
        self.generator = given.network
        self.player = Player(
            given.network, config.optim, given.device, batches=[config.prior_batch],
            keep=Generator.last_block_weight,
        )  # fmt: skip
        self.players = {"generator": self.player}
        self.period, self.turns = d.r1_every if d.r1 else 1, (loss.adversarial_start,)
        if loss.adversarial != "none":
            made = build_discriminator(d, given, weighted=self.weighted)
            self.discriminator = made.to(given.device)
            self.discriminator.to(memory_format=torch.channels_last)
            optim = config.optim.rival(optimizer=d.optimizer, lr=d.lr, beta1=d.beta1, beta2=d.beta2)
            # R1 differentiates the discriminator twice, which compiled code cannot.
            self.players["discriminator"] = Player(
                self.discriminator, optim, given.device, main=False, compiled=not d.r1
            )
        self.distance = build_distance(loss, given.seed, d.input_side).to(given.device)
        if self.distance.state_dict():  # random projections
            self.modules = {"distance": self.distance}
        if loss.regression == "noise_to_data":
            assert given.teacher_pairs is not None
            self.pairs = given.teacher_pairs()

    def card(self) -> dict[str, Any]:
        """The objective."""
        return {"loss": vars(self.config.loss)}

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """The discriminator's update, then the generator's, by the sum of its losses or by each."""
        import torch

        from pagoda.losses.adversarial import generator_loss

        loss, n = self.config.loss, self.config.optim.batch
        ramp = loss.ramp(progress)
        z, x, told = self._pairs(draw, n)
        if loss.regression == "none":
            z, x, told = z[:0], x[:0], [facts[:0] for facts in told]
        if ramp is not None and loss.fakes != "reconstructions":
            prior = draw.normal(self.config.prior_batch, *z.shape[1:], on=z.device, dtype=z.dtype)
            more = self._prior_told(draw, self.config.prior_batch)
            z = torch.cat([z, prior])
            told = [torch.cat(both) for both in zip(told, more, strict=True)]
        z = z.contiguous(memory_format=torch.channels_last)
        images = self._generate(z, told, len(x))
        rows, sizes = {
            "prior": (slice(len(x), None), (self.config.prior_batch,)),
            "reconstructions": (slice(len(x)), (n,)),
            "both": (slice(None), (n, self.config.prior_batch)),
        }[loss.fakes]
        fakes, fake_told = images[rows], [facts[rows] for facts in told]
        if ramp is not None:
            self.discriminator.aim(i)
            yield self._discriminator_loss(draw, i, fakes.detach(), fake_told, sizes)
            self.discriminator.requires_grad_(False)
        value: Tensor | None = None
        stats: dict[str, Tensor | float] = {}
        if loss.regression != "none":
            value, stats = self._regression(draw, i, images[: len(x)], x, ramp is not None)
        if value is not None and (ramp is None or loss.separate_update):
            yield Loss("generator", value, stats=stats)
            value, stats = None, {}
        if ramp is None:
            return
        if loss.separate_update:
            fakes = self._images(z[rows], fake_told)
        with self.player.autocast():
            logits = self._logits(draw, 2 * i + 1, fakes, fake_told, sizes)
        adversarial = draw.mean(generator_loss(loss.adversarial, logits), *sizes)
        weight = self._weight(value, adversarial) * ramp
        weighted = weight * adversarial
        yield Loss("generator", weighted if value is None else value + weighted, stats={
            **stats, "loss_adv": adversarial.detach(), "lambda": draw.mean(weight, n),
        })  # fmt: skip

    def _pairs(self, draw: GlobalDraw, n: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Latents, their images, and what both networks are told of each: its class."""
        z, x, labels = draw.pairs(self.pairs, n)
        return z, x, [labels]

    def _prior_told(self, draw: GlobalDraw, n: int) -> list[Tensor]:
        """What both networks are told of prior latents."""
        return [draw.labels(self.images, n)]

    def _real(self, draw: GlobalDraw, n: int) -> tuple[Tensor, list[Tensor]]:
        """Real images, and what the discriminator is told of each."""
        real, labels = draw.images(self.images, n)
        return real, [labels]

    def _made(self, z: Tensor, *told: Tensor) -> Tensor:
        """Images of latents (n, 3, b, b) and what the generator is told of each."""
        return self.generator(z, *told)

    def _generate(self, z: Tensor, told: Sequence[Tensor], pairs: int) -> Tensor:
        """Images of pairs, then of the prior; with separate updates these are fakes alone, and the
        generator's adversarial update makes its own.
        """
        import torch

        if not self.config.loss.separate_update or pairs == len(z):
            return self._images(z, told)
        with torch.no_grad():
            prior = self._images(z[pairs:], [facts[pairs:] for facts in told])
        return torch.cat([self._images(z[:pairs], [facts[:pairs] for facts in told]), prior])

    def _images(self, z: Tensor, told: Sequence[Tensor]) -> Tensor:
        """In micro batches. Narrow weights are cached a call: some are made without gradients."""
        from pagoda.training.micro_batch import in_parts

        with self.player.autocast():
            return in_parts(self._made, self.config.optim.micro_batch, z, *told)

    def _discriminator_loss(
        self, draw: GlobalDraw, i: int, fakes: Tensor, fake_told: Sequence[Tensor],
        sizes: tuple[int, ...],
    ) -> Loss:  # fmt: skip
        from pagoda.losses.adversarial import discriminator_losses, r1_penalty, twice_differentiable

        d, n = self.config.discriminator, self.config.prior_batch
        real, told = self._real(draw, n)
        self.discriminator.requires_grad_(True)
        with self.player.autocast():
            real_logits = self._logits(draw, 2 * i, real, told, (n,))
            fake_logits = self._logits(draw, 2 * i, fakes, fake_told, sizes)
        on_real, on_fakes = discriminator_losses(
            self.config.loss.adversarial, real_logits, fake_logits
        )
        value = loss = draw.mean(on_real, n) + draw.mean(on_fakes, *sizes)
        if d.r1 and i % d.r1_every == 0:
            real = real.detach().requires_grad_(True)
            with twice_differentiable():
                penalty = r1_penalty(self.discriminator(real, *told), real)
            value = loss + draw.mean(d.r1 / 2 * d.r1_every * penalty, n)
        return Loss("discriminator", value, stats={
            "loss_d": loss.detach(),
            "logit_real": draw.mean(real_logits.detach().mean(), n),
            "logit_fake": draw.mean(fake_logits.detach().mean(), *sizes),
        })  # fmt: skip

    def _regression(
        self, draw: GlobalDraw, i: int, images: Tensor, x: Tensor, with_features: bool
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """This process's part of the distance of generated images from x, and its statistics."""
        import torch

        from pagoda.losses.augment import diff_augment
        from pagoda.losses.distances import feature_distance

        config, n = self.config.loss, self.config.optim.batch

        def augment(images: Tensor, view: int) -> Tensor:
            numbers = draw.augmentation(i * self.distance.views + view, images.shape[-1], n)
            return diff_augment(images, numbers)

        with self.player.autocast():
            loss = self.distance(images, x, augment if config.augment else None)
        dstl = config.regression == "noise_to_data"
        stats = {"loss_dstl" if dstl else "loss_rec": draw.mean(loss.detach(), n)}
        if config.feature_weight and with_features:
            with self.player.autocast():
                with torch.no_grad():
                    target = self.discriminator.features(x)
                distance = feature_distance(self.discriminator.features(images), target)
            stats["loss_features"] = draw.mean(distance.detach(), n)
            loss = loss + config.feature_weight * distance
        return draw.mean(loss, n), stats

    def _weight(self, regression: Tensor | None, adversarial: Tensor) -> Tensor | float:
        """lambda; adaptive, the ratio of the norms of the losses' gradients with respect to
        theta_l, a late weight of the generator: plain, as in the official code, or squared, as the
        paper's section 5.1 prints them.
        """
        loss = self.config.loss
        if loss.weighting == "fixed" or regression is None:
            return loss.weight
        last = self.generator.last_block_weight()
        norms = [self.player.gradient_norm(part, last) for part in (regression, adversarial)]
        ratio = norms[0] / (norms[1] + 1e-4)
        ratio = (ratio.square() if loss.weighting == "adaptive_squared" else ratio).clamp(0.0, 1e4)
        return (loss.weight * ratio).clamp(loss.weight_min, loss.weight_max)

    def _logits(
        self, draw: GlobalDraw, key: int, images: Tensor, told: Sequence[Tensor],
        sizes: tuple[int, ...],
    ) -> Tensor:  # fmt: skip
        """The discriminator's logits; batches with the same key and sizes are augmented alike."""
        from pagoda.losses.augment import diff_augment

        if not self.config.discriminator.augment:
            return self._discriminate(images, *told)
        count = self.discriminator.views
        views = [
            diff_augment(images, draw.augmentation(key * count + k, images.shape[-1], *sizes))
            for k in range(count)
        ]
        return self._discriminate(views if count > 1 else views[0], *told)

    def _discriminate(self, images: Tensor | list[Tensor], *told: Tensor) -> Tensor:
        """In micro batches the convolutional discriminator computes its features in parts and its
        statistic of the batch on the whole, so that nothing changes but memory. The others
        normalise over the batch in every layer of their heads, and R1 needs second derivatives:
        they take the whole.
        """
        from pagoda.networks.discriminators import ConvDiscriminator
        from pagoda.training.micro_batch import in_parts

        d, most = self.discriminator, self.config.optim.micro_batch
        if most is None or not isinstance(d, ConvDiscriminator):
            return d(images, *told)
        assert not isinstance(images, list)  # it has one view
        return d.classify(in_parts(lambda x: d.features(x)[-1], most, images), *told)


def build_discriminator(
    config: DiscriminatorConfig, given: Given, *, weighted: bool
) -> Discriminator:
    """The discriminator of ``config.kind`` for images of the generator's resolution."""
    import numpy as np
    import torch

    from pagoda.networks import discriminators
    from pagoda.networks.generator import Generator

    assert isinstance(given.network, Generator) and given.teacher is not None
    classes, table, file = given.network.spec.num_classes, None, config.class_embedding
    if file is not None:
        try:
            rows = np.load(Path(file), allow_pickle=False)
        except (OSError, ValueError) as error:
            raise PagodaError(
                f"discriminator.class_embedding: cannot read {file}: {error}"
            ) from error
        if rows.ndim != 2 or len(rows) != classes:
            raise PagodaError(
                f"discriminator.class_embedding: {file} has shape {rows.shape}; it must be "
                f"({classes}, d), a row a class"
            )
        table = torch.from_numpy(rows.astype(np.float32))
    return discriminators.build_discriminator(
        config.kind, given.network.resolution, classes, channels=config.channels,
        max_channels=config.max_channels, backbones=config.backbones, weights=config.weights,
        input_side=config.input_side, sigma=config.sigma, seed=given.seed, teacher=given.teacher,
        class_embedding=table, weighted=weighted, image_channels=given.network.spec.image_channels,
        labels=given.network.trunk.label,
    )  # fmt: skip


def build_distance(config: LossConfig, seed: int, input_side: int) -> Distance:
    """The distance of the regression loss."""
    from pagoda.losses.distances import LpipsDistance, PixelDistance, ProjectedDistance

    if config.regression == "none" or config.distance in ("l2", "l1"):
        return PixelDistance(config.distance)
    if config.distance == "lpips":
        return LpipsDistance(config.weights)
    # Other projections than the discriminator's, as in the official code.
    return ProjectedDistance(config.backbones, config.weights, seed + (1 << 32), input_side)
