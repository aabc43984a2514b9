"""Frozen image networks from timm as feature extractors, and where their weights come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.errors import PagodaError
from pagoda.weight_files import misfit, read_state

PRETRAINED, RANDOM = "pretrained", "random"
"""Weights from timm's cache or download, and untrained ones; anything else names a folder."""

_SMALL, _INPUT = 256, 224  # smaller images are resized to 224, others are seen at native size


class Backbone(nn.Module):
    """Four feature maps of a frozen network, highest resolution first.

    The network is no part of the state and of the parameters: it never trains, and checkpoints
    need not hold it. Vision transformers give the tokens after each quarter of their blocks as
    maps of one size, without prefix tokens; convolutional networks their last four stages.

    Args:
        name: a timm model.
        weights: ``"pretrained"``, ``"random"`` or a folder with ``<name>.safetensors`` or
            ``<name>.pth``.
    """

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        network = _create(name, weights).eval().requires_grad_(False)
        self._frozen = [network]  # a list, so that torch does not register it
        self.is_vit = hasattr(network, "patch_embed")
        self._positions = network.pos_embed.detach() if self.is_vit else None
        depth = len(network.blocks) if self.is_vit else len(network.feature_info)
        self.taps = [depth * (i + 1) // 4 - 1 for i in range(4)]
        if not self.is_vit:
            self.taps = list(range(depth - 4, depth))
        config = network.pretrained_cfg
        self._mean, self._std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
        self.channels = self._channels(network)

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (n, 3, h, w) in [-1, 1] -> four maps (n, c, h', w').

        Images are normalised as the network was trained with; those below 256 pixels are resized
        to 224 bilinearly, as the official code does, and others are seen as they are; the position
        embeddings of a vision transformer are then resized bilinearly, without antialiasing.
        """
        x = ((x + 1) / 2 - self._mean.to(x)) / self._std.to(x)
        if x.shape[-1] < _SMALL:
            x = F.interpolate(x, (_INPUT, _INPUT), mode="bilinear", align_corners=False)
        if self._positions is not None:
            self._fit_positions(self._positions, (x.shape[-2], x.shape[-1]))
        return list(
            self._frozen[0].forward_intermediates(
                x, indices=self.taps, intermediates_only=True, output_fmt="NCHW", stop_early=True
            )
        )

    def _fit_positions(self, positions: Tensor, size: tuple[int, int]) -> None:
        """Bring the network to images of ``size``: timm would resize bicubically, antialiased."""
        network = self._frozen[0]
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

    def _channels(self, network: Any) -> list[int]:
        if self.is_vit:
            return [network.embed_dim] * 4
        return [int(stage["num_chs"]) for stage in network.feature_info[-4:]]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._frozen[0]._apply(fn)
        return super()._apply(fn, recurse)


def _create(name: str, weights: str) -> Any:
    import timm

    if not timm.is_model(name):
        raise PagodaError(f"backbone {name!r} is no timm model; see timm.list_models()")
    # Vision transformers alone know, and need, a free image size.
    vit = timm.models.is_model_in_modules(name, ["vision_transformer", "deit"])
    size: dict[str, Any] = {"dynamic_img_size": True} if vit else {}
    if weights == PRETRAINED:
        return _download(lambda: timm.create_model(name, pretrained=True, **size), name)
    with torch.random.fork_rng(devices=[]):  # untrained weights are the same in every run
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=False, **size)
    if weights != RANDOM:
        load_weights(network, Path(weights), name)
    return network


def _download(create: Callable[[], Any], name: str) -> Any:
    try:
        return create()
    except Exception as error:  # the hub's clients raise many types of their own
        raise PagodaError(no_weights(name)) from error


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
