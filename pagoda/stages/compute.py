"""What the stages of an experiment cost to compute, from counts of its real networks."""

from __future__ import annotations

import torch
from torch import Tensor

from pagoda.config import Config, DistillConfig, GrowConfig
from pagoda.diffusion.solver import nfe
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.discriminator import ConvDiscriminator
from pagoda.networks.flops import forward_flops, training_flops
from pagoda.networks.generator import Generator, generator_from_teacher, grow
from pagoda.networks.super_resolution import SuperResolver
from pagoda.stages.super_resolution import cascade_spec
from pagoda.stages.teacher import unet_spec

_BATCH = 2  # counted together and divided; the discriminator's batch deviation needs two


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


class Counter:
    """Networks of one configuration, freshly made; weights do not change a count."""

    def __init__(self, config: Config, classes: int, images: int) -> None:
        self.config, self.classes = config, classes
        flips = 2 if config.invert.flips else 1
        self.pairs = min(config.invert.images or images, images) * flips
        self.denoiser = Denoiser(unet_spec(config, classes), config.diffusion.sigma_data)
        self.labels = torch.zeros(_BATCH, dtype=torch.int64)
        self.sigma = torch.ones(_BATCH)

    def _images(self, resolution: int) -> Tensor:
        return torch.zeros(_BATCH, 3, resolution, resolution)

    def denoiser_training(self) -> float:
        """FLOPs of one image of stage 1."""
        x = self._images(self.config.base_res)
        return training_flops(self.denoiser, x, self.sigma, self.labels) / _BATCH

    def denoiser_call(self) -> float:
        """FLOPs of one evaluation of the denoiser on one image."""
        x = self._images(self.config.base_res)
        return forward_flops(self.denoiser, x, self.sigma, self.labels) / _BATCH

    def inversion(self) -> float:
        """FLOPs of inverting every image that the configuration asks for."""
        section = self.config.invert
        calls = nfe(section.steps, section.solver, inverse=True)
        return self.denoiser_call() * self.pairs * calls

    def distillation(self) -> float:
        """FLOPs of stage 2, the teacher's samples of noise-to-data included."""
        section = self.config.distill
        generator = self.generator()
        total = self._one_step(generator, section)
        if section.loss.regression == "noise_to_data":
            count = self.pairs * section.pair_share
            total += self.denoiser_call() * count * nfe(section.teacher_steps, "heun")
        return total

    def growth(self, resolution: int) -> float:
        """FLOPs of one doubling."""
        section, generator = self.config.grow, self.generator()
        while generator.resolution < resolution:
            generator = self.grown(generator)
        generator.freeze_base(section.trainable_base_blocks, section.train_lower_levels)
        return self._one_step(generator, section)

    def generator(self) -> Generator:
        """The generator at the base resolution, its weights the denoiser's."""
        law, output = self.config.diffusion, self.config.distill.output
        return generator_from_teacher(self.denoiser, sigma_max=law.sigma_max, output=output)

    def grown(self, generator: Generator) -> Generator:
        """A generator with one more level, as ``grow`` of the configuration has it."""
        section = self.config.grow
        return grow(generator, channels=section.channels, blocks=section.blocks)

    def _one_step(self, generator: Generator, section: DistillConfig | GrowConfig) -> float:
        """Pairs and prior latents through the generator, real and generated through the judge."""
        optim, loss = section.optim, section.loss
        z = self._images(self.config.base_res)
        per_latent = training_flops(generator, z, self.labels) / _BATCH
        pairs = optim.images if loss.regression != "none" else 0
        if loss.adversarial == "none":
            return per_latent * pairs
        share = 1 - loss.adversarial_start
        prior = share * section.prior_batch * optim.images / optim.batch
        return per_latent * (pairs + prior) + prior * self._judge(generator.resolution, section)

    def _judge(self, resolution: int, section: DistillConfig | GrowConfig) -> float:
        """Its own step on a real and a generated image, and the generator's way through it."""
        d = section.discriminator
        judge = ConvDiscriminator(resolution, d.channels, d.max_channels, self.classes)
        x = self._images(resolution)
        own = training_flops(judge, x, self.labels)
        judge.requires_grad_(False)
        through = training_flops(judge, x.requires_grad_(True), self.labels)
        return (2 * own + through) / _BATCH

    def super_resolution(self, resolution: int) -> float:
        """FLOPs of one training image of a cascade's model."""
        spec = cascade_spec(self.config, resolution, self.classes)
        resolver = SuperResolver(spec, self.config.diffusion.sigma_data)
        x = self._images(resolution)
        return training_flops(resolver, x, self.sigma, self.labels, x, self.sigma) / _BATCH
