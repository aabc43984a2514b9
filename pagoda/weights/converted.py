"""What every reader of released weights hands over, and how it is fitted to our networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pagoda.errors import PagodaError
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.generator import build_generator
from pagoda.networks.unet import UNetSpec
from pagoda.weight_files import misfit, some


@dataclass(frozen=True)
class Options:
    """What files do not say.

    Attributes:
        kind: ``teacher``, ``generator``, or None where the file tells.
        resolution: side of the images that the U-Net sees.
        head_channels: channels a head of attention.
        growth_blocks: residual blocks after the up-sampling one of each doubling.
        sigma_data, sigma_max: of EDM's preconditioning and of the generator's latents.
        allow_unused: import even if some of the file's weights have no place.
    """

    kind: str | None = None
    resolution: int = 64
    head_channels: int = 64
    growth_blocks: int = 2
    sigma_data: float = 0.5
    sigma_max: float = 80.0
    allow_unused: bool = False


@dataclass(frozen=True)
class Found:
    """Weights under our names.

    Attributes:
        format: what wrote the file.
        spec: the U-Net they belong to.
        levels: (channels, blocks) a doubling.
        sigma_data: of the preconditioning.
        weights: tensors by the names of ``UNet`` or ``Generator``.
        names: our name to the file's.
        unused: what the file holds beside them.
    """

    format: str
    spec: UNetSpec
    levels: tuple[tuple[int, int], ...]
    sigma_data: float
    weights: dict[str, Tensor]
    names: dict[str, str]
    unused: tuple[str, ...]


def network(path: Path, found: Found, kind: str, options: Options) -> nn.Module:
    """The denoiser or generator that ``found`` describes, with its weights, in float32.

    Raises:
        PagodaError: one line naming weights that lack, have another shape, or have no place.
    """
    with torch.device("meta"):
        module = _empty(found, kind, options)
    prefix = "net." if kind == "teacher" else ""
    given = {prefix + name: tensor for name, tensor in found.weights.items()}
    names = {prefix + ours: theirs for ours, theirs in found.names.items()}
    if why := misfit(module, given, names):
        raise PagodaError(f"{path} {why}")
    if found.unused and not options.allow_unused:
        raise PagodaError(
            f"{path}: {some(found.unused)} have no place in pagoda's network, which would then "
            "compute something else; --allow-unused imports the rest"
        )
    module.load_state_dict({k: v.float() for k, v in given.items()}, assign=True)
    return module.eval()


def _empty(found: Found, kind: str, options: Options) -> nn.Module:
    if kind == "teacher":
        return Denoiser(found.spec, found.sigma_data)
    card = {
        "unet": found.spec.to_card(),
        "levels": [list(level) for level in found.levels],
        "sigma_max": options.sigma_max,
        "sigma_data": found.sigma_data,
        "output_scale": 1.0,
    }
    return build_generator(card)


def check_heads(path: Path, weights: Mapping[str, Tensor], head_channels: int) -> None:
    """Refuse attention that does not split into heads of ``head_channels``.

    Raises:
        PagodaError: one line with the width.
    """
    for name, tensor in weights.items():
        if name.endswith(".qkv.weight") and tensor.shape[1] % head_channels:
            raise PagodaError(
                f"{path}: attention over {tensor.shape[1]} channels ({name}) does not split into "
                f"heads of {head_channels}"
            )
