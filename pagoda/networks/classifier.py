"""The embedded feature network: a small classifier of real images, used for evaluation only.

It takes uint8 images of any resolution and resizes them to its own, so that one network, and one
feature space, serves every resolution of a pipeline. Training shows it real images degraded to
each of those resolutions (:func:`degrade`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.calls import in_calls
from pagoda.data.pixels import to_float, to_uint8
from pagoda.networks.layers import BatchNorm
from pagoda.weight_files import fitted, whole

_WIDTHS = ((2, 2), (4, 1), (6, 2), (8, 1))  # (multiple of ``channels``, stride) after the stem
_STEM_RES = 32  # larger inputs are halved by strided convolutions down to this first


class FeatureNetwork(nn.Module):
    """Convolutions, global average pooling, two linear heads.

    ``[3x3 conv, batch norm, ReLU] x 5 -> 1x1 conv(dim), batch norm, SiLU -> mean``. The features
    are the pooled activations; SiLU leaves none of them dead. One head names the class. The other
    names the resolution that a training image was degraded to, without which the features would
    learn to overlook blur. Batch normalisation uses its running statistics in eval mode: an
    image's features do not depend on its batch.

    Args:
        classes: number of classes.
        resolution: side of the images that the convolutions see.
        channels: width of the first block.
        dim: dimension of the features.
        degradations: number of resolutions seen in training.
    """

    def __init__(
        self, classes: int, resolution: int, channels: int, dim: int, degradations: int
    ) -> None:
        super().__init__()
        self.resolution, self.dim = resolution, dim
        self.architecture: dict[str, int] = {
            "classes": classes, "resolution": resolution, "channels": channels, "dim": dim,
            "degradations": degradations,
        }  # fmt: skip
        halvings = max(0, (resolution // _STEM_RES).bit_length() - 1)
        plan = [(1, 2)] * halvings + [(1, 1), *_WIDTHS]
        layers: list[nn.Module] = []
        width = 3
        for multiple, stride in plan:
            layers += _layer(width, multiple * channels, 3, stride, nn.ReLU(inplace=True))
            width = multiple * channels
        self.body = nn.Sequential(*layers, *_layer(width, dim, 1, 1, nn.SiLU()))
        self.class_head = nn.Linear(dim, classes)
        self.degradation_head = nn.Linear(dim, degradations)

    def prepare(self, images: Tensor) -> Tensor:
        """Images (n, 3, r, r), uint8 or in [-1, 1] -> in [-1, 1] at the network's resolution."""
        x = images if images.is_floating_point() else to_float(images)
        if x.shape[-1] == self.resolution:
            return x
        size = (self.resolution, self.resolution)
        return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)

    def embed(self, x: Tensor) -> Tensor:
        """Features (n, dim) of prepared images (n, 3, resolution, resolution)."""
        return self.body(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))

    def features(self, images: Tensor) -> Tensor:
        """Features (n, dim), float32, of uint8 images (n, 3, r, r), any r."""
        return self.embed(self.prepare(images))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (n, 3, r, r) -> features (n, dim), class logits and degradation logits."""
        features = self.features(images)
        return features, self.class_head(features), self.degradation_head(features)


def degrade(images: Tensor, resolution: int) -> Tensor:
    """uint8 images (n, 3, r, r) averaged down to ``resolution``, again as uint8."""
    factor = images.shape[-1] // resolution
    return to_uint8(averaged(to_float(images), factor)) if factor > 1 else images


def averaged(x: Tensor, factor: int) -> Tensor:
    """Images (n, 3, r, r) -> (n, 3, r / factor, r / factor): means of blocks."""
    return F.avg_pool2d(x, factor) if factor > 1 else x


def load_feature_network(weights: dict[str, Tensor], card: dict[str, Any]) -> FeatureNetwork:
    """The network of a ``features`` artifact, in eval mode."""

    def build(card: dict[str, Any]) -> FeatureNetwork:
        whole(card["architecture"], *card["architecture"])
        return FeatureNetwork(**card["architecture"])

    return fitted(build, weights, card).to(memory_format=torch.channels_last)


@torch.inference_mode()
def extract(
    network: FeatureNetwork, images: np.ndarray, batch: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, dim) and class logits (n, classes), float32, of uint8 images (n, 3, r, r).

    The network is always called with ``batch`` images (:func:`pagoda.calls.in_calls`).
    """
    device = next(network.parameters()).device

    def both(part: Tensor) -> Tensor:
        return torch.cat(network(part.to(device))[:2], 1).cpu()

    rows = in_calls(both, batch, torch.from_numpy(np.ascontiguousarray(images))).numpy()
    return rows[:, : network.dim], rows[:, network.dim :]


def _layer(
    in_channels: int, out_channels: int, kernel: int, stride: int, activation: nn.Module
) -> list[nn.Module]:
    conv = nn.Conv2d(
        in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
    )
    return [conv, BatchNorm(out_channels), activation]
