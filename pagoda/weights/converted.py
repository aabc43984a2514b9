"""What every reader of released weights hands over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pagoda.errors import PagodaError
from pagoda.networks.unet import UNetSpec


@dataclass(frozen=True)
class Options:
    """What files do not say.

    Attributes:
        kind: ``teacher``, ``generator``, or None where the file says it.
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
    """A network as a file holds it.

    Attributes:
        format: what wrote the file.
        spec: the U-Net.
        levels: (channels, blocks) a doubling.
        sigma_data: of the preconditioning.
        weights: tensors by the file's names.
        theirs: the file's name for ours, one of ``UNet`` or ``Generator``.
        fit: by our name, the file's tensor in our layout.
    """

    format: str
    spec: UNetSpec
    levels: tuple[tuple[int, int], ...]
    sigma_data: float
    weights: Mapping[str, Tensor]
    theirs: Callable[[str], str]
    fit: Callable[[str, Tensor], Tensor]


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


def multiples(path: Path, widths: list[int], channels: int) -> tuple[int, ...]:
    """The widths of the levels as multiples of the first.

    Raises:
        PagodaError: one line if they are none.
    """
    if widths[0] != channels or any(width % channels for width in widths):
        raise PagodaError(
            f"{path}: widths {widths} on {channels} channels; the first must be equal to it and "
            "all multiples of it"
        )
    return tuple(width // channels for width in widths)
