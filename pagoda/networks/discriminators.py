"""Discriminators: convolutional, on projected features, on the teacher's encoder.

The first needs no outside weights; the others are trained heads over frozen networks.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from pagoda import distributed
from pagoda.diffusion.edm import scalings
from pagoda.networks.backbones import SIDE, projected_features
from pagoda.networks.captions import CaptionLabels, CaptionTable
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.layers import BatchNorm, Frozen, at_least_float32

_EMBEDDING = 64  # channels in which a patch head compares a patch with its class
_PATCHES = 4  # side of the logits of every head of an encoder discriminator
_WIDTHS = (64, 64, 128, 256, 512)
"""Channels of a projected head, a block each, from the highest of the four maps on (Sauer et al.
2021, appendix)."""


class Discriminator(nn.Module, ABC):
    """Class-conditional logits of "real", and feature maps to measure distances in.

    Attributes:
        views: copies of the images, each with a draw of its own, that augmentation makes.
    """

    views = 1

    def aim(self, key: int) -> None:
        """Choose by ``key``, a step's number, what to look at closer; most look at everything."""

    @abstractmethod
    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps (n, c, h, w) of images x (n, 3, r, r) in [-1, 1]."""

    @abstractmethod
    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (n, 3, r, r) in [-1, 1], labels (n,) -> logits (n,) or (n, k)."""


def build_discriminator(
    kind: str, resolution: int, classes: int, *, channels: int, max_channels: int,
    backbones: list[str], weights: str, input_side: int, sigma: float, seed: int,
    teacher: Callable[[], Denoiser], class_embedding: Tensor | None = None,
    weighted: bool = False, image_channels: int = 3, labels: nn.Module | None = None,
) -> Discriminator:  # fmt: skip
    """The discriminator of a kind, ``conv``, ``projected``, ``encoder`` or ``tokens``.

    Args:
        resolution: side of the images.
        classes: number of classes.
        channels: width of the convolutional one at the highest resolution.
        max_channels: largest width, of the convolutional one or of a head on the encoder.
        backbones, weights, input_side, seed, class_embedding: of :class:`ProjectedDiscriminator`.
        sigma, teacher: of :class:`EncoderDiscriminator`; the teacher is asked for by it alone.
        weighted: a convolutional one, or one of tokens, is told the weight of the guidance.
        image_channels: of the images.
        labels: of the generator: a table of captions is what labels are compared with.
    """
    # Built on this module.
    from pagoda.networks.guidance import GuidedDiscriminator
    from pagoda.networks.token_discriminator import TokenDiscriminator

    table = labels if isinstance(labels, CaptionTable) else None
    if table is not None and class_embedding is None:
        class_embedding = table.pooled.clone()
    conv = GuidedDiscriminator if weighted else ConvDiscriminator
    makers: dict[str, Callable[[], Discriminator]] = {
        "conv": lambda: conv(resolution, channels, max_channels, classes, image_channels),
        "projected": lambda: ProjectedDiscriminator(
            backbones, weights, classes, seed, input_side, class_embedding
        ),
        "encoder": lambda: EncoderDiscriminator(teacher(), sigma, classes, max_channels),
        "tokens": lambda: TokenDiscriminator(
            backbones, weights, classes, input_side, weighted=weighted, table=table
        ),
    }
    made = makers[kind]()
    if table is not None and isinstance(made, ConvDiscriminator):
        made.register_module("label", CaptionLabels(table, made.logit.in_features))
    return made


class _Down(nn.Module):
    """Residual block that halves the resolution (Karras et al. 2020, arXiv 1912.04958, fig. 7)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.conv0(x), 0.2)
        h = F.avg_pool2d(F.leaky_relu(self.conv1(h), 0.2), 2)
        return (h + self.skip(F.avg_pool2d(x, 2))) * math.sqrt(0.5)


class ConvDiscriminator(Discriminator):
    """Logits of "real" for images of one resolution.

    Residual down-sampling to 4x4, minibatch standard deviation (Karras et al. 2018), then a
    projection head: logit = (w + embed(y)) . h (Miyato and Koyama 2018, arXiv 1802.05637).
    Weights start with He's variance for a leaky slope of 0.2.
    """

    def __init__(
        self, resolution: int, channels: int, max_channels: int, num_classes: int,
        image_channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [min(channels << i, max_channels) for i in range(int(math.log2(resolution)) - 1)]
        self.stem = nn.Conv2d(image_channels, widths[0], 3, padding=1)
        pairs = itertools.pairwise(widths)
        self.downs = nn.ModuleList([_Down(a, b) for a, b in pairs])
        last = widths[-1]
        self.mix = nn.Conv2d(last + 1, last, 3, padding=1)
        self.flat = nn.Linear(last * 16, last)
        self.logit = nn.Linear(last, 1)
        self.label = nn.Embedding(num_classes, last)
        self.apply(_he_init)
        nn.init.normal_(self.label.weight, std=last**-0.5)

    def features(self, x: Tensor) -> list[Tensor]:
        """Activations of every resolution, highest first."""
        h = F.leaky_relu(self.stem(x), 0.2)
        maps = [h]
        for down in self.downs:
            h = down(h)
            maps.append(h)
        return maps

    def mixed(self, last: Tensor) -> Tensor:
        """(n, 16 d): activations mixed with their deviation over the batch."""
        h = torch.cat([last, _minibatch_std(last)], dim=1)
        return F.leaky_relu(self.mix(h), 0.2).flatten(1)

    def classify(self, last: Tensor, labels: Tensor) -> Tensor:
        """Logits (n,) from the 4x4 activations that end :meth:`features`."""
        h = F.leaky_relu(self.flat(self.mixed(last)), 0.2)
        projection = (self.label(labels) * h).sum(1) / math.sqrt(h.shape[1])
        logits = self.logit(h).squeeze(1) + projection
        return at_least_float32(logits)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (n, 3, r, r), labels (n,) -> logits (n,)."""
        return self.classify(self.features(x)[-1], labels)


def _minibatch_std(x: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, 1, h, w): the mean over c, h, w of the deviation over the batch.

    The batch is that of all processes together.
    """
    values = at_least_float32(x)
    if distributed.world_size() == 1:
        variance = values.var(0, unbiased=False)
    else:
        n = distributed.all_reduce_with_gradient(values.new_full((), len(values)))
        mean = distributed.all_reduce_with_gradient(values.sum(0)) / n
        variance = distributed.all_reduce_with_gradient((values - mean).square().sum(0)) / n
    deviation = (variance + 1e-8).sqrt().mean()
    return deviation.to(x.dtype).expand(x.shape[0], 1, *x.shape[2:])


def _he_init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, a=0.2)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class PatchHead(nn.Module):
    """Logits of the patches of one feature map, conditioned on the class by projection.

    Sauer et al. 2021 (arXiv 2111.01007) and 2022 (2202.00273).

    A block that halves the side for each step of ``widths`` (4x4 convolution with spectral norm,
    batch norm, leaky ReLU), a convolution to 64 channels h, and
    logit = h . lrelu(W embed(y)) / sqrt(64).

    Args:
        widths: channels of the map, then of every block.
        kernel: side of the last convolution; an even one, 4 as published, has no padding, an odd
            one keeps the side.
        num_classes: rows of the class embedding.
        classes: (num_classes, d) initial class embedding; random with d = 320 without one.
    """

    def __init__(
        self, widths: list[int], num_classes: int, *, kernel: int = 4, classes: Tensor | None = None
    ) -> None:
        super().__init__()
        blocks = [
            nn.Sequential(
                spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)),
                BatchNorm(b),
                nn.LeakyReLU(0.2),
            )
            for a, b in itertools.pairwise(widths)
        ]
        self.blocks = nn.Sequential(*blocks)
        padding = kernel // 2 if kernel % 2 else 0
        last = nn.Conv2d(widths[-1], _EMBEDDING, kernel, padding=padding, bias=False)
        self.last = spectral_norm(last)
        table = torch.randn(num_classes, 320) if classes is None else classes.clone()
        self.classes = nn.Parameter(table)
        self.weight = nn.Parameter(torch.randn(_EMBEDDING, table.shape[1]))
        self.bias = nn.Parameter(torch.zeros(_EMBEDDING))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (n, c, h, w), labels (n,) -> logits (n, patches)."""
        h = self.last(self.blocks(x)).float()
        # The scale of the weight is in the forward pass (StyleGAN's equalised learning rate).
        weight = self.weight / math.sqrt(self.weight.shape[1])
        y = F.leaky_relu(F.linear(self.classes[labels], weight, self.bias), 0.2) * math.sqrt(2)
        return torch.einsum("nchw,nc->nhw", h, y.float()).flatten(1) / math.sqrt(_EMBEDDING)


class ProjectedDiscriminator(Discriminator):
    """Four heads over each of several projected feature networks (arXiv 2202.00273, section 3.2).

    At side 224, as published, the maps have sides 112, 56, 28 and 14, and 4, 3, 2 and 1 blocks make
    them 7. At other sides all heads have fewer or more blocks, so that the last side is 8 or less;
    the last convolution is 4x4, or 2x2 at side 32, whose lowest map is no larger.

    Args:
        backbones: timm models; the paper's are ``deit_base_distilled_patch16_224`` and
            ``tf_efficientnet_lite0``.
        weights: their weights, as :class:`pagoda.networks.backbones.Backbone` takes them.
        num_classes: number of classes.
        seed: of the random projections; each network has its own draw.
        side: that smaller images are resized to, a multiple of 32.
        classes: (num_classes, d) initial class embedding of every head.
    """

    def __init__(
        self,
        backbones: list[str],
        weights: str,
        num_classes: int,
        seed: int,
        side: int = SIDE,
        classes: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.views = len(backbones)
        self.networks = projected_features(backbones, weights, seed, side)
        lowest = side // 16  # side of the map that no block need halve
        blocks = 3 + max(0, math.ceil(math.log2(lowest / 8)))
        widths = [*_WIDTHS, *[_WIDTHS[-1]] * blocks][: blocks + 1]
        self.heads = nn.ModuleList([
            PatchHead([c, *widths[i + 1 :]], num_classes, kernel=min(4, lowest), classes=classes)
            for network in self.networks
            for i, c in enumerate(network.channels)  # type: ignore[arg-type]
        ])  # fmt: skip

    def features(self, x: Tensor | list[Tensor]) -> list[Tensor]:
        """The projected maps of all networks, four a network, highest resolution first.

        Of a list, each network sees its own entry.
        """
        views = x if isinstance(x, list) else [x] * len(self.networks)
        pairs = zip(self.networks, views, strict=True)
        return [m for network, view in pairs for m in network(view)]

    def forward(self, x: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """x (n, 3, r, r) in [-1, 1], labels (n,) -> logits (n, heads x patches).

        Of a list, each network sees its own entry: the official code draws augmentation a network.
        All heads have as many patches, so that a mean weighs networks, scales and patches equally.
        """
        pairs = zip(self.heads, self.features(x), strict=True)
        return torch.cat([head(m, labels) for head, m in pairs], dim=1)


class EncoderDiscriminator(Frozen, Discriminator):
    """One head a resolution of the frozen teacher's encoder, which knows images at every noise.

    In Yin et al. 2024 (arXiv 2405.14867, section 4.3) the encoder trains too.

    Images above the teacher's resolution are seen twice: whole, averaged down to it, and as one
    crop of its size, at the place of :meth:`aim`: the middle before.

    Args:
        teacher: its encoder is used; it is no part of the state and of the parameters.
        sigma: noise level that the encoder is told; no noise is added.
        num_classes: number of classes.
        max_channels: largest width of a head.
    """

    def __init__(
        self, teacher: Denoiser, sigma: float, num_classes: int, max_channels: int
    ) -> None:
        super().__init__(teacher)
        self.sigma, self.resolution = sigma, teacher.spec.resolution
        self._place = torch.full((2,), 0.5)  # of the room, from the top and from the left
        shapes = [(teacher.spec.channels * m, self.resolution >> i)
                  for i, m in enumerate(teacher.spec.channel_mult)]  # fmt: skip
        self.heads = nn.ModuleList(
            [PatchHead(_widths(c, r, max_channels), num_classes, kernel=3) for c, r in shapes]
        )

    def aim(self, key: int) -> None:
        """Where the crop is from now on."""
        self._place.uniform_(generator=torch.Generator().manual_seed(key))

    def features(self, x: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        """Encoder maps of x (n, 3, r, r) or, above the teacher's resolution, of both its views.

        The last map of every resolution, highest first; views lie one after the other in the batch.
        """
        views = self._views(x)
        labels = labels if labels is None else labels.repeat(len(views))
        x = torch.cat(views)
        teacher = self.frozen
        trunk = teacher.net.trunk
        s = scalings(x.new_full((len(x),), self.sigma), teacher.sigma_data)
        emb = trunk.embed(s.c_noise, labels)
        h = trunk.stem(s.c_in[:, None, None, None] * x)
        maps = [h]
        for stage in trunk.encoder:
            h = stage(h, emb)
            if h.shape[-1] < maps[-1].shape[-1]:
                maps.append(h)
            maps[-1] = h
        return maps

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (n, 3, r, r) in [-1, 1], labels (n,) -> logits (n, views x heads x patches)."""
        maps = self.features(x, labels)
        labels = labels.repeat(len(maps[0]) // len(x))
        pairs = zip(self.heads, maps, strict=True)
        logits = torch.cat([head(m, labels) for head, m in pairs], dim=1)
        return torch.cat(logits.split(len(x)), dim=1)

    def _views(self, x: Tensor) -> list[Tensor]:
        side, room = self.resolution, x.shape[-1] - self.resolution
        if not room:
            return [x]
        top, left = (self._place * (room + 1)).long().tolist()
        crop = x[:, :, top : top + side, left : left + side]
        return [F.interpolate(x, (side, side), mode="area"), crop]


def _widths(channels: int, side: int, most: int) -> list[int]:
    steps = max(0, round(math.log2(side / _PATCHES)))
    return [channels, *(min(channels << i, most) for i in range(1, steps + 1))]
