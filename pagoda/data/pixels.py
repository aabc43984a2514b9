"""The one conversion between uint8 pixels and network values."""

from __future__ import annotations

import torch
from torch import Tensor

from pagoda.errors import PagodaError

_FAR = 16.0  # from 0; a teacher's images of few steps, which are not clamped, reach a few


def to_float(pixels: Tensor) -> Tensor:
    """uint8 0..255 -> float32 in [-1, 1]: x / 127.5 - 1."""
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def seen(stored: Tensor, mirror: Tensor) -> Tensor:
    """Rows of a store (:mod:`pagoda.data.store`) as networks see them: (n, c, h, w), float.

    Pixels in [-1, 1], codes as they are; in their mirror image where ``mirror`` (n,) says so. Codes
    are stored of both, (n, 2, c, h, w): an autoencoder's answer to a mirror image is not the mirror
    image of its answer.
    """
    if stored.ndim == 5:
        return stored[torch.arange(len(stored), device=stored.device), mirror.long()].float()
    x = to_float(stored) if stored.dtype == torch.uint8 else stored
    return torch.where(mirror[:, None, None, None], x.flip(3), x)


def as_float(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images, or float ones already, as float32 in [-1, 1] on a device.

    Values of float images may lie a little outside, as those of generators do.

    Raises:
        PagodaError: images of another type, far outside, or none at all.
    """
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise PagodaError(f"images are {images.dtype}; they are uint8, or float in [-1, 1]")
    if not len(images):
        raise PagodaError("there are no images; give at least one")
    images = images.to(device)
    if images.dtype == torch.uint8:
        return to_float(images)
    low, high = (float(end) for end in images.aminmax())
    if not -_FAR <= low <= high <= _FAR:  # nor is NaN
        raise PagodaError(
            f"images are float with values from {low:g} to {high:g}; they are uint8, or float in "
            "[-1, 1] (of 0 to 255: images / 127.5 - 1)"
        )
    return images.float()


def to_uint8(x: Tensor, made_by: str = "the network") -> Tensor:
    """Float in [-1, 1] -> uint8: (x + 1) * 127.5, rounded half to even, clamped to 0..255.

    Raises:
        PagodaError: a value is not finite; as a pixel it would pass for an image.
    """
    if not x.isfinite().all():
        raise PagodaError(
            f"{made_by} made images with values that are not finite (NaN or infinity); its weights "
            "are damaged, or too large for its precision: train or import it anew"
        )
    return x.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
