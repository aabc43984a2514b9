"""Networks that are told the weight of classifier-free guidance, or guess it (PaGoDA, section 4).

The weight omega is that of p(x | c, omega) ~ p(x | c)^omega p(x)^(1 - omega); 1 is no guidance. It
is embedded as a noise level is, times 100 (arXiv 2405.14822, appendix A.2).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.networks.discriminators import ConvDiscriminator
from pagoda.networks.layers import WeightEmbedding, at_least_float32

if TYPE_CHECKING:
    from pagoda.networks.clip import Clip

_MOST_PRODUCTS = 64  # side of what a ProductEstimator convolves, as published


class GuidedDiscriminator(ConvDiscriminator):
    """The convolutional discriminator, told the weight: D(x, c, omega).

    The weight enters both factors of the projection, the path of the image and that of the class:
    h = lrelu(flat(...) + a(omega)), logit = (w + embed(c) + b(omega)) . h.
    """

    def __init__(
        self, resolution: int, channels: int, max_channels: int, num_classes: int,
        image_channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__(resolution, channels, max_channels, num_classes, image_channels)
        width = self.logit.in_features
        self.of_image = WeightEmbedding(width, width, asleep=False)
        self.of_class = WeightEmbedding(width, width, asleep=False)

    def classify(self, last: Tensor, labels: Tensor, omega: Tensor | None = None) -> Tensor:
        """Logits (n,) from the 4x4 activations that end :meth:`features`."""
        assert omega is not None
        h = self.flat(self.mixed(last)) + self.of_image(omega)
        h = F.leaky_relu(h, 0.2)
        told = self.label(labels) + self.of_class(omega)
        projection = (told * h).sum(1) / math.sqrt(h.shape[1])
        return at_least_float32(self.logit(h).squeeze(1) + projection)

    def forward(self, x: Tensor, labels: Tensor, omega: Tensor | None = None) -> Tensor:
        """x (n, c, r, r), labels (n,), omega (n,) -> logits (n,)."""
        return self.classify(self.features(x)[-1], labels, omega)


def _averaged(x: Tensor, resolution: int) -> Tensor:
    """Images, larger ones averaged down to a resolution."""
    factor = x.shape[-1] // resolution
    return F.avg_pool2d(x, factor) if factor > 1 else x


class WeightEstimator(nn.Module):
    """omega_phi(x, c): the weight of guidance that an image of a class looks like.

    Trained by squared error on samples of the teacher whose weights are known, it is the mean of
    p(omega | x, c), so that a real pair (x, c) becomes a triple (x, c, omega) for a discriminator:
    p(c) pi(omega) p(x | c, omega) = p(x, c) p(omega | x, c) (section 4). It convolves the image
    and knows the class:

        h = conv(x),  omega = low + (high - low) sigmoid((w + embed(c)) . h / sqrt(d)).

    Args:
        resolution: of the images, those of the teacher.
        channels: width at that resolution, doubled at each lower one.
        num_classes: number of classes.
        low: smallest weight.
        high: largest weight.
        image_channels: of the images, 3, or of codes.
    """

    def __init__(
        self, resolution: int, channels: int, num_classes: int, low: float, high: float,
        image_channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.resolution, self.low, self.high = resolution, low, high
        widths = [channels << i for i in range(int(math.log2(resolution)) - 1)]
        layers: list[nn.Module] = [nn.Conv2d(image_channels, widths[0], 3, padding=1), nn.SiLU()]
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.flat = nn.Linear(widths[-1] * 16, 64)
        self.logit = nn.Linear(64, 1)
        self.label = nn.Embedding(num_classes, 64)
        nn.init.normal_(self.label.weight, std=1 / 8)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (n, c, r, r) in [-1, 1], labels (n,) -> weights (n,) from ``low`` to ``high``.

        Larger images are averaged down to the estimator's resolution first.
        """
        h = F.silu(self.flat(self.body(_averaged(x, self.resolution)).flatten(1)))
        logit = self.logit(h).squeeze(1) + (self.label(labels) * h).sum(1) / math.sqrt(h.shape[1])
        return self.low + (self.high - self.low) * torch.sigmoid(at_least_float32(logit))

    def card(self) -> dict[str, Any]:
        """What :func:`build_estimator` makes another one from."""
        first = self.body[0]
        assert isinstance(first, nn.Conv2d)
        return {"kind": "image", "resolution": self.resolution, "channels": first.out_channels,
                "num_classes": self.label.num_embeddings, "low": self.low, "high": self.high,
                "image_channels": first.in_channels}  # fmt: skip


class ProductEstimator(nn.Module):
    """omega_phi(x, c) of what CLIP makes of image and caption, as the paper's is (appendix A.2).

    The products a b^T of the entries of both embeddings, each of mean square 1, reduced by means
    of blocks to a side of at most 64 as published, are the image that :class:`WeightEstimator`
    convolves. The paper's network is the encoder of a U-Net of which no more is known.

    Args:
        resolution: of the images, those of the teacher.
        channels: width at the side of the products, doubled at each lower one.
        low: smallest weight.
        high: largest weight.
        clip: the CLIP of the captions, frozen; it is no part of this network's weights.
        captions: its embeddings (captions, d) of them, entries of mean square 1.
    """

    def __init__(
        self, resolution: int, channels: int, low: float, high: float, clip: Clip, captions: Tensor
    ) -> None:
        super().__init__()
        self.resolution, self._told_by = resolution, (clip, captions)
        side = 1 << int(math.log2(min(_MOST_PRODUCTS, captions.shape[1])))
        self.of_products = WeightEstimator(side, channels, 1, low, high, image_channels=1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (n, 3, r, r) in [-1, 1], numbers of captions (n,) -> weights (n,).

        Larger images are averaged down to the estimator's resolution first.
        """
        clip, captions = self._told_by
        a = clip.images(_averaged(x, self.resolution)) * clip.spec.embed**0.5
        products = a[:, None, :, None] * captions[labels].to(a.dtype)[:, None, None, :]
        side = self.of_products.resolution
        return self.of_products(F.adaptive_avg_pool2d(products, side), torch.zeros_like(labels))

    def card(self) -> dict[str, Any]:
        """What :func:`build_estimator` makes another one from, with the CLIP and its captions."""
        inner = self.of_products.card()
        return {"kind": "clip", "resolution": self.resolution, "channels": inner["channels"],
                "low": inner["low"], "high": inner["high"]}  # fmt: skip


def build_estimator(
    card: dict[str, Any], told_by: tuple[Clip, Tensor] | None = None
) -> WeightEstimator | ProductEstimator:
    """An estimator with fresh random weights.

    Args:
        card: of either.
        told_by: the CLIP and its embeddings of the captions, for kind clip.
    """
    if card["kind"] == "clip":
        assert told_by is not None
        return ProductEstimator(
            int(card["resolution"]), int(card["channels"]), card["low"], card["high"], *told_by
        )
    return WeightEstimator(
        int(card["resolution"]), int(card["channels"]), int(card["num_classes"]), card["low"],
        card["high"], int(card["image_channels"]),
    )  # fmt: skip
