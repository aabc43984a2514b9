"""What the stages of an experiment cost to compute, from counts of its real networks.

Networks are counted on torch's meta device, which holds shapes and no values: any size, at once
and without memory. Passes are counted forward and backward as autograd runs them, so a frozen part
costs its forward pass and whatever of the backward pass has to go through it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from pagoda.config import Config, DiscriminatorConfig, DistillConfig, GrowConfig, LossConfig
from pagoda.diffusion.solver import nfe
from pagoda.losses.adversarial import r1_penalty
from pagoda.losses.distances import LpipsDistance, ProjectedDistance
from pagoda.losses.reconstruction import feature_distance
from pagoda.networks.backbones import RANDOM
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.discriminators import (
    ConvDiscriminator,
    Discriminator,
    EncoderDiscriminator,
    ProjectedDiscriminator,
)
from pagoda.networks.flops import forward_flops, training_flops
from pagoda.networks.generator import Generator, build_generator
from pagoda.networks.super_resolution import SuperResolver
from pagoda.stages.grow import freeze, level_channels
from pagoda.stages.super_resolution import cascade_spec
from pagoda.stages.teacher import unet_spec

_BATCH = 2  # counted together and divided; the discriminator's batch deviation needs two
_META = torch.device("meta")


def training_compute(
    config: Config, steps: tuple[str, ...], classes: int, images: int
) -> dict[str, float]:
    """FLOPs of each training step of an arm, by the name of what it trains.

    Counted on the networks themselves, forward and backward, and multiplied by the images seen.
    Data loading, optimisers and evaluation are not in it.

    Args:
        steps: steps of an arm (``pagoda.stages.study_spec.STEPS``).
        classes: number of classes.
        images: training images there are.
    """
    counter = Counter(config, classes, images)
    found: dict[str, float] = {}
    if "teacher" in steps:
        found["teacher"] = counter.denoiser_training() * config.teacher.optim.images
    if "invert" in steps:
        found["invert"] = counter.inversion()
    if "distill" in steps:
        found["distill"] = counter.distillation()
    for resolution in config.resolutions[1:]:
        if "grow" in steps or "grow_each" in steps:
            found[f"grow-{resolution}"] = counter.growth(resolution)
        if "cascade" in steps:
            each = counter.super_resolution(resolution)
            found[f"cascade-{resolution}"] = each * config.teacher.optim.images
    return found


@dataclass(frozen=True)
class Draws:
    """How many images each part of stages 2 and 3 sees in a whole training.

    Attributes:
        pairs: inverted latents, through the generator and the regression loss.
        prior: latents of the prior, through the generator.
        real: real images, through the discriminator's own step.
        judged: generated images, through its own step and through the generator's.
    """

    pairs: float
    prior: float
    real: float
    judged: float

    @staticmethod
    def of(section: DistillConfig | GrowConfig) -> Draws:
        """The draws of one stage; the adversarial part starts where the loss says."""
        loss, steps = section.loss, section.optim.images / section.optim.batch
        pairs = section.optim.images if loss.regression != "none" else 0
        if loss.adversarial == "none":
            return Draws(pairs, 0, 0, 0)
        share = 1 - loss.adversarial_start
        real = share * section.prior_batch * steps
        prior = 0.0 if loss.fakes == "reconstructions" else real
        judged = prior if loss.fakes == "prior" else prior + share * pairs
        return Draws(pairs, prior, real, judged)


class Counter:
    """Networks of one configuration, freshly made; weights do not change a count.

    Args:
        config: the experiment.
        classes: number of classes.
        images: training images there are.
        device: where the networks are made; only counted ones need no memory.
    """

    def __init__(
        self, config: Config, classes: int, images: int, device: torch.device = _META
    ) -> None:
        self.config, self.classes, self.device = config, classes, device
        flips = 2 if config.invert.flips else 1
        self.pairs = min(config.invert.images or images, images) * flips
        self.denoiser = self.new_denoiser()
        self._generators: dict[int, Generator] = {}
        with device:
            self.labels = torch.zeros(_BATCH, dtype=torch.int64)
            self.sigma = torch.ones(_BATCH)

    def new_denoiser(self) -> Denoiser:
        """The teacher with untrained weights."""
        with self.device:
            return Denoiser(unet_spec(self.config, self.classes), self.config.diffusion.sigma_data)

    def _images(self, resolution: int) -> Tensor:
        return torch.zeros(_BATCH, 3, resolution, resolution, device=self.device)

    def denoiser_training(self) -> float:
        """FLOPs of one image of stage 1."""
        x = self._images(self.config.base_res)
        return training_flops(self.denoiser, x, self.sigma, self.labels) / _BATCH

    def denoiser_call(self) -> float:
        """FLOPs of one evaluation of the denoiser on one image."""
        x = self._images(self.config.base_res)
        return forward_flops(self.denoiser, x, self.sigma, self.labels) / _BATCH

    def diffusion_at(self, resolution: int) -> tuple[Denoiser, float]:
        """The teacher that an experiment with this ``base_res`` trains, and FLOPs of one image.

        Its levels reach down to ``teacher.network.lowest_res``, the last width repeated.
        """
        spec = cascade_spec(self.config, resolution, self.classes)
        spec = replace(spec, channels=self.config.teacher.network.channels)
        with self.device:
            denoiser = Denoiser(spec, self.config.diffusion.sigma_data)
        x = self._images(resolution)
        return denoiser, training_flops(denoiser, x, self.sigma, self.labels) / _BATCH

    def inversion(self) -> float:
        """FLOPs of inverting every image that the configuration asks for."""
        section = self.config.invert
        calls = nfe(section.steps, section.solver, inverse=True, guidance=section.guidance)
        return self.denoiser_call() * self.pairs * calls

    def distillation(self) -> float:
        """FLOPs of stage 2, the teacher's samples of noise-to-data included."""
        section = self.config.distill
        total = self._one_step(self.generator_at(self.config.base_res), section)
        if section.loss.regression == "noise_to_data":
            count = self.pairs * section.pair_share
            calls = nfe(section.teacher_steps, "heun", guidance=self.config.invert.guidance)
            total += self.denoiser_call() * count * calls
        return total

    def growth(self, resolution: int) -> float:
        """FLOPs of one doubling."""
        return self._one_step(self.generator_at(resolution), self.config.grow)

    def full_step(self, section: DistillConfig | GrowConfig, resolution: int) -> float:
        """FLOPs of one step of stage 2 or 3 with all its parts."""
        optim = replace(section.optim, images=section.optim.batch)
        whole = replace(section, optim=optim, loss=replace(section.loss, adversarial_start=0.0))
        return self._one_step(self.generator_at(resolution), whole)

    def generator(self) -> Generator:
        """The generator at the base resolution."""
        law = self.config.diffusion
        card = {
            "unet": self.denoiser.spec.to_card(), "levels": [], "sigma_max": law.sigma_max,
            "sigma_data": law.sigma_data, "output_scale": 1.0,
        }  # fmt: skip
        with self.device:
            return build_generator(card)

    def generator_at(self, resolution: int) -> Generator:
        """The generator that ends at ``resolution``, frozen as its own stage trains it."""
        if resolution not in self._generators:
            section, generator = self.config.grow, self.generator()
            steps = [r for r in self.config.resolutions if self.config.base_res < r <= resolution]
            if steps:
                levels = [[level_channels(section, r), section.blocks] for r in steps]
                with self.device:
                    generator = build_generator({**generator.card(), "levels": levels})
                freeze(generator, section)
            self._generators[resolution] = generator
        return self._generators[resolution]

    def generator_call(self, generator: Generator) -> float:
        """FLOPs of one image."""
        return forward_flops(generator, self._images(self.config.base_res), self.labels) / _BATCH

    def discriminator(self, section: DiscriminatorConfig, resolution: int) -> Discriminator:
        """The discriminator of ``section`` with untrained weights."""
        if section.kind == "projected":
            made = _projected(tuple(section.backbones), self.classes, self.device)
            return made.requires_grad_(True)
        with self.device:
            if section.kind == "encoder":
                teacher, most = self.new_denoiser(), section.max_channels
                return EncoderDiscriminator(teacher, section.sigma, self.classes, most)
            widths = section.channels, section.max_channels
            return ConvDiscriminator(resolution, *widths, self.classes)

    def distance(self, loss: LossConfig) -> nn.Module | None:
        """The distance of the regression; None where it is arithmetic on pixels alone."""
        if loss.regression == "none" or loss.distance not in ("lpips", "projected"):
            return None
        return _distance(loss.distance, tuple(loss.backbones), self.device)

    def _one_step(self, generator: Generator, section: DistillConfig | GrowConfig) -> float:
        """Pairs and prior latents through the generator, and what judges them."""
        draws = Draws.of(section)
        z = self._images(self.config.base_res)
        per_latent = training_flops(generator, z, self.labels) / _BATCH
        total = per_latent * (draws.pairs + draws.prior)
        if section.loss.separate_update:  # the discriminator's fakes are made apart
            total += forward_flops(generator, z, self.labels) / _BATCH * draws.prior
        adaptive = section.loss.weighting != "fixed" and draws.pairs > 0
        total += draws.pairs * self._regression(generator.resolution, section, adaptive)
        if draws.judged:
            total += self._judgement(generator.resolution, section, draws, adaptive)
        return total

    def _regression(
        self, resolution: int, section: DistillConfig | GrowConfig, again: bool
    ) -> float:
        """One pair through the distance; its backward pass twice for an adaptive weight."""
        x, y = self._images(resolution).requires_grad_(True), self._images(resolution)
        total = 0.0
        if (distance := self.distance(section.loss)) is not None:
            seen = partial(distance, seed=0)
            both = training_flops(seen, x, y)
            total += 2 * both - forward_flops(seen, x, y) if again else both
        if section.loss.feature_weight and section.loss.adversarial != "none":
            judge = self.discriminator(section.discriminator, resolution).requires_grad_(False)
            features = training_flops(
                lambda a, b: feature_distance(judge.features(a), judge.features(b)), x, y
            )
            total += (1 - section.loss.adversarial_start) * features
        return total / _BATCH

    def _judgement(
        self, resolution: int, section: DistillConfig | GrowConfig, draws: Draws, again: bool
    ) -> float:
        """The discriminator's own steps, and the generator's way through it."""
        d = section.discriminator
        judge, x = self.discriminator(d, resolution), self._images(resolution)
        own = training_flops(judge, x, self.labels) / _BATCH
        total = own * (draws.real + draws.judged)
        if d.r1:
            total += draws.real / d.r1_every * self._penalty(judge, resolution)
        judge.requires_grad_(False)
        through = training_flops(judge, x.requires_grad_(True), self.labels) / _BATCH
        if again:
            through += through - forward_flops(judge, x, self.labels) / _BATCH
        return total + draws.judged * through

    def _penalty(self, judge: Discriminator, resolution: int) -> float:
        """R1 on one real image: forward, gradient, and the gradient's gradient."""

        def penalty(leaf: Tensor) -> Tensor:
            x = leaf * 1  # torch's counter cannot hook into autograd.grad at a leaf
            return r1_penalty(judge(x, self.labels), x)

        leaf = self._images(resolution).requires_grad_(True)
        return training_flops(penalty, leaf) / _BATCH

    def super_resolution(self, resolution: int) -> float:
        """FLOPs of one training image of a cascade's model."""
        spec = cascade_spec(self.config, resolution, self.classes)
        with self.device:
            resolver = SuperResolver(spec, self.config.diffusion.sigma_data)
        x = self._images(resolution)
        return training_flops(resolver, x, self.sigma, self.labels, x, self.sigma) / _BATCH


@lru_cache(maxsize=2)
def _projected(
    backbones: tuple[str, ...], classes: int, device: torch.device
) -> ProjectedDiscriminator:
    with device:
        return ProjectedDiscriminator(list(backbones), RANDOM, classes, 0).to(device)


@lru_cache(maxsize=2)
def _distance(kind: str, backbones: tuple[str, ...], device: torch.device) -> nn.Module:
    with device:
        if kind == "lpips":
            return LpipsDistance(RANDOM, augment=False).to(device)
        return ProjectedDistance(list(backbones), RANDOM, 0, augment=False).to(device)
