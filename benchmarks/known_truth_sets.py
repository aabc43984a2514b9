"""What is done to real images, by how much, and what a feature network must make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pagoda.errors import PagodaError
from pagoda.evaluation.samplers import Draws, Sampler, untrained
from pagoda.evaluation.streaming import Images, StoredImages
from pagoda.networks.unet import UNetSpec

SEED = 0  # of the choice of images and of what is done to them
HELD_OUT = "held out"


class Real(NamedTuple):
    """Held-out images (m, 3, r, r) and labels (m,) in random order, and how many are measured."""

    images: np.ndarray
    labels: np.ndarray
    n: int

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.labels.max()) + 1


Changed = tuple[np.ndarray, np.ndarray]
"""Images (n, 3, r, r) uint8 and the class that each is said to be of."""


def blurred(real: Real, sigma: float) -> Changed:
    smooth = gaussian_filter(real.images[: real.n].astype(np.float64), (0, 0, sigma, sigma))
    return _rounded(smooth), real.labels[: real.n]


def noised(real: Real, deviation: float) -> Changed:
    images = real.images[: real.n]
    noise = np.random.default_rng(SEED).normal(0, deviation, images.shape)
    return _rounded(images + noise), real.labels[: real.n]


def shuffled(real: Real, patches: float) -> Changed:
    """Each image cut into ``patches`` x ``patches``, which change places."""
    images, k = real.images[: real.n], int(patches)
    n, side = len(images), images.shape[-1] // k
    cut = images.reshape(n, 3, k, side, k, side).transpose(0, 2, 4, 1, 3, 5)
    rows = cut.reshape(n, k * k, 3, side, side)
    order = np.argsort(np.random.default_rng(SEED).random((n, k * k)), axis=1)
    mixed = np.take_along_axis(rows, order[:, :, None, None, None], 1)
    whole = mixed.reshape(n, k, k, 3, side, side).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(whole.reshape(images.shape)), real.labels[:n]


def without_classes(real: Real, fraction: float) -> Changed:
    """Other images in the place of those of the last classes."""
    kept = real.classes - round(fraction * real.classes)
    rows = np.flatnonzero(real.labels < kept)[: real.n]
    if len(rows) < real.n:
        raise PagodaError(
            f"{kept} classes have {len(rows)} held-out images; --n must be at most that"
        )
    return real.images[rows], real.labels[rows]


def mislabelled(real: Real, fraction: float) -> Changed:
    """The same images; the first of them are said to be of the next class."""
    labels = real.labels[: real.n].copy()
    labels[: round(fraction * real.n)] += 1
    return real.images[: real.n], labels % real.classes


def _rounded(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Change:
    """Something that is done to real images, more and more of it, and what must follow.

    Metrics in ``rises`` must rise with each amount and those in ``falls`` must not, beginning with
    the value of images that nothing was done to.
    """

    apply: Callable[[Real, float], Changed]
    unit: str
    amounts: tuple[float, ...]
    rises: tuple[str, ...] = ("fd", "kd")
    falls: tuple[str, ...] = ()


_DAMAGE = ("precision", "coverage")
CHANGES = {
    "blur": Change(blurred, "σ, pixels", (0.5, 1, 2, 4), falls=(*_DAMAGE, "recall")),
    "noise": Change(noised, "σ, levels of 255", (8, 16, 32, 64), falls=_DAMAGE),
    "patches shuffled": Change(shuffled, "patches a side", (2, 4, 8), falls=_DAMAGE),
    "classes left out": Change(
        without_classes, "fraction of the classes", (0.1, 0.3, 0.5), falls=("recall", "coverage")
    ),
    "classes swapped": Change(
        mislabelled, "fraction of the images", (0.25, 0.5), (), ("class_accuracy",)
    ),
}


def plain_noise(real: Real) -> np.ndarray:
    images = real.images[: real.n]
    return np.random.default_rng(SEED).integers(0, 256, images.shape, dtype=np.uint8)


def noise_like(real: Real) -> np.ndarray:
    """Pixels of their own, with the images' mean and deviation of every colour."""
    images = real.images[: real.n]
    mean, deviation = (f((0, 2, 3))[:, None, None] for f in (images.mean, images.std))
    return _rounded(np.random.default_rng(SEED).normal(mean, deviation, images.shape))


def flat_colours(real: Real) -> np.ndarray:
    colours = np.random.default_rng(SEED).integers(0, 256, (real.n, 3, 1, 1), dtype=np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colours, real.images[: real.n].shape))


NO_IMAGES = {"uniform noise": plain_noise, "normal noise, the images' mean and σ": noise_like,
             "flat colours": flat_colours}  # fmt: skip
UNTRAINED = "untrained generator"


def untrained_generator(real: Real) -> Sampler:
    """Random weights in a generator grown from 8 pixels to the images' side."""
    side = real.images.shape[-1]
    unet = UNetSpec(8, 32, (1, 2), 1, (), 32, 0.0, real.classes).to_card()
    card = {"unet": unet, "levels": [(32, 1)] * ((side // 8).bit_length() - 1), "sigma_max": 80.0,
            "sigma_data": 0.5, "output_scale": 0.5}  # fmt: skip

    def opened() -> tuple[Callable[[Tensor, Tensor, np.ndarray], Tensor], int]:
        network = untrained(card, SEED)
        return lambda z, labels, _: network(z, labels), sum(p.numel() for p in network.parameters())

    draws = Draws(SEED, real.n, 64, torch.device("cpu"))
    return Sampler(UNTRAINED, UNTRAINED, opened, side, 8, real.classes, 1, draws)


@dataclass(frozen=True)
class Sets:
    """Sets of images by name, and the amount of what was done to each."""

    images: dict[str, Images] = field(default_factory=dict)
    told: dict[str, tuple[str, float | None]] = field(default_factory=dict)

    def add(self, kind: str, images: Images, amount: float | None = None) -> None:
        """One set."""
        name = kind if amount is None else f"{kind} {amount:g}"
        self.images[name], self.told[name] = images, (kind, amount)


def sets_of(real: Real) -> Sets:
    """Held-out images as they are, changed, and what is none."""
    sets, labels = Sets(), real.labels[: real.n]
    sets.add(HELD_OUT, StoredImages(HELD_OUT, real.images[: real.n], labels))
    for kind, change in CHANGES.items():
        for amount in change.amounts:
            sets.add(kind, StoredImages(kind, *change.apply(real, amount)), amount)
    for kind, make in NO_IMAGES.items():
        sets.add(kind, StoredImages(kind, make(real), labels))
    sets.add(UNTRAINED, untrained_generator(real))
    return sets
