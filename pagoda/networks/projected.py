"""The Projected-GAN / StyleGAN-XL discriminator: trained heads over frozen feature networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pagoda.networks.discriminator import Discriminator
from pagoda.networks.heads import PatchHead
from pagoda.networks.projections import ProjectedFeatures

_WIDTHS = {128: 64, 64: 64, 32: 128, 16: 256, 8: 512}
"""Channels at the nominal sides of a head's maps (Sauer et al. 2021, appendix)."""


class ProjectedDiscriminator(Discriminator):
    """Four heads over each of several projected feature networks (arXiv 2202.00273, section 3.2).

    Args:
        backbones: timm models; the paper's are ``deit_base_distilled_patch16_224`` and
            ``tf_efficientnet_lite0``.
        weights: their weights, as :class:`pagoda.networks.backbones.Backbone` takes them.
        num_classes: number of classes.
        seed: of the random projections; each network has its own draw.
        classes: (num_classes, d) initial class embedding of every head.
    """

    def __init__(
        self,
        backbones: list[str],
        weights: str,
        num_classes: int,
        seed: int,
        classes: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.views = len(backbones)
        self.networks = nn.ModuleList(
            [ProjectedFeatures(name, weights, seed * 1000 + i) for i, name in enumerate(backbones)]
        )
        self.heads = nn.ModuleList([
            PatchHead(_head_widths(c, i), num_classes, classes=classes)
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


def _head_widths(channels: int, scale: int) -> list[int]:
    """Channels of a head's map and blocks, from nominal side 128 >> scale down to 8."""
    return [channels, *(_WIDTHS[128 >> i] for i in range(scale + 1, 5))]
