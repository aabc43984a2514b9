"""Configuration that methods share. Nothing heavy is imported: it is read by every command."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

from pagoda.fields import Check, opt


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and length of one training stage. Time is counted in images seen."""

    images: int = opt("images seen in training", ge=1)
    batch: int = opt("images a step", ge=1)
    lr: float = opt("peak learning rate", gt=0)
    beta1: float = opt("Adam beta 1", default=0.9, ge=0, lt=1)
    beta2: float = opt("Adam beta 2", default=0.99, ge=0, lt=1)
    weight_decay: float = opt("decoupled weight decay", default=0.0, ge=0)
    warmup: float = opt("fraction of training with a linear warm-up", default=0.0, ge=0, lt=1)
    decay: float = opt(
        "fraction of training, at the end, over which the rate falls to 0", default=0.0, ge=0, le=1
    )
    clip: float | None = opt("largest gradient norm; null = no clipping", default=None, gt=0)
    ema: float = opt(
        "decay of the weight average a step, ramped as (1+t)/(10+t)", default=0.999, ge=0, lt=1
    )
    optimizer: str = opt("optimiser", default="adamw", choices=("adamw", "radam"))
    precision: str = opt(
        "autocast precision of the networks; fp16, with gradient scaling, needs a GPU",
        default="fp32", choices=("fp32", "bf16", "fp16"),
    )  # fmt: skip
    micro_batch: int | None = opt(
        "images whose activations a process holds at once; null = its whole part of the batch. "
        "The result is the whole batch's",
        default=None, ge=1,
    )  # fmt: skip
    ema_profiles: list[float] = opt(
        "relative widths sigma_rel of averages by a power function that are kept beside the other; "
        "0.05 and 0.1 make any between by 'pagoda ema'",
        default=[],
    )
    ema_snapshots: int = opt("snapshots of each of ema_profiles over training", default=16, ge=1)
    compile: bool = opt(
        "torch.compile of the networks; needs a C++ compiler, first steps are slow", default=False
    )

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.images // self.batch

    def rival(self, **own: Any) -> Self:
        """How a network trains that the main one trains against: neither decayed nor clipped."""
        return replace(self, weight_decay=0.0, clip=None, **own)

    def rate(self, progress: float) -> float:
        """Factor on every learning rate at a fraction of training done, in [0, 1].

        It rises linearly over the first ``warmup`` part and falls as the square root of the time
        left over the last ``decay`` part.
        """
        rise = min(1.0, (progress + 1 / self.steps) / self.warmup) if self.warmup else 1.0
        fall = math.sqrt(min(1.0, (1 - progress) / self.decay)) if self.decay else 1.0
        return rise * fall

    def checks(self, at: str) -> Iterator[Check]:
        """Whole steps, and profiles that exist."""
        yield (self.images % self.batch == 0, f"{at}batch", self.batch,
               f"a divisor of {at}images = {self.images}")  # fmt: skip
        yield (all(0 < width < 0.28 for width in self.ema_profiles), f"{at}ema_profiles",
               self.ema_profiles, "a list of relative widths above 0 and below 0.28")  # fmt: skip


@dataclass(frozen=True)
class MethodConfig:
    """What the section of every method has."""

    optim: OptimConfig = opt("optimiser")

    def scaled(self, images: int) -> Self:
        """With steps of so many images."""
        return replace(self, optim=replace(self.optim, batch=images))

    def untrained(self) -> Self:
        """With networks that need no file of weights, to be counted and timed."""
        return self

    def published(self) -> Iterator[tuple[str, str]]:
        """Networks of others that the losses see: timm's names, and where weights come from."""
        yield from ()


@dataclass(frozen=True)
class DiffusionConfig:
    """EDM noise schedule and grid (Karras et al. 2022, table 1)."""

    sigma_data: float = opt("standard deviation of the data", gt=0)
    sigma_min: float = opt("smallest noise level of the grid", gt=0)
    sigma_max: float = opt("largest noise level of the grid", gt=0)
    rho: float = opt("exponent of the grid", gt=0)
    p_mean: float = opt("mean of ln sigma in training")
    p_std: float = opt("standard deviation of ln sigma in training", gt=0)

    def checks(self, at: str) -> Iterator[Check]:
        """The grid has two ends."""
        yield (self.sigma_min < self.sigma_max, f"{at}sigma_min", self.sigma_min,
               f"below {at}sigma_max = {self.sigma_max:g}")  # fmt: skip


BACKBONES = ["deit_base_distilled_patch16_224", "tf_efficientnet_lite0"]
"""Networks of the paper's discriminator, by their names in timm."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Discriminator and how it is trained."""

    kind: str = opt(
        "conv: trained from scratch; projected: heads on frozen timm networks (StyleGAN-XL); "
        "encoder: heads on the teacher's frozen encoder; tokens: a logit a token of frozen timm "
        "networks (StyleGAN-T, the paper's for text), told the weight of the guidance by guided",
        default="conv", choices=("conv", "projected", "encoder", "tokens"),
    )  # fmt: skip
    channels: int = opt("conv: width at the input resolution", default=32, ge=4)
    max_channels: int = opt("conv and encoder: largest width", default=128, ge=4)
    backbones: list[str] = opt("projected and tokens: timm networks", default=BACKBONES)
    weights: str = opt(
        "projected and tokens: pretrained, random, or the folder that holds the weights",
        default="pretrained",
    )
    input_side: int = opt(
        "projected and tokens, and the distance projected: side that smaller images are resized "
        "to, a multiple of 32; 224 as published, 64 to 128 for small images and CPUs",
        default=224, ge=32,
    )  # fmt: skip
    class_embedding: str | None = opt(
        "projected: .npy file (classes, d) that the class embeddings start from; null = random",
        default=None,
    )
    sigma: float = opt("encoder: noise level that the teacher's encoder is told", default=0.1, gt=0)
    optimizer: str = opt("optimiser", default="adamw", choices=("adamw", "radam"))
    lr: float = opt("learning rate", default=1e-3, gt=0)
    beta1: float = opt("Adam beta 1", default=0.0, ge=0, lt=1)
    beta2: float = opt("Adam beta 2", default=0.99, ge=0, lt=1)
    r1: float = opt("weight gamma of the R1 penalty; 0 = none", default=0.0, ge=0)
    r1_every: int = opt("steps between R1 penalties", default=8, ge=1)
    augment: bool = opt("DiffAugment on what the discriminator sees", default=False)

    def checks(self, at: str) -> Iterator[Check]:
        """A side that the networks halve five times."""
        side = self.input_side
        yield side % 32 == 0, f"{at}input_side", side, "a multiple of 32"
