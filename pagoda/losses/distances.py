"""Distances between generated and target images, for the regression losses (PaGoDA eq. 1 and 2).

``l2`` is the mean square over pixels of :mod:`pagoda.losses.reconstruction`; the others are
here. Paper, appendix A.1: LPIPS; official code: the projected features of two networks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda import distributed
from pagoda.errors import PagodaError
from pagoda.losses.augment import diff_augment
from pagoda.losses.reconstruction import feature_distance
from pagoda.networks.backbones import PRETRAINED, RANDOM, no_weights, projected_features, weights_in
from pagoda.weight_files import LPIPS, find_weights, load_lpips

_SMALL, _INPUT = 256, 224


class L1Distance(nn.Module):
    """Mean absolute difference over pixels and batch."""

    def forward(self, a: Tensor, b: Tensor, seed: int) -> Tensor:
        """Two (n, 3, r, r) in [-1, 1] -> scalar."""
        return F.l1_loss(a, b)


class LpipsDistance(nn.Module):
    """LPIPS with VGG16 and average pooling, mean over the batch.

    Network and linear heads (version 0.1) are those of the authors' package. It pools by maxima;
    averages, as here and in piq, give smoother gradients. Zhang et al. (2018), eq. 1.

    Args:
        weights: ``"pretrained"`` (torch's cache or download), ``"random"``, or a folder with
            ``vgg16.pth`` (torchvision's).
        augment: DiffAugment both images alike first.
    """

    def __init__(self, weights: str, augment: bool) -> None:
        super().__init__()
        self.augment = augment
        self._frozen = [_lpips(weights)]  # frozen; a list keeps it out of the state

    def forward(self, a: Tensor, b: Tensor, seed: int) -> Tensor:
        """Two (n, 3, r, r) in [-1, 1] -> scalar; below 256 pixels they are resized to 224."""
        a, b = _prepare(a, b, self.augment, seed)
        network = self._frozen[0]
        maps = [network.net(network.scaling_layer(x)) for x in (a, b)]
        total = a.new_zeros(())
        for x, y, head in zip(*maps, network.lins, strict=True):
            total = total + head((_unit(x) - _unit(y)).square()).mean()
        return total

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._frozen[0]._apply(fn)
        return super()._apply(fn, recurse)


class ProjectedDistance(nn.Module):
    """Distance of randomly projected features of several networks, summed over their maps.

    Every map is divided by its norm over channels; the squared difference is summed over channels
    and maps, and averaged over pixels and batch (official code, ``loss_norm=cnn_vit``).

    Args:
        backbones: timm models.
        weights: their weights, as :class:`pagoda.networks.backbones.Backbone` takes them.
        seed: of the random projections, which are part of the state.
        augment: DiffAugment both images alike first.
    """

    def __init__(self, backbones: list[str], weights: str, seed: int, augment: bool) -> None:
        super().__init__()
        self.augment = augment
        self.networks = projected_features(backbones, weights, seed)

    def forward(self, a: Tensor, b: Tensor, seed: int) -> Tensor:
        """Two (n, 3, r, r) in [-1, 1] -> scalar; below 256 pixels they are resized to 224.

        No gradient reaches ``b``.
        """
        total = a.new_zeros(())
        for i, network in enumerate(self.networks):
            x, y = _prepare(a, b, self.augment, seed * len(self.networks) + i)
            with torch.no_grad():
                target = network(y)
            total = total + feature_distance(network(x), target) * len(target)
        return total


def _prepare(a: Tensor, b: Tensor, augment: bool, seed: int) -> tuple[Tensor, Tensor]:
    if a.shape[-1] < _SMALL:
        size = (_INPUT, _INPUT)
        a, b = (F.interpolate(x, size, mode="bilinear", align_corners=False) for x in (a, b))
    whole = len(a) * distributed.world_size()
    return (diff_augment(a, seed, whole), diff_augment(b, seed, whole)) if augment else (a, b)


def _unit(x: Tensor) -> Tensor:
    """Unit length over channels. The package adds its eps outside the root, whose slope at 0 is
    not finite.
    """
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
