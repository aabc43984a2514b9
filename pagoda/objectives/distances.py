"""Distances between generated and target images, for the regression losses (PaGoDA eq. 1 and 2).

``l2`` is the mean square over pixels of :mod:`pagoda.objectives.reconstruction`; the others are
here. Paper, appendix A.1: LPIPS; official code: the projected features of two networks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda import processes
from pagoda.errors import PagodaError
from pagoda.networks.backbones import PRETRAINED, RANDOM, no_weights, read_weights
from pagoda.networks.projections import ProjectedFeatures
from pagoda.objectives.augment import diff_augment
from pagoda.objectives.reconstruction import feature_distance

_SMALL, _INPUT = 256, 224
_LPIPS_LAYERS = ("3", "8", "15", "22", "29")  # relu1_2, 2_2, 3_3, 4_3, 5_3 of torchvision's VGG16
_LPIPS_WIDTHS = (64, 128, 256, 512, 512)


class L1Distance(nn.Module):
    """Mean absolute difference over pixels and batch."""

    def forward(self, a: Tensor, b: Tensor, seed: int) -> Tensor:
        """Two (n, 3, r, r) in [-1, 1] -> scalar."""
        return F.l1_loss(a, b)


class LpipsDistance(nn.Module):
    """LPIPS with VGG16 and average pooling, of images in [0, 1], by piq; mean over the batch.

    Args:
        weights: ``"pretrained"`` (torch's cache or download), ``"random"``, or a folder with
            ``vgg16.pth`` (torchvision's) and ``lpips.pt`` (piq's five 1x1 weights).
        augment: DiffAugment both images alike first.
    """

    def __init__(self, weights: str, augment: bool) -> None:
        super().__init__()
        self.augment = augment
        self._frozen = [_lpips(weights)]  # frozen; a list keeps it out of the state

    def forward(self, a: Tensor, b: Tensor, seed: int) -> Tensor:
        """Two (n, 3, r, r) in [-1, 1] -> scalar; below 256 pixels they are resized to 224."""
        a, b = _prepare(a, b, self.augment, seed)
        return self._frozen[0]((a + 1) / 2, (b + 1) / 2)


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
        self.networks = nn.ModuleList(
            [ProjectedFeatures(name, weights, seed * 1000 + i) for i, name in enumerate(backbones)]
        )

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
    whole = len(a) * processes.count()
    return (diff_augment(a, seed, whole), diff_augment(b, seed, whole)) if augment else (a, b)


def _lpips(weights: str) -> nn.Module:
    import piq
    from torchvision.models import vgg

    class Lpips(piq.ContentLoss):  # type: ignore[misc]
        """piq's LPIPS, given weights; its own divides by a norm whose slope at 0 is not finite."""

        @staticmethod
        def normalize(x: Tensor) -> Tensor:
            return x / (x.square().sum(1, keepdim=True) + 1e-10).sqrt()

    with torch.random.fork_rng(devices=[]):  # untrained weights are the same in every run
        torch.manual_seed(0)
        network = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
    linear = [torch.ones(1, width, 1, 1) for width in _LPIPS_WIDTHS]
    if weights != RANDOM:
        state, linear = _lpips_weights(weights)
        network.load_state_dict(
            {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
        )
    return Lpips(
        network.eval(), layers=_LPIPS_LAYERS, weights=linear, replace_pooling=True,
        normalize_features=True,
    )  # fmt: skip


def _lpips_weights(weights: str) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The state of torchvision's VGG16 and the weights of the five layers."""
    if weights != PRETRAINED:
        return read_weights(Path(weights), "vgg16"), list(read_weights(Path(weights), "lpips"))
    import piq
    from torchvision.models import VGG16_Weights

    try:
        linear: Any = torch.hub.load_state_dict_from_url(
            piq.LPIPS._weights_url, progress=False, map_location="cpu"
        )
        return dict(VGG16_Weights.IMAGENET1K_V1.get_state_dict()), [*linear]
    except Exception as error:  # urllib raises many types of its own
        raise PagodaError(no_weights("vgg16") + ", with piq's lpips.pt beside it") from error
