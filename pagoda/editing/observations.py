"""Linear observations y = A(x) of images: what an edit knows of the image that it looks for.

Each has its pseudo-inverse A^+, by which an image is moved, no further than needed, to one that is
seen as y (Moore-Penrose; the projection of DDRM and DDNM)::

    x' = x + A^+ (y - A(x)),        A(x') = y
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pagoda.errors import PagodaError

_LUMA = (0.299, 0.587, 0.114)  # Rec. 601


@dataclass(frozen=True)
class Observation:
    """A linear observation.

    Attributes:
        name: what is seen, in a word or two.
        apply: A: images (n, 3, h, w) -> what is seen of them.
        pseudo_inverse: A^+: of what is seen -> images.
    """

    name: str
    apply: Callable[[Tensor], Tensor]
    pseudo_inverse: Callable[[Tensor], Tensor]

    def consistent(self, images: Tensor, seen: Tensor) -> Tensor:
        """The nearest images (n, 3, h, w), in squares, of which ``seen`` is seen."""
        return images + self.pseudo_inverse(seen - self.apply(images))

    def errors(self, images: Tensor, seen: Tensor) -> Tensor:
        """(n,) root mean square of A(x) - y over the entries of y, in units of pixels."""
        return (self.apply(images) - seen).square().flatten(1).mean(1).sqrt()


def masked(kept: Tensor) -> Observation:
    """The pixels where ``kept`` (n or 1, 1, h, w) is 1 are seen, zeros in the place of others.

    Of n masks and n k images, each mask is of k images in a row.
    """

    def seen(x: Tensor) -> Tensor:
        return (x.unflatten(0, (len(kept), -1)) * kept[:, None]).flatten(0, 1)

    return Observation("pixels", seen, seen)


def averaged(factor: int) -> Observation:
    """Means of blocks of ``factor`` x ``factor`` pixels are seen (box downsampling).

    A A^T = 1 / factor^2, so that A^+ repeats each mean over its block.
    """

    def repeated(y: Tensor) -> Tensor:
        return y.repeat_interleave(factor, 2).repeat_interleave(factor, 3)

    return Observation("averages", lambda x: F.avg_pool2d(x, factor), repeated)


def luminance() -> Observation:
    """Luminance w x is seen, (n, 1, h, w); w of Rec. 601, A^+ = w^T / |w|^2: colourisation."""

    def weights(like: Tensor) -> Tensor:
        return like.new_tensor(_LUMA)[None, :, None, None]

    def spread(y: Tensor) -> Tensor:
        w = weights(y)
        return y * w / w.square().sum()

    return Observation("luminance", lambda x: (x * weights(x)).sum(1, keepdim=True), spread)


def check_kept(kept: Tensor, images: Tensor) -> Tensor:
    """A mask as (n or 1, 1, h, w) zeros and ones of the images' type.

    Args:
        kept: (h, w), (n, h, w) or (n, 1, h, w); anything but 0 and False is kept.
        images: (n, 3, h, w).

    Raises:
        PagodaError: of another size, or one that keeps nothing.
    """
    shape = tuple(kept.shape)
    while kept.ndim < 4:
        kept = kept[None] if kept.ndim == 2 else kept[:, None]
    sizes = (1, len(images)), (1,), *((side,) for side in images.shape[2:])
    if any(k not in s for k, s in zip(kept.shape, sizes, strict=True)) or kept.ndim > 4:
        raise PagodaError(
            f"the mask is of shape {shape}; images of shape {tuple(images.shape)} need one of "
            f"{tuple(images.shape[2:])}"
        )
    found = (kept != 0).to(images)
    if not found.flatten(1).any(1).all():
        raise PagodaError("the mask keeps no pixel, so there is nothing to go by; keep some")
    return found


def pasted(images: Tensor, seen: Tensor, kept: Tensor, seam: int = 0) -> Tensor:
    """Images with their observed pixels put back: w y + (1 - w) x.

    Args:
        images: (n, 3, h, w).
        seen: (n, 3, h, w), of which the kept pixels count.
        kept: (n or 1, 1, h, w) zeros and ones.
        seam: width in pixels of the blend inside what is kept: w rises from 1 / (seam + 1) beside
            the hole to 1. With 0 every observed pixel comes back as it is.
    """
    w = kept
    if seam:
        hole, distance = 1 - kept, kept
        for _ in range(seam):  # pixels at Chebyshev distance 1, 2, ... of the hole
            hole = F.max_pool2d(hole, 3, stride=1, padding=1)
            distance = distance + kept * (1 - hole)
        w = distance / (seam + 1)
    return torch.where(w == 1, seen, w * seen + (1 - w) * images)


def mean_filled(seen: Tensor, kept: Tensor) -> Tensor:
    """Holes filled with the mean colour of what is kept of each image."""
    mean = (seen * kept).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True)
    return torch.where(kept > 0, seen, mean)


def smoothly_filled(seen: Tensor, kept: Tensor) -> Tensor:
    """Holes filled from around them, coarse to fine (the pull-push algorithm, Gortler et al. 1996).

    Blocks of 2 x 2 are averaged over what is known of them until all is known; on the way back,
    bilinear, the unknown takes the value of the coarser image.
    """
    if bool((kept > 0).all()) or min(seen.shape[2:]) < 2:
        return seen if bool((kept > 0).all()) else mean_filled(seen, kept)
    odd = tuple(side % 2 for side in seen.shape[2:])
    x, w = (F.pad(t, (0, odd[1], 0, odd[0])) for t in (seen * kept, kept.expand_as(seen[:, :1])))
    known = F.avg_pool2d(w, 2)
    coarse = F.avg_pool2d(x, 2) / known.clamp(min=1 / 8)
    below = smoothly_filled(coarse, (known > 0).to(seen))
    above = F.interpolate(below, x.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(kept > 0, seen, above[..., : seen.shape[2], : seen.shape[3]])


def boxes(kind: str, n: int, side: int, seed: int = 0) -> Tensor:
    """The masks of a study, (n, 1, side, side) of zeros (holes) and ones.

    Args:
        kind: ``centre`` (half a side wide, as box inpainting of DPS and DAPS), ``half`` (the right
            half) or ``random`` (70 % of pixels go, drawn for each image).
        n: number of masks.
        side: of the images.
        seed: of the draw.

    Raises:
        PagodaError: for another kind.
    """
    kept = torch.ones(n, 1, side, side)
    if kind == "centre":
        first = side // 4
        kept[..., first : side - first, first : side - first] = 0
    elif kind == "half":
        kept[..., side // 2 :] = 0
    elif kind == "random":
        drawn = torch.rand(n, side * side, generator=torch.Generator().manual_seed(seed))
        gone = drawn.argsort(1)[:, : math.floor(0.7 * side * side)]
        kept = kept.flatten(1).scatter(1, gone, 0.0).view(n, 1, side, side)
    else:
        raise PagodaError(f"there is no mask {kind!r}; there are centre, half and random")
    return kept
