"""Cutting an image to R x R pixels by a named recipe, always from the original.

========  =====================================================================================
recipe    what it does
========  =====================================================================================
adm       halve with a box filter while the short side is at least 2R, then bicubic until the
          short side is R, then crop the centre (Dhariwal & Nichol 2021, ``center_crop_arr``;
          EDM2's ``center-crop-dhariwal``). The recipe of ImageNet papers.
lanczos   crop the central square, then one Lanczos resize (EDM's ``center-crop``)
box       crop the central square, then one box-filter resize: a plain mean where R divides it
========  =====================================================================================

Pillow defines the arithmetic. :func:`cut_batch` takes a vectorised path where one exists that
gives the same bytes, and Pillow everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pagoda.errors import PagodaError

Pixels = NDArray[np.uint8]

_MOST_PIXELS = 178_956_970  # Pillow's own limit for a file, here for what a recipe makes of it


def cut(image: Image.Image, resolution: int, recipe: str, pad_to: int | None = None) -> Pixels:
    """Cut one image to (R, R, 3) RGB, uint8.

    Args:
        image: any mode; :func:`to_rgb` converts it.
        resolution: R, pixels.
        recipe: a key of :data:`RECIPES`.
        pad_to: put smaller images in the middle of a black canvas of this width and height first
            (Fashion-MNIST: 28 -> 32); a side that is larger already stays as it is.

    Raises:
        PagodaError: for an unknown recipe or a mode without a rule.
    """
    shrink = _recipe(recipe)
    rgb = to_rgb(image)
    if pad_to is not None:
        rgb = _pad(rgb, pad_to)
    return np.array(shrink(rgb, resolution))


def cut_batch(images: Pixels, resolution: int, recipe: str, pad_to: int | None = None) -> Pixels:
    """Cut images (n, C, H, W), C = 1 or 3, to (n, 3, R, R): byte for byte what :func:`cut` gives.

    Grey images are repeated to three channels.
    """
    _recipe(recipe)
    small = _cut_exact(images, resolution, recipe, pad_to)
    if small is None:
        rows = (image.transpose(1, 2, 0) for image in images)
        flat = (Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row) for row in rows)
        small = np.empty((len(images), 3, resolution, resolution), np.uint8)
        for i, image in enumerate(flat):
            small[i] = cut(image, resolution, recipe, pad_to).transpose(2, 0, 1)
    return small.repeat(3, axis=1) if small.shape[1] == 1 else small


def enlarges(width: int, height: int, resolution: int, pad_to: int | None = None) -> bool:
    """Whether cutting an image of this size to R x R, after padding, means enlarging it."""
    return min(max(width, pad_to or 0), max(height, pad_to or 0)) < resolution


def to_rgb(image: Image.Image, exif: bool = False) -> Image.Image:
    """Any image as 8-bit RGB; of several frames the first.

    With ``exif`` the image is turned as its EXIF orientation says. The tools of ADM, EDM and EDM2
    do not, so that published statistics hold images as they were stored. Transparency, in a
    channel, palette or colour key, is composited over white. Palette, CMYK, YCbCr, Lab, HSV, 1-bit
    and grey images are converted by Pillow; 16-bit grey is scaled from 0..65535 to 0..255 and
    rounded. Colour profiles are ignored, as every published ImageNet pipeline does.

    Raises:
        PagodaError: for floating-point images, whose range is anyone's guess.
    """
    if exif:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise PagodaError("floating-point images have no fixed range; save them with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "RGB":
        image.load()  # convert() would copy all its pixels
        return image
    return image.convert("RGB")


def _recipe(name: str) -> Callable[[Image.Image, int], Image.Image]:
    if name not in RECIPES:
        raise PagodaError(f"unknown recipe {name!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name]


def _adm(image: Image.Image, resolution: int) -> Image.Image:
    while min(image.size) >= 2 * resolution:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = resolution / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    if size[0] * size[1] > _MOST_PIXELS:
        raise PagodaError(
            f"is {image.width}x{image.height}: too narrow to be scaled to {size[0]}x{size[1]}"
        )
    return _centre(image.resize(size, Image.Resampling.BICUBIC), resolution)


def _lanczos(image: Image.Image, resolution: int) -> Image.Image:
    square = _centre(image, min(image.size))
    return square.resize((resolution, resolution), Image.Resampling.LANCZOS)


def _box(image: Image.Image, resolution: int) -> Image.Image:
    square = _centre(image, min(image.size))
    return square.resize((resolution, resolution), Image.Resampling.BOX)


RECIPES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "adm": _adm,
    "lanczos": _lanczos,
    "box": _box,
}
"""Each takes an RGB image and R, and returns an RGB image of R x R pixels."""


def _centre(image: Image.Image, side: int) -> Image.Image:
    """The central square of ``side`` pixels; an odd pixel goes to the right and the bottom."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _pad(image: Image.Image, side: int) -> Image.Image:
    width, height = max(image.width, side), max(image.height, side)
    if (width, height) == image.size:
        return image
    canvas = Image.new("RGB", (width, height))
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def _cut_exact(images: Pixels, resolution: int, recipe: str, pad_to: int | None) -> Pixels | None:
    """The recipe on (n, C, H, W) without Pillow, or None where only Pillow gives its bytes."""
    height, width = (max(side, pad_to or 0) for side in images.shape[2:])
    if recipe == "adm":
        side, factors = min(height, width), []
        while side >= 2 * resolution and height % 2 == 0 and width % 2 == 0:
            side, height, width = side // 2, height // 2, width // 2
            factors.append(2)
    else:
        side = min(height, width)
        factors = [side // resolution] if recipe == "box" and side % resolution == 0 else [1]
        side //= factors[0]
    if side != resolution:
        return None
    images = _pad_batch(images, pad_to or 0)
    if recipe != "adm":
        images = _centre_batch(images, min(images.shape[2:]))
    for factor in factors:
        images = _box_batch(images, factor)
    return _centre_batch(images, resolution)


def _pad_batch(images: Pixels, side: int) -> Pixels:
    gaps = [max(side - have, 0) for have in images.shape[2:]]
    if not any(gaps):
        return images
    return np.pad(images, [(0, 0), (0, 0), *((gap // 2, gap - gap // 2) for gap in gaps)])


def _centre_batch(images: Pixels, side: int) -> Pixels:
    top, left = ((have - side) // 2 for have in images.shape[2:])
    return images[:, :, top : top + side, left : left + side]


def _box_batch(images: Pixels, factor: int) -> Pixels:
    """Mean over ``factor`` x ``factor`` pixels, rounded after each axis as Pillow does."""
    if factor == 1:
        return images
    across = _mean([images[..., i::factor] for i in range(factor)])
    return _mean([across[:, :, i::factor] for i in range(factor)])


def _mean(parts: list[Pixels]) -> Pixels:
    """Mean of k arrays in Pillow's fixed point: weights of 22 bits, halves rounded up."""
    k = len(parts)
    total: NDArray[Any] = parts[0].astype(np.uint32 if k > 256 else np.uint16)
    for part in parts[1:]:
        total += part
    if k & (k - 1) == 0:  # the weight 2^22 / k is exact
        total = (total + total.dtype.type(k // 2)) >> total.dtype.type(k.bit_length() - 1)
        return total.astype(np.uint8)
    weight = np.int64((1 << 22) / k + 0.5)
    return ((total * weight + (1 << 21)) >> 22).astype(np.uint8)
