"""Frozen image networks from timm, where their weights come from, and random projections of them.

Projections (Sauer et al. 2021, arXiv 2111.01007, section 3.2): cross-channel mixing (CCM) is a
random 1x1 convolution of every map; cross-scale mixing (CSM) adds the maps up from the lowest
resolution to the highest. Their weights are buffers: drawn from a seed, part of the state, never
trained.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.errors import PagodaError
from pagoda.networks import packaged
from pagoda.networks.layers import Frozen, at_least_float32, fold_batch_norms
from pagoda.weight_files import misfit, read_state

PRETRAINED, RANDOM = "pretrained", "random"
"""Weights from a package, timm's cache or download, and untrained ones; all else names a folder."""

SIDE = 224
"""Side that smaller images are resized to, as published."""


def resized(x: Tensor, side: int) -> Tensor:
    """(n, 3, r, r), bilinearly resized to ``side`` if smaller; others are seen at native size."""
    if x.shape[-1] >= side:
        return x
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


class Backbone(Frozen):
    """Four feature maps of a frozen network, highest resolution first.

    Vision transformers give the tokens after each quarter of their blocks as
    maps of one size, without prefix tokens; convolutional networks their last four stages.

    On CPUs what needs a gradient is computed in float32: bfloat16 gradients of depthwise
    convolutions with a stride are many times slower there.

    Args:
        name: a timm model.
        weights: ``"pretrained"``, ``"random"`` or a folder with ``<name>.safetensors`` or
            ``<name>.pth``.
        side: that smaller images are resized to.
    """

    def __init__(self, name: str, weights: str, side: int = SIDE) -> None:
        network = _create(name, weights)
        super().__init__(network)
        self.side = side
        self.is_vit = hasattr(network, "patch_embed")
        self._positions = network.pos_embed.detach() if self.is_vit else None
        depth = len(network.blocks) if self.is_vit else len(network.feature_info)
        self.taps = [depth * (i + 1) // 4 - 1 for i in range(4)]
        if not self.is_vit:
            self.taps = list(range(depth - 4, depth))
        config = network.pretrained_cfg
        self._mean, self._std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
        self.channels = (
            [network.embed_dim] * 4 if self.is_vit
            else [int(stage["num_chs"]) for stage in network.feature_info[-4:]]
        )  # fmt: skip

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (n, 3, h, w) in [-1, 1] -> four maps (n, c, h', w').

        Images are normalised as the network was trained with, and :func:`resized`; the position
        embeddings of a vision transformer are then resized bilinearly, without antialiasing.
        """
        x = at_least_float32(x)
        x = resized(((x + 1) / 2 - self._mean.to(x)) / self._std.to(x), self.side)
        if self._positions is not None:
            self._fit_positions(self._positions, (x.shape[-2], x.shape[-1]))
        wide = x.device.type == "cpu" and x.requires_grad
        with torch.autocast("cpu", enabled=False) if wide else contextlib.nullcontext():
            maps = self.frozen.forward_intermediates(
                x, indices=self.taps, intermediates_only=True, output_fmt="NCHW", stop_early=True
            )
        return list(maps)

    def _fit_positions(self, positions: Tensor, size: tuple[int, int]) -> None:
        """Bring the network to images of ``size``: timm would resize bicubically, antialiased."""
        network = self.frozen
        if size == network.patch_embed.img_size:
            return
        network.set_input_size(img_size=size)
        prefix, grid = positions.split(
            [network.num_prefix_tokens, positions.shape[1] - network.num_prefix_tokens], dim=1
        )
        side = math.isqrt(grid.shape[1])
        grid = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, network.patch_embed.grid_size, mode="bilinear")
        fitted = torch.cat([prefix, grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
        network.pos_embed = nn.Parameter(fitted.to(network.pos_embed), requires_grad=False)


def _create(name: str, weights: str) -> Any:
    """The network; normalisations of an EfficientNet, which are constant, are in its weights."""
    from timm.models import EfficientNet

    network = _load(name, weights)
    if isinstance(network, EfficientNet):  # registers layers in the order that it computes them in
        fold_batch_norms(network.eval())
    return network


def _load(name: str, weights: str) -> Any:
    import timm

    if not timm.is_model(name):
        raise PagodaError(f"backbone {name!r} is no timm model; see timm.list_models()")
    # Vision transformers alone know, and need, a free image size.
    vit = timm.models.is_model_in_modules(name, ["vision_transformer", "deit"])
    size: dict[str, Any] = {"dynamic_img_size": True} if vit else {}
    if weights == PRETRAINED and name in packaged.PACKAGED:
        return packaged.create(name)
    if weights == PRETRAINED:
        try:
            return timm.create_model(name, pretrained=True, **size)
        except Exception as error:  # the hub's clients raise many types of their own
            raise PagodaError(no_weights(name)) from error
    with torch.random.fork_rng(devices=[]):  # untrained weights are the same in every run
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=False, **size)
    if weights != RANDOM:
        load_weights(network, Path(weights), name)
    return network


def no_weights(name: str) -> str:
    """What to tell a user whose machine cannot fetch the weights of a network."""
    return (
        f"the pretrained weights of {name} are neither in the cache nor to be downloaded; put "
        f"{name}.safetensors or {name}.pth into a folder and name it in 'weights'"
    )


def load_weights(network: nn.Module, folder: Path, name: str) -> None:
    """Load ``<name>.safetensors`` or ``<name>.pth`` of a folder.

    Raises:
        PagodaError: if there is no such file, it is not of weights, or of another network.
    """
    weights = read_state(weights_in(folder, name))
    if why := misfit(network, weights):
        raise PagodaError(f"the weights in {folder} are not those of {name}: the file {why}")
    network.load_state_dict(weights)


def weights_in(folder: Path, name: str) -> Path:
    """``<name>.safetensors``, ``.pth`` or ``.pt`` of a folder.

    Raises:
        PagodaError: if there is no such file.
    """
    files = [folder / f"{name}{suffix}" for suffix in (".safetensors", ".pth", ".pt")]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
        raise PagodaError(f"weights: {folder} holds no {files[0].name} and no {files[1].name}")
    return file


class FrozenConv(nn.Module):
    """A convolution, or its transpose, whose random weights never train.

    Weight and bias are uniform in +-1 / sqrt(fan in), torch's default and that of the original.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        rng: torch.Generator,
        *,
        stride: int = 1,
        padding: int = 0,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.transposed = stride, padding, transposed
        ends = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        weight = torch.rand(*ends, kernel, kernel, generator=rng) * 2 - 1
        bound = 1 / math.sqrt(weight[0].numel())
        self.register_buffer("weight", weight * bound)
        bias = torch.rand(out_channels, generator=rng) * 2 - 1
        self.register_buffer("bias", bias * bound)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c', h', w')."""
        conv = F.conv_transpose2d if self.transposed else F.conv2d
        return conv(x, self.weight, self.bias, self.stride, self.padding)


class ProjectedFeatures(nn.Module):
    """Four maps of a frozen network, mixed over channels and scales.

    CCM takes the maps to width x (1, 2, 4, 8) channels. CSM then goes from the lowest resolution
    to the highest: add the mixed map below, resize bilinearly by 2, 1x1 convolution; all but the
    last halve the channels. The outputs have width x (1, 1, 2, 4) channels, highest resolution
    first, and twice the side of the network's maps. The convolution is done first: it commutes
    with the resizing, whose weights add up to one.

    A vision transformer's maps are first taken to four scales and c / (8, 4, 2, 1) channels by
    random convolutions (Sauer et al. 2022, arXiv 2202.00273, section 3.2).
    """

    def __init__(
        self, name: str, weights: str, seed: int, side: int = SIDE, width: int = 64
    ) -> None:
        super().__init__()
        self.backbone = Backbone(name, weights, side)
        rng = torch.Generator().manual_seed(seed)
        channels = self.backbone.channels
        self.reassemble = nn.ModuleList()
        if self.backbone.is_vit:
            channels = [c >> (3 - i) for i, c in enumerate(channels)]
            self.reassemble = _reassemble(self.backbone.channels, channels, rng)
        mixed = [width << i for i in range(4)]
        pairs = zip(channels, mixed, strict=True)
        self.ccm = nn.ModuleList([FrozenConv(a, b, 1, rng) for a, b in pairs])
        self.channels = [mixed[0], *mixed[:3]]
        pairs = zip(mixed, self.channels, strict=True)
        self.csm = nn.ModuleList([FrozenConv(a, b, 1, rng) for a, b in pairs])

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (n, 3, h, w) in [-1, 1] -> four maps, highest resolution first."""
        maps = self.backbone(x)
        if self.backbone.is_vit:
            maps = [scale(m) for scale, m in zip(self.reassemble, maps, strict=True)]
        maps = [conv(m) for conv, m in zip(self.ccm, maps, strict=True)]
        out: list[Tensor] = []
        for conv, h in zip(reversed(self.csm), reversed(maps), strict=True):
            total = h + out[-1] if out else h
            out.append(
                F.interpolate(conv(total), scale_factor=2, mode="bilinear", align_corners=True)
            )
        return out[::-1]


def _reassemble(tokens: list[int], channels: list[int], rng: torch.Generator) -> nn.ModuleList:
    """Random maps of four scales, x4, x2, x1 and x1/2, from token maps of one size."""
    first = [FrozenConv(a, b, 1, rng) for a, b in zip(tokens, channels, strict=True)]
    second = [
        FrozenConv(channels[0], channels[0], 4, rng, stride=4, transposed=True),
        FrozenConv(channels[1], channels[1], 2, rng, stride=2, transposed=True),
        nn.Identity(),
        FrozenConv(channels[3], channels[3], 3, rng, stride=2, padding=1),
    ]
    return nn.ModuleList([nn.Sequential(a, b) for a, b in zip(first, second, strict=True)])


def projected_features(backbones: list[str], weights: str, seed: int, side: int) -> nn.ModuleList:
    """:class:`ProjectedFeatures` of several networks; each has its own draw of ``seed``."""
    return nn.ModuleList([
        ProjectedFeatures(name, weights, seed * 1000 + i, side)
        for i, name in enumerate(backbones)
    ])  # fmt: skip
