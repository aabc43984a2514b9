"""Non-leaking augmentation of the teacher's images (Karras et al. 2022, appendix F.2, table 6).

Each image is moved by a random affine map with probability p a transform, and the network is told
which: a vector of nine numbers that is zero for an untouched image, so that sampling with zeros
asks for untouched images. The maps and their ranges are EDM's for small data sets (flips, scale,
rotation, anisotropy, translation); the resampling is ours: band-limited as theirs (up by 2 with the
sym6 filter, bilinear, down by 2), with borders mirrored image by image, so that an image's result
does not depend on the batch it is in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LABELS = 9  # numbers that describe a transform
UNIFORMS, NORMALS = 9, 4  # random numbers that one image's transform takes
_SCALE_STD = 0.2  # of log2 of the isotropic scale
_ANISOTROPY_STD = 0.2  # of log2 of the anisotropic scale
_TRANSLATION_STD = 0.125  # of the side

# Low-pass decomposition filter of the symlet with 6 vanishing moments (Daubechies 1992).
_SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip


@dataclass(frozen=True)
class Transforms:
    """One random transform an image.

    Attributes:
        upside_down: (n,) bool, mirrored along the height; applied first.
        inverse: (n, 2, 3) affine map from output to source coordinates, in units in which the
            image spans [-1, 1], x before y (as ``torch.nn.functional.affine_grid``).
        labels: (n, 9) what the network is told, in EDM's order: mirrored along the width (always
            0 here), along the height, log2 scale / std, cos - 1 and sin of the rotation,
            anisotropy / std along its axis (2), translation / std (2).
    """

    upside_down: Tensor
    inverse: Tensor
    labels: Tensor


def draw_transforms(uniform: Tensor, normal: Tensor, probability: float) -> Transforms:
    """Transforms from random numbers, so that an image's own stream decides its own.

    Mirroring along the width is no augmentation here: the loader draws it for every stage, since
    mirror images count as data (they have latents of their own).

    Args:
        uniform: (n, 9) in [0, 1).
        normal: (n, 4) standard normal.
        probability: chance of each kind of transform; EDM has 0.12 to 0.15.
    """
    u, (scale, aniso, tx, ty) = uniform.double(), normal.double().unbind(1)
    on = u[:, :5] < probability  # flip y, scale, rotation, anisotropy, translation
    upside_down = on[:, 0] & (u[:, 5] < 0.5)
    scale = scale * on[:, 1]
    angle = math.pi * (2 * u[:, 6] - 1) * on[:, 2]
    aniso = aniso * on[:, 3]
    axis = math.pi * (2 * u[:, 7] - 1) * (u[:, 8] < 0.5)
    tx, ty = tx * on[:, 4], ty * on[:, 4]
    size = torch.exp2(_SCALE_STD * scale)
    stretch = torch.exp2(_ANISOTROPY_STD * aniso)
    # Forward: rotate and scale, stretch along an axis, then translate. The grid needs the inverse.
    inverse = _rotation(-angle) / size[:, None, None]
    inverse = inverse @ _rotation(axis) @ _diagonal(1 / stretch, stretch) @ _rotation(-axis)
    shift = 2 * _TRANSLATION_STD * torch.stack([tx, ty], 1)[:, :, None]
    told = (torch.zeros_like(scale), upside_down, scale, angle.cos() - 1, angle.sin(),
            aniso * axis.cos(), aniso * axis.sin(), tx, ty)  # fmt: skip
    labels = torch.stack(told, 1)
    return Transforms(
        upside_down, torch.cat([inverse, -inverse @ shift], 2).float(), labels.float()
    )


def _rotation(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)


def _diagonal(a: Tensor, b: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([a, b], 1))


def edm_augment(images: Tensor, transforms: Transforms) -> Tensor:
    """Apply one transform to each of ``images`` (n, c, r, r)."""
    mirrored = transforms.upside_down.to(images.device)[:, None, None, None]
    images = torch.where(mirrored, images.flip(2), images)
    still = torch.eye(2, 3, dtype=transforms.inverse.dtype)
    rows = (transforms.inverse != still).flatten(1).any(1).nonzero().flatten()
    if not len(rows):
        return images
    moved = rows.to(images.device)
    warped = _warp(images[moved], transforms.inverse[rows].to(images))
    return images.index_copy(0, moved, warped)


def _warp(images: Tensor, inverse: Tensor) -> Tensor:
    large = _upsample(images)
    # sym6 is not quite symmetric: what the large image shows sits off its centre by a part of a
    # pixel, and maps are about the centre of what it shows.
    taps = torch.tensor(_SYM6, dtype=torch.float64)
    centroid = float((taps * torch.arange(len(taps))).sum() / taps.sum())
    offset = (centroid - (len(taps) - 1) / 2) * 2 / large.shape[3]
    shift = torch.full_like(inverse[:, :, 2:], offset)
    linear = inverse[:, :, :2]
    inverse = torch.cat([linear, inverse[:, :, 2:] + shift - linear @ shift], 2)
    grid = F.affine_grid(inverse, list(large.shape), align_corners=False)
    return _downsample(
        F.grid_sample(large, grid, "bilinear", padding_mode="reflection", align_corners=False)
    )


def _filter(x: Tensor, reverse: bool, stride: int) -> Tensor:
    """The separable sym6 filter over height and width, without padding."""
    taps = torch.tensor(_SYM6[::-1] if reverse else _SYM6, dtype=x.dtype, device=x.device)
    channels = x.shape[1]
    wide = taps.expand(channels, 1, 1, -1)
    x = F.conv2d(x, wide, stride=(1, stride), groups=channels)
    return F.conv2d(x, wide.transpose(2, 3), stride=(stride, 1), groups=channels)


def _mirror(x: Tensor, before: int, after: int) -> Tensor:
    """Continue images beyond their borders by half-sample mirroring: ... b a | a b ... ."""
    for axis in (2, 3):
        side = x.shape[axis]
        index = torch.arange(-before, side + after, device=x.device) % (2 * side)
        x = x.index_select(axis, torch.where(index < side, index, 2 * side - 1 - index))
    return x


def _upsample(x: Tensor) -> Tensor:
    """(n, c, r, r) -> (n, c, 2r, 2r): zeros between samples, then the synthesis filter."""
    half = len(_SYM6) // 2
    x = _mirror(x, half, half)
    n, c, h, w = x.shape
    stuffed = x.new_zeros(n, c, 2 * h, 2 * w)
    stuffed[:, :, ::2, ::2] = x
    side = 2 * (h - 2 * half)
    start = half  # centres the filter: output sample 2i + 1/2 is input sample i
    out = _filter(stuffed, reverse=True, stride=1)
    return out[:, :, start : start + side, start : start + side]


def _downsample(x: Tensor) -> Tensor:
    """(n, c, 2r, 2r) -> (n, c, r, r): the analysis filter, then every other sample."""
    half = len(_SYM6) // 2
    x = _mirror(x, half - 1, half)
    side = (x.shape[2] - 2 * half + 1) // 2
    return _filter(x, reverse=False, stride=2)[:, :, :side, :side]
