"""The diffusion teacher: EDM denoising (Karras et al. 2022, arXiv 2206.00364)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pagoda.fields import opt
from pagoda.training.method import Given, Loss, Method
from pagoda.training.settings import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pagoda.training.draw import GlobalDraw


@dataclass(frozen=True)
class UNetConfig:
    """ADM-style U-Net. Levels halve the resolution until ``lowest_res``."""

    channels: int = opt("width at the highest resolution", default=32, ge=8)
    channel_mult: list[int] = opt(
        "width multiplier a level, highest resolution first", default=[1, 2, 2, 2]
    )
    lowest_res: int = opt("resolution of the innermost level", default=4, ge=1, power_of_two=True)
    blocks: int = opt("residual blocks a level", default=1, ge=1)
    attention: list[int] = opt("resolutions with self-attention", default=[8, 4])
    head_channels: int = opt("channels a head of attention", default=32, ge=1)
    dropout: float = opt("dropout in residual blocks of the teacher", default=0.0, ge=0, lt=1)
    time_scale: float = opt("the sinusoidal embedding sees time_scale x c_noise", default=1.0, gt=0)
    min_group: int = opt(
        "fewest channels a group of normalisation: EDM 4, ADM and PaGoDA 1", default=4, ge=1
    )


@dataclass(frozen=True)
class TeacherConfig(MethodConfig):
    """Stage 1: the diffusion teacher."""

    imported: str = opt(
        "folder of weights, as pagoda import makes it, to take instead of training; weights/none: "
        "train",
        default="weights/none",
    )
    network: UNetConfig = opt("denoiser network", default=UNetConfig())
    augment: float = opt(
        "probability of each of EDM's augmentations, for small data sets; 0 = mirror images only",
        default=0.0, ge=0, le=1,
    )  # fmt: skip
    label_dropout: float = opt(
        "probability that an image's class is not told in training, as invert.guidance needs",
        default=0.0, ge=0, lt=1,
    )  # fmt: skip


class Denoising(Method):
    """EDM denoising of images at noise levels ln sigma ~ N(p_mean, p_std^2)."""

    of_generators = False
    config: MethodConfig

    def __init__(self, config: MethodConfig, given: Given) -> None:
        from pagoda.training.player import Player

        self.config, self.images, self.diffusion = config, given.images, given.diffusion
        self.player = Player(given.network, config.optim, given.device)
        self.players = {"denoiser": self.player}

    def sigma(self, draw: GlobalDraw, like: Tensor) -> Tensor:
        """Noise levels of a batch."""
        n = self.config.optim.batch
        return draw.sigma(n, self.diffusion.p_mean, self.diffusion.p_std).to(like)

    def losses(
        self, draw: GlobalDraw, images: Tensor, labels: Tensor, sigma: Tensor,
        **told: Tensor | None,
    ) -> Iterator[Loss]:  # fmt: skip
        """One update by the denoising loss, in micro batches.

        Args:
            told: what else the network is told of each image, by the name of its argument.
        """
        from pagoda.losses.denoising import denoising_loss
        from pagoda.training.micro_batch import slices

        n = self.config.optim.batch
        noise = draw.noise(images, n)
        for rows in slices(len(images), self.config.optim.micro_batch):
            facts = {name: value[rows] for name, value in told.items() if value is not None}
            with self.player.autocast():
                loss = denoising_loss(
                    partial(self.player.network, **facts), images[rows], labels[rows], sigma[rows],
                    noise[rows], self.diffusion.sigma_data,
                )  # fmt: skip
            part = draw.mean(loss, n, rows=len(images[rows]))
            yield Loss("denoiser", part, last=rows.stop == len(images))


class Teacher(Denoising):
    """The denoiser that is distilled."""

    Config = TeacherConfig
    config: TeacherConfig

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """One update."""
        from pagoda.losses.edm_augment import NORMALS, UNIFORMS, draw_transforms, edm_augment
        from pagoda.networks.unet import NO_CLASS

        config, n = self.config, self.config.optim.batch
        images, labels = draw.images(self.images, n)
        described = None
        if config.augment:
            numbers = draw.uniform(n, UNIFORMS), draw.normal(n, NORMALS)
            transforms = draw_transforms(*numbers, config.augment)
            images, described = edm_augment(images, transforms), transforms.labels.to(images)
        if config.label_dropout:
            # Without its class now and then, the network learns the unconditional denoiser too
            # (classifier-free guidance, Ho and Salimans 2022).
            untold = draw.uniform(n) < config.label_dropout
            labels = labels.masked_fill(untold.to(labels.device), NO_CLASS)
        sigma = self.sigma(draw, images)
        yield from self.losses(draw, images, labels, sigma, augment=described)
