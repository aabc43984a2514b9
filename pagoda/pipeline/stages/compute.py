"""What training costs: each stage's networks and methods with no values, counted step by step.

How a step is counted: :mod:`pagoda.pipeline.stages.counters`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from pagoda.config import Config, VariantConfig
from pagoda.diffusion.solver import nfe
from pagoda.errors import PagodaError
from pagoda.methods.cascade import CascadeTraining
from pagoda.methods.classifier import ClassifierConfig
from pagoda.methods.clip import OWN, CaptionedGiven
from pagoda.networks.autoencoder import Autoencoder
from pagoda.networks.classifier import FeatureNetwork
from pagoda.networks.clip import Clip
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.generator import Generator, build_generator
from pagoda.networks.super_resolution import SuperResolver
from pagoda.networks.unet import UNetSpec
from pagoda.pipeline.stages import autoencoder, clip, scorer
from pagoda.pipeline.stages.counters import (
    META,
    forward_flops,
    kept_bytes,
    networks_of,
    parameters,
    step_flops,
)
from pagoda.pipeline.stages.features import feature_network
from pagoda.pipeline.stages.grow import freeze, level_channels
from pagoda.pipeline.stages.study_spec import TRAINED, whole_batches
from pagoda.pipeline.stages.super_resolution import cascade_optim, cascade_spec
from pagoda.pipeline.stages.teacher import unet_spec
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.method import Given, Method, find_method
from pagoda.training.settings import MethodConfig

CLIPS = "clip", "scorer"
"""Stages that train a CLIP, both by the section ``text``."""

_STORED = 256  # images and latents that batches are drawn from
_BATCH = 2  # of a call that is counted and divided


def _empty(dtype: type, shape: tuple[int, int, int]) -> np.ndarray:
    """Zeros (n, channels, side, side) that take the memory of one number."""
    return np.broadcast_to(np.zeros((), dtype), (_STORED, *shape))


@dataclass(frozen=True)
class Held:
    """What a training stage holds.

    Attributes:
        networks: frozen ones too; one that shares its weights with another counts once, and so
            does one with the frozen network inside it.
        parameters: theirs.
        memory: bytes at most, in float32: their weights, the averages, gradients and Adam's moments
            of what trains, and what waits for the backward pass of a whole batch. What a kernel or
            a frozen network needs for a moment is not in it.
    """

    networks: int
    parameters: int
    memory: int


class Untrained:
    """Networks of one experiment with untrained weights, and methods that train them on nothing.

    Neither a count nor a time depends on the weights or the pixels.

    Args:
        config: the experiment.
        classes: number of classes.
        images: training images there are.
        device: the meta device to count, a real one to take times.
    """

    def __init__(
        self, config: Config, classes: int, images: int, device: torch.device = META
    ) -> None:
        self.config, self.classes, self.device = config, classes, device
        self.images = images
        wanted = config.invert.images or images
        self.pairs = min(wanted, images) * (2 if config.invert.flips else 1)
        self._sampled = False  # whether a method asked for the teacher's samples

    def features(self) -> FeatureNetwork:
        """The embedded classifier."""
        with self.device:
            return feature_network(self.config, self.classes)

    def denoiser(self) -> Denoiser:
        """The teacher."""
        with self.device:
            return Denoiser(self.spec, self.config.diffusion.sigma_data)

    @property
    def spec(self) -> UNetSpec:
        """The teacher's U-Net; of captions whose encoder the run trains, with attention to them."""
        spec, text = unet_spec(self.config, self.classes), self.config.text
        if self.config.captioned and text.encoder == OWN:
            return replace(spec, captions=(text.context, text.width, text.embed))
        return spec

    def resolver(self, resolution: int) -> SuperResolver:
        """A cascade's model."""
        with self.device:
            spec = cascade_spec(self.config, resolution, self.classes)
            return SuperResolver(spec, self.config.diffusion.sigma_data)

    def generator(self, resolution: int) -> Generator:
        """The generator that ends at ``resolution``, frozen as its own stage trains it."""
        noise, section = self.config.diffusion, self.config.grow
        steps = [r for r in self.config.resolutions if self.config.base_res < r <= resolution]
        card = {
            "unet": self.spec.to_card(),
            "levels": [[level_channels(section, r), section.blocks] for r in steps],
            "sigma_max": noise.sigma_max, "sigma_data": noise.sigma_data, "output_scale": 1.0,
        }  # fmt: skip
        with self.device:
            generator = build_generator(card)
        if steps:
            freeze(generator, section)
        return generator

    def call(self, network: nn.Module, resolution: int) -> float:
        """FLOPs of one image, or of its codes, through a denoiser or, from its latent, a generator.

        ``resolution``: of the images that the input belongs to.
        """
        n = _BATCH
        x = torch.zeros(n, *self.config.shape(resolution), device=self.device)
        labels = torch.zeros(n, dtype=torch.int64, device=self.device)
        sigma = [torch.ones(n, device=self.device)] if isinstance(network, Denoiser) else []
        return forward_flops(network, x, *sigma, labels) / n

    def autoencoder(self) -> Autoencoder:
        """The autoencoder that the configuration trains."""
        with self.device:
            return autoencoder.untrained(self.config.autoencoder)

    def clip(self, stage: str = "clip") -> Clip:
        """The CLIP that reads captions and a loss may ask, or the scorer.

        Its tokenizer is of one caption: how many tokens it knows moves no FLOP.
        """
        with self.device:
            section = section_of(self.config, stage)
            return clip.untrained(section, ["a red ring"], self.config.target_res)

    def encoding(self, resolution: int) -> float:
        """FLOPs of the codes of one image; 0 where images themselves are modelled."""
        if not self.config.latent:
            return 0.0
        x = torch.zeros(_BATCH, 3, resolution, resolution, device=self.device)
        return forward_flops(self.autoencoder().encode, x) / _BATCH

    def decoding(self, resolution: int) -> float:
        """FLOPs of one image from its codes; 0 where images themselves are modelled."""
        if not self.config.latent:
            return 0.0
        z = torch.zeros(_BATCH, *self.config.shape(resolution), device=self.device)
        return forward_flops(self.autoencoder().decode, z) / _BATCH

    def encoded(self, resolution: int) -> float:
        """FLOPs of encoding every training image and its mirror image."""
        means = self.config.autoencoder.pyramid == "codes"
        return 2 * self.images * self.encoding(self.config.target_res if means else resolution)

    @cached_property
    def denoiser_call(self) -> float:
        """FLOPs of one evaluation of the teacher on one image."""
        return self.call(self.denoiser(), self.config.base_res)

    def inversion(self) -> float:
        """FLOPs of inverting every image that the configuration asks for."""
        section = self.config.invert
        calls = nfe(section.steps, section.solver, inverse=True, guidance=section.costliest)
        return self.denoiser_call * self.pairs * calls

    def method(self, stage: str, images: int | None = None) -> Method:
        """The method of a stage: ``teacher``, ``autoencoder``, ``grow-16``, ``cascade-16`` ...

        Args:
            images: of a step, instead of the configuration's.
        """
        kind, _, at = stage.partition("-")
        config, resolution = self.config, int(at or self.config.base_res)
        section: MethodConfig
        network: nn.Module
        if kind == "cascade":
            section, name = CascadeTraining(cascade_optim(config)), "cascade"
            network = self.resolver(resolution)
        elif kind == "features":
            section, name = ClassifierConfig(config.features.optim), "classifier"
            network, resolution = self.features(), config.target_res
        elif kind == "autoencoder":
            section, name, network = config.autoencoder, "autoencoder", self.autoencoder()
        elif kind == "teacher":
            section, name, network = config.teacher, "teacher", self.denoiser()
        elif kind in CLIPS:
            section, name = section_of(config, kind), "clip"
            network, resolution = self.clip(kind), config.target_res
        else:
            section = found = getattr(config, kind)
            name, network = found.method, self.generator(resolution)
        if images is not None:
            section = section.scaled(images)
        if self.device.type == "meta":
            optim = replace(section.optim, precision="fp32", compile=False, micro_batch=None)
            section = replace(section, optim=optim)
        with self.device:
            return find_method(name)(section.untrained(), self._given(network, kind, resolution))

    def _given(self, network: nn.Module, kind: str, resolution: int) -> Given:
        c, labels = self.config, np.arange(_STORED) % self.classes
        sizes = {"cascade": [resolution // 2, resolution], "autoencoder": c.resolutions}
        stores = [_empty(np.uint8, (3, side, side)) for side in sizes.get(kind, [resolution])]
        if c.latent and kind not in ("features", "autoencoder", *CLIPS):
            stores = [_empty(np.float32, c.shape(resolution))]
        pairs = PairBatches(
            latents=_empty(np.float32, c.shape(c.base_res)),
            indices=np.arange(_STORED),
            flips=np.zeros(_STORED, np.uint8), images=stores[-1], labels=labels, device=self.device,
        )  # fmt: skip

        def teacher_pairs() -> PairBatches:
            self._sampled = True
            return pairs

        if self.device.type != "meta":
            network = network.to(self.device).to(memory_format=torch.channels_last)
        images = ImageBatches(stores=stores, labels=labels, device=self.device)
        of = network, images, self.device, self.config.seed, self.config.diffusion
        if kind in CLIPS:
            return CaptionedGiven(*of, texts=torch.zeros(self.classes, c.text.context).long())
        return Given(
            *of, pairs, self.denoiser, teacher_pairs if kind == "distill" else None, clip=self.clip
        )

    def training(self, stage: str) -> float:
        """FLOPs of a whole stage, with the teacher's samples that its method asks for.

        Data loading, optimisers and evaluation are not in it.
        """
        method = self.method(stage)
        sampled, self._sampled = self._sampled, False
        total = 0.0
        for steps, progress in self._phases(stage, method):
            step, often = step_flops(method, 0, progress), method.period - 1
            if often:
                step = (step + often * step_flops(method, 1, progress)) / method.period
            total += step * steps
        if sampled:
            distill, guidance = self.config.distill, self.config.invert.costliest
            calls = nfe(distill.teacher_steps, "heun", guidance=guidance)
            total += self.denoiser_call * calls * self.pairs * distill.pair_share
        return total

    def _phases(self, stage: str, method: Method) -> list[tuple[int, float]]:
        """Parts of a training stage whose steps are alike: how many, and the middle's progress."""
        kind, config = stage.partition("-")[0], self.config
        optim = cascade_optim(config) if kind == "cascade" else section_of(config, kind).optim
        edges = sorted({0, *(math.ceil(at * optim.steps) for at in method.turns), optim.steps})
        return [(stop - start, (start + stop) / 2 / optim.steps)
                for start, stop in itertools.pairwise(edges)]  # fmt: skip

    def held(self, stage: str) -> Held:
        """What a training stage holds in memory."""
        method = self.method(stage)
        own = [sum(p.numel() for p in weights) for weights in networks_of(method)]
        kept = 0
        for _, progress in self._phases(stage, method):
            kept = max(kept, *(kept_bytes(method, i, progress) for i in range(method.period)))
        trained = {id(p): p.numel() for player in method.players.values()
                   for p in player.network.parameters() if p.requires_grad}  # fmt: skip
        averaged = sum(parameters(player.ema) for player in method.players.values()
                       if hasattr(player, "ema"))  # fmt: skip
        numbers = sum(own) + 3 * sum(trained.values()) + averaged  # a gradient, Adam's two moments
        return Held(len(own), sum(own), 4 * numbers + kept)


def training_compute(
    config: Config, steps: tuple[str, ...], classes: int, images: int, up_to: int | None = None
) -> dict[str, float]:
    """FLOPs of each training step of a variant, by the name of what it trains.

    Args:
        steps: steps of a variant (``pagoda.pipeline.stages.study_spec.STEPS``).
        classes: number of classes.
        images: training images there are.
        up_to: resolution above which nothing is counted.
    """
    untrained = Untrained(config, classes, images)
    other: dict[str, Callable[[], float]] = {
        "invert": untrained.inversion,
        **{f"encode-{r}": partial(untrained.encoded, r) for r in config.resolutions},
    }
    return {stage: other[stage]() if stage in other else untrained.training(stage)
            for stage in stages_of(config, steps)
            if up_to is None or resolution_of(config, stage) <= up_to}  # fmt: skip


def with_compute(
    config: VariantConfig, steps: tuple[str, ...], wanted: float, classes: int, images: int
) -> VariantConfig:
    """The variant with as many training images, in whole batches, as take the FLOPs wanted.

    The images of all sections are multiplied by one factor, of which FLOPs are an affine function:
    what is inverted, encoded or sampled for training stays.

    Args:
        config, steps, classes, images: as in :func:`training_compute`.
        wanted: FLOPs of all of its training steps.

    Raises:
        PagodaError: what does not follow the training images takes more by itself.
    """

    def scaled(factor: float) -> VariantConfig:
        sections: dict[str, Any] = {}
        for name in TRAINED:
            section = getattr(config, name)
            count = whole_batches(factor * section.optim.images, section.optim.batch)
            sections[name] = replace(section, optim=replace(section.optim, images=count))
        return replace(config, **sections)

    def flops(factor: float) -> float:
        return sum(training_compute(scaled(factor), steps, classes, images).values())

    once, twice = flops(1.0), flops(2.0)
    factor = 1.0 + (wanted - once) / (twice - once)
    if factor <= 0.0:
        raise PagodaError(
            f"what this variant inverts, encodes and samples takes more than the {wanted:.3g} "
            "FLOPs that it is given (compute_of in study.yaml); invert fewer images"
        )
    return scaled(factor)


def clips_of(config: Config) -> list[str]:
    """The CLIPs that an experiment trains: one that reads captions, one that scores samples."""
    own = config.text.encoder == OWN
    return [kind for kind in CLIPS if config.captioned and (kind == "scorer" or own)]


def section_of(config: Config, kind: str) -> Any:
    """The section of a kind of stage that trains: ``teacher``, ``grow``, ``scorer`` ..."""
    if kind in CLIPS:
        return scorer.section_of(config) if kind == "scorer" else config.text
    return getattr(config, kind)


def resolution_of(config: Config, stage: str) -> int:
    """The resolution at which a stage trains: ``grow-16`` 16, ``teacher`` the base."""
    return int(stage.partition("-")[2] or config.base_res)


def is_training(stage: str) -> bool:
    """Whether it trains: inversion and encoding only use a network that is there."""
    return stage != "invert" and not stage.startswith("encode-")


def training_held(
    config: Config, steps: tuple[str, ...], classes: int, images: int
) -> dict[str, Held]:  # fmt: skip
    """What each training step of a variant holds."""
    untrained = Untrained(config, classes, images)
    return {stage: untrained.held(stage) for stage in stages_of(config, steps)
            if is_training(stage)}  # fmt: skip


def stages_of(config: Config, steps: tuple[str, ...]) -> list[str]:
    """What the steps of a variant train, encode or invert; captions and measuring are no cost."""
    above = config.resolutions[1:]
    grown = [f"grow-{r}" for r in above]
    stages = {step: [step] for step in ("autoencoder", "teacher", "invert", "distill")}
    stages |= {"encode": [f"encode-{r}" for r in config.resolutions], "grow": grown,
               "grow_each": grown, "cascade": [f"cascade-{r}" for r in above]}  # fmt: skip
    return [stage for step in steps for stage in stages.get(step, [])]
