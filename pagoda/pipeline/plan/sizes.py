"""How many images an experiment has, and how many bytes it keeps of them. Torch is not needed."""

from __future__ import annotations

from pagoda.config import Config
from pagoda.data.registry import find
from pagoda.errors import PagodaError
from pagoda.pipeline.stages.sources import open_split

_KNOWN = {
    "imagenet": (1_281_167, 50_000),
    "Imagenette": (9_469, 3_925),
    "FashionMNIST": (60_000, 10_000),
}
"""Training and held-out images of data sets, by ``data.source`` or ``data.hub``."""

WEBP_SHARE = 0.42
"""Lossless WebP against raw pixels, measured at 512x512 (docs/data.md); small images take more."""

_LABEL_BYTES = 8


def image_counts(config: Config, given: tuple[int, int] | None = None) -> tuple[int, int]:
    """Training and held-out images: as given, of a known set, or counted in the files.

    Raises:
        PagodaError: if they are not known and the files are not here.
    """
    data = config.data
    limits = data.train_images, data.test_images
    if given is None and data.source == "embedded" and None not in limits:
        given = limits[0] or 0, limits[1] or 0
    whole = given or _KNOWN.get(data.source) or _KNOWN.get(data.hub or "") or _opened(config)
    train, test = (
        n if most is None else min(n, most) for n, most in zip(whole, limits, strict=True)
    )
    return train, test


def _opened(config: Config) -> tuple[int, int]:
    advice = "--images TRAIN,TEST says how many images there are"
    if find(config.data.source).fetched:
        raise PagodaError(f"the number of images of {config.data.hub} is not known here; {advice}")
    try:
        return len(open_split(config, "train")), len(open_split(config, "test"))
    except PagodaError as error:
        raise PagodaError(f"{error}; without it, {advice}") from None


def image_bytes(config: Config, resolution: int, count: int) -> int:
    """Bytes of ``count`` stored images and their labels at one resolution."""
    pixels = 3 * resolution**2
    start = config.data.encode_from
    if start is not None and resolution >= start:
        pixels = round(pixels * WEBP_SHARE)
    return count * (pixels + _LABEL_BYTES)


def latent_bytes(config: Config, count: int) -> int:
    """Bytes of ``count`` latents with index, mirror flag and label."""
    value = 2 if config.invert.dtype == "fp16" else 4
    return count * (3 * config.base_res**2 * value + 8 + 1 + _LABEL_BYTES)
