"""What the feature networks that results are in cost, beside the embedded classifier."""

from __future__ import annotations

from functools import cache

import torch
from torchvision.models import inception_v3

from pagoda.evaluation.features.classifier import NAME
from pagoda.networks.flops import forward_flops

_INCEPTION_SIDE = 299
_VIT = {"vits14": (12, 384), "vitb14": (12, 768), "vitl14": (24, 1024), "vitg14": (40, 1536)}
_PATCHES, _PATCH_VALUES = 16**2, 3 * 14**2  # 224 pixels a side, 14 a patch


def judges_flops(extractors: list[str]) -> float:
    """Operations an image through all published networks of ``reference.extractors``.

    The embedded classifier is counted apart, and a ``custom`` network is not known.
    """
    return sum(_flops(text) for text in extractors)


def uncounted(extractors: list[str]) -> list[str]:
    """Those that :func:`judges_flops` has no count of."""
    return [text for text in extractors if text != NAME and not _flops(text)]


def _flops(extractor: str) -> float:
    family, _, rest = extractor.partition(":")
    if family == "inception":
        return _inception()
    return vit_flops(*_VIT[rest.partition(":")[0]]) if family == "dinov2" else 0.0


@cache
def _inception() -> float:
    """torchvision's network, which has the convolutions of the one that FID is made with."""
    with torch.device("meta"):
        network = inception_v3(weights=None, aux_logits=False, init_weights=False).eval()
        x = torch.zeros(2, 3, _INCEPTION_SIDE, _INCEPTION_SIDE)
    return forward_flops(network, x) / 2


def vit_flops(depth: int, width: int) -> float:
    """DINOv2 of one image at 224x224: t = 257 tokens of width w, and l layers.

    ``l (24 t w^2 + 4 t^2 w)`` for projections, MLP and attention, and the patches. ViT-g's gated
    MLP is narrower, so that it costs the same.
    """
    tokens = _PATCHES + 1
    layers = depth * (24 * tokens * width**2 + 4 * tokens**2 * width)
    return float(layers + 2 * _PATCHES * _PATCH_VALUES * width)
