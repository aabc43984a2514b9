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
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pagoda.errors import PagodaError

Pixels = NDArray[np.uint8]

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_EIGHT_BITS = {"1", "L", "P", "RGB", "RGBX", "RGBA", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr",
               "LAB", "HSV"}  # fmt: skip
_SIXTEEN_BITS = (None, "PNG", "PPM", "TIFF", "JPEG2000")  # formats; None: not from a file
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
    """Any image whose black and white are known, as 8-bit RGB; of several frames the first.

    With ``exif`` the image is turned as its EXIF orientation says. The tools of ADM, EDM and EDM2
    do not, so that published statistics hold images as they were stored. (A TIFF file is turned
    in any case: Pillow does that when it reads one.) Transparency, in a channel, palette or colour
    key, is composited over white. Colour profiles are ignored, as every published ImageNet
    pipeline does.

    ========================================  ====================================================
    mode                                      rule
    ========================================  ====================================================
    RGB, RGBX, 1, L, P, CMYK, YCbCr, LAB, HSV  Pillow's conversion
    RGBA, LA, PA, La, RGBa, or a colour key   over white
    I;16 and its byte orders; I of PNG, PPM   scaled from 0..65535 (of a 12-bit TIFF 0..4095) to
                                              0..255 and rounded
    I of others, F, signed, anything else     refused
    ========================================  ====================================================

    Raises:
        PagodaError: for an image whose range, or the order of black and white, is anyone's guess.
    """
    _check_range(image)
    _scale_colour_key(image)
    bits = getattr(image, "tag_v2", {}).get(_BITS, 16)
    if exif:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return _eight_bits(image, bits if isinstance(bits, int) else bits[0]).convert("RGB")
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "RGB":
        image.load()  # convert() would copy all its pixels
        return image
    return image.convert("RGB")


def _check_range(image: Image.Image) -> None:
    mode, kind, tags = image.mode, image.format, getattr(image, "tag_v2", {})
    doubtful = None
    if mode == "F":
        doubtful = "floating-point"
    elif 2 in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1)):
        doubtful = "signed"
    elif mode == "I" and kind not in ("PNG", "PPM"):
        doubtful = "32-bit integer"
    elif mode.startswith("I;") and tags.get(_PHOTOMETRIC) == 0:
        doubtful = "16-bit white-is-zero"  # Pillow does not turn them round
    elif mode not in _EIGHT_BITS and (mode[0] != "I" or kind not in _SIXTEEN_BITS):
        doubtful = f"{kind} {mode}"
    if doubtful:
        raise PagodaError(
            f"{doubtful} pixels have no certain black and white; save them as 8-bit or 16-bit PNG"
        )


def _scale_colour_key(image: Image.Image) -> None:
    """Bring a PNG's colour key to the depth of the pixels; Pillow leaves it in the file's."""
    tiles, key = getattr(image, "tile", None), image.info.get("transparency")
    stored = tiles[0].args if tiles and image.format == "PNG" else None
    if stored in ("L;2", "L;4") and isinstance(key, int):
        image.info["transparency"] = key * (85 if stored == "L;2" else 17)
    if stored == "RGB;16B" and key is not None:  # its pixels have lost what the key is in
        raise PagodaError("16-bit colour with a colour key; save it with an alpha channel instead")


def _eight_bits(image: Image.Image, bits: int) -> Image.Image:
    """Grey of 0 .. 2^bits - 1, its colour key white, as 0 .. 255."""
    values, top = np.array(image, np.int64), (1 << bits) - 1
    if (key := image.info.get("transparency")) is not None:
        values[values == key] = top
    return Image.fromarray(((values * 255 + top // 2) // top).astype(np.uint8))


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


def _square(filter: Image.Resampling, image: Image.Image, resolution: int) -> Image.Image:
    return _centre(image, min(image.size)).resize((resolution, resolution), filter)


RECIPES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "adm": _adm,
    "lanczos": partial(_square, Image.Resampling.LANCZOS),
    "box": partial(_square, Image.Resampling.BOX),
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
