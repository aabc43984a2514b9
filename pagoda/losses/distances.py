"""Distances between generated and target images, for the regression losses (PaGoDA eq. 1 and 2).

L_rec = E_x d(x, G(E(x))) of real images and their inverted latents, L_dstl = E_z d(x_teacher(z),
G(z)) of the teacher's samples. Paper, appendix A.1: LPIPS; official code: the projected features of
two networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.errors import PagodaError
from pagoda.networks.backbones import (
    PRETRAINED,
    RANDOM,
    SIDE,
    no_weights,
    projected_features,
    resized,
    weights_in,
)
from pagoda.networks.layers import at_least_float32
from pagoda.weight_files import LPIPS, find_weights, load_lpips

Augment = Callable[[Tensor, int], Tensor]
"""Augments images by the k-th draw of a step, the same for both sides of a distance."""


class Distance(nn.Module):
    """``distance(a, b, augment)`` of two (n, 3, r, r) in [-1, 1] -> scalar, a mean over the batch.

    Attributes:
        views: draws of augmentation that it takes.
    """

    views = 1


class PixelDistance(Distance):
    """Mean square (``l2``) or mean absolute (``l1``) difference over pixels and batch."""

    def __init__(self, kind: str = "l2") -> None:
        super().__init__()
        self._loss = F.mse_loss if kind == "l2" else F.l1_loss

    def forward(self, a: Tensor, b: Tensor, augment: Augment | None = None) -> Tensor:
        """Two (n, 3, r, r) -> scalar."""
        return self._loss(a, b)


class LpipsDistance(Distance):
    """LPIPS with VGG16 and average pooling, mean over the batch.

    Network and linear heads (version 0.1) are those of the authors' package. It pools by maxima;
    averages, as here and in piq, give smoother gradients. Zhang et al. (2018), eq. 1.

    Args:
        weights: ``"pretrained"`` (torch's cache or download), ``"random"``, or a folder with
            ``vgg16.pth`` (torchvision's).
    """

    def __init__(self, weights: str) -> None:
        super().__init__()
        self._frozen = [_lpips(weights)]  # frozen; a list keeps it out of the state

    def forward(self, a: Tensor, b: Tensor, augment: Augment | None = None) -> Tensor:
        """Two (n, 3, r, r) in [-1, 1] -> scalar; below 224 pixels they are resized to that."""
        a, b = (_prepare(x, SIDE, augment, 0) for x in (a, b))
        network = self._frozen[0]
        maps = [network.net(network.scaling_layer(x)) for x in (a, b)]
        total = a.new_zeros(())
        for x, y, head in zip(*maps, network.lins, strict=True):
            total = total + head((_unit(x) - _unit(y)).square()).mean()
        return total

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._frozen[0]._apply(fn)
        return super()._apply(fn, recurse)


class ProjectedDistance(Distance):
    """Distance of randomly projected features of several networks, summed over their maps.

    Every map is divided by its norm over channels; the squared difference is summed over channels
    and maps, and averaged over pixels and batch (official code, ``loss_norm=cnn_vit``).

    Args:
        backbones: timm models.
        weights: their weights, as :class:`pagoda.networks.backbones.Backbone` takes them.
        seed: of the random projections, which are part of the state.
        side: that smaller images are resized to, before augmentation.
    """

    def __init__(self, backbones: list[str], weights: str, seed: int, side: int = SIDE) -> None:
        super().__init__()
        self.views, self.side = len(backbones), side
        self.networks = projected_features(backbones, weights, seed, side)

    def forward(self, a: Tensor, b: Tensor, augment: Augment | None = None) -> Tensor:
        """Two (n, 3, r, r) in [-1, 1] -> scalar. No gradient reaches ``b``."""
        total = a.new_zeros(())
        for i, network in enumerate(self.networks):
            x, y = (_prepare(x, self.side, augment, i) for x in (a, b))
            with torch.no_grad():
                target = network(y)
            total = total + feature_distance(network(x), target) * len(target)
        return total


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Distance between two sets of feature maps, as LPIPS without learned weights.

    Every map (n, c, h, w) is divided by its norm over channels (eps 1e-10, as the official code);
    the squared difference is summed over channels and averaged over pixels, batch and maps.
    """
    pairs = [tuple(map(_unit, maps)) for maps in zip(a, b, strict=True)]
    total = sum(((x - y) ** 2).sum(1).mean() for x, y in pairs)
    assert isinstance(total, Tensor)
    return total / len(a)


def _prepare(x: Tensor, side: int, augment: Augment | None, k: int) -> Tensor:
    x = resized(x, side)
    return augment(x, k) if augment else x


def _unit(x: Tensor) -> Tensor:
    """Unit length over channels, in float32 at least: float16 squares overflow above 256, and round
    the eps to 0. The package adds its eps outside the root, whose slope at 0 is not finite.
    """
    x = at_least_float32(x)
    return x / (x.square().sum(1, keepdim=True) + 1e-10).sqrt()


def _lpips(weights: str) -> Any:
    import lpips

    path = None if weights == RANDOM else _vgg16(weights)
    with torch.random.fork_rng(devices=[]):  # untrained weights are the same in every run
        torch.manual_seed(0)
        network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    if path is not None:
        load_lpips(network.net, path, "vgg")
    for part in network.net.children():
        for name, layer in part.named_children():
            if isinstance(layer, nn.MaxPool2d):
                setattr(part, name, nn.AvgPool2d(layer.kernel_size, layer.stride))
    return network.eval().requires_grad_(False)


def _vgg16(weights: str) -> Path:
    """Torchvision's file of VGG16."""
    if weights != PRETRAINED:
        return weights_in(Path(weights), "vgg16")
    try:
        return find_weights(LPIPS["vgg"], None, download=True)
    except PagodaError as error:
        raise PagodaError(f"{no_weights('vgg16')} ({error})") from error
