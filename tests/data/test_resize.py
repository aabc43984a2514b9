"""Recipes give the bytes of Pillow and of the published chains; modes follow their rules."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagoda.data import resize
from pagoda.data.resize import RECIPES, cut, cut_batch, to_rgb
from pagoda.errors import PagodaError


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def halved(pixels: np.ndarray) -> np.ndarray:
    """Mean of pairs, halves up, along x and then along y; an odd last row or column has no pair."""
    wide = pixels.astype(int)
    wide = (wide[:, 0::2] + wide[:, 1::2] + 1) // 2
    return ((wide[0::2] + wide[1::2] + 1) // 2).astype(np.uint8)


def cubic(pixels: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Antialiased Catmull-Rom-family (a = -0.5) resampling in exact arithmetic, then rounding."""
    pixels = np.moveaxis(pixels.astype(float), axis, 0)
    scale = len(pixels) / size
    width = max(scale, 1.0)
    out = np.empty((size, *pixels.shape[1:]))
    for i in range(size):
        centre = (i + 0.5) * scale
        low = max(int(centre - 2 * width + 0.5), 0)
        high = min(int(centre + 2 * width + 0.5), len(pixels))
        t = np.abs((np.arange(low, high) + 0.5 - centre) / width)
        near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
        weights = np.where(t < 1, near, np.where(t < 2, far, 0))
        out[i] = np.tensordot(weights / weights.sum(), pixels[low:high], 1)
    return np.moveaxis(np.clip(np.floor(out + 0.5), 0, 255), 0, axis).astype(np.uint8)


def adm(pixels: np.ndarray, resolution: int) -> np.ndarray:
    """The ADM chain on arrays whose halvings are even, without Pillow."""
    while min(pixels.shape[:2]) >= 2 * resolution:
        pixels = halved(pixels)
    height, width = pixels.shape[:2]
    short = min(height, width)
    new = [round(side * resolution / short) for side in (height, width)]
    if new != [height, width]:
        pixels = cubic(cubic(pixels, new[1], 1), new[0], 0)
    top, left = (new[0] - resolution) // 2, (new[1] - resolution) // 2
    return pixels[top : top + resolution, left : left + resolution]


@pytest.mark.parametrize(
    ("height", "width", "resolution"),
    [(32, 32, 8), (96, 64, 16), (112, 192, 32), (40, 52, 32), (20, 26, 32), (128, 256, 64)],
)
def test_adm_equals_an_independent_chain(height: int, width: int, resolution: int) -> None:
    pixels = noise(height, width)
    ours = cut(Image.fromarray(pixels), resolution, "adm")
    # Pillow's fixed-point weights may round a tie differently from exact arithmetic.
    difference = np.abs(ours.astype(int) - adm(pixels, resolution))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.001
    if math.log2(min(height, width) / resolution).is_integer():
        assert difference.max() == 0


@pytest.mark.parametrize(("height", "width"), [(65, 97), (333, 500), (50, 31)])
def test_adm_equals_the_published_code_on_odd_sizes(height: int, width: int) -> None:
    """Sizes of intermediate images and of the crop, step by step with Pillow alone."""
    image, resolution = Image.fromarray(noise(height, width)), 16
    step = image
    while min(step.size) >= 32:
        step = step.resize((step.size[0] // 2, step.size[1] // 2), resample=Image.Resampling.BOX)
    factor = resolution / min(step.size)
    size = (round(step.size[0] * factor), round(step.size[1] * factor))
    array = np.array(step.resize(size, resample=Image.Resampling.BICUBIC))
    y, x = (array.shape[0] - 16) // 2, (array.shape[1] - 16) // 2
    assert np.array_equal(cut(image, resolution, "adm"), array[y : y + 16, x : x + 16])


@pytest.mark.parametrize(
    ("recipe", "kernel"), [("lanczos", Image.Resampling.LANCZOS), ("box", Image.Resampling.BOX)]
)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (45, 80), (81, 40), (20, 33)])
def test_lanczos_and_box_crop_then_resize(
    recipe: str, kernel: Image.Resampling, height: int, width: int
) -> None:
    pixels = noise(height, width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side].copy())
    expected = np.asarray(square.resize((32, 32), kernel))
    assert np.array_equal(cut(Image.fromarray(pixels), 32, recipe), expected)


@pytest.mark.parametrize("recipe", RECIPES)
def test_batches_have_the_bytes_of_single_images(recipe: str) -> None:
    cases = [(32, 32, 8, 3, None), (28, 28, 8, 1, 32), (28, 28, 4, 3, None), (32, 48, 8, 3, None),
             (50, 64, 16, 3, None), (21, 21, 7, 1, None), (17, 33, 8, 3, None), (9, 9, 16, 3, None),
             (45, 45, 9, 3, None), (600, 600, 2, 3, None), (27, 30, 8, 3, 32)]  # fmt: skip
    for height, width, resolution, channels, pad_to in cases:
        images = np.stack([noise(height, width, channels, seed) for seed in range(4)])
        batch = cut_batch(images.transpose(0, 3, 1, 2), resolution, recipe, pad_to)
        assert batch.shape == (4, 3, resolution, resolution) and batch.dtype == np.uint8
        for image, row in zip(images, batch, strict=True):
            one = Image.fromarray(image[..., 0] if channels == 1 else image)
            assert np.array_equal(cut(one, resolution, recipe, pad_to).transpose(2, 0, 1), row)


def test_vectorised_path_is_taken_and_rounds_ties_as_pillow() -> None:
    """All pairs of bytes through the halving; the path must not fall back on Pillow."""
    a, b = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    pairs = np.stack([a, b], axis=2).reshape(256, 512).astype(np.uint8)
    images = np.broadcast_to(pairs, (1, 1, 256, 512))[..., :256, :]
    fast = resize._cut_exact(images, 128, "adm", None)
    assert fast is not None
    pillow = Image.fromarray(images[0, 0]).resize((256, 128), Image.Resampling.BOX)
    assert np.array_equal(fast[0, 0], np.asarray(pillow)[:, 64:192])
    assert resize._cut_exact(images, 100, "box", None) is None


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_image_of_the_right_size_is_unchanged(recipe: str) -> None:
    pixels = noise(32, 32)
    assert np.array_equal(cut(Image.fromarray(pixels), 32, recipe), pixels)
    batch = pixels.transpose(2, 0, 1)[None]
    assert np.array_equal(cut_batch(batch, 32, recipe), batch)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_constant_image_stays_constant(recipe: str) -> None:
    image = Image.new("RGB", (77, 51), (7, 130, 255))
    assert (cut(image, 16, recipe) == (7, 130, 255)).all()


def test_padding_centres_small_images_and_leaves_large_ones() -> None:
    pixels = noise(28, 28)
    padded = cut(Image.fromarray(pixels), 32, "box", pad_to=32)
    assert np.array_equal(padded[2:30, 2:30], pixels)
    padded[2:30, 2:30] = 0
    assert not padded.any()
    large = Image.fromarray(noise(40, 40))
    assert np.array_equal(cut(large, 20, "box", pad_to=32), cut(large, 20, "box"))
    tall = cut(Image.fromarray(noise(40, 30)), 32, "adm", pad_to=32)
    assert not tall[:, 0].any() and tall[:, 2].any()


def test_unknown_recipe_is_refused() -> None:
    with pytest.raises(PagodaError, match=r"unknown recipe 'bilinear'.*adm, lanczos, box"):
        cut(Image.new("RGB", (8, 8)), 8, "bilinear")
    with pytest.raises(PagodaError, match="unknown recipe"):
        cut_batch(np.zeros((1, 3, 8, 8), np.uint8), 8, "bilinear")


def test_grey_palette_and_bit_images_become_rgb() -> None:
    grey = noise(4, 4, 1)[..., 0]
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(grey))), grey[..., None].repeat(3, 2))
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([1, 0])
    assert np.asarray(to_rgb(palette)).tolist() == [[[200, 100, 50], [10, 20, 30]]]
    assert np.asarray(to_rgb(Image.new("1", (1, 1), 1))).tolist() == [[[255, 255, 255]]]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as image:
        rgb = np.asarray(to_rgb(image))
    expected = [round(v * 255 / 65535) for v in values[0].tolist()]
    assert rgb[0, :, 0].tolist() == expected == [0, 0, 1, 1, 128, 255]
    assert np.array_equal(rgb[..., 0], rgb[..., 2])
    assert np.asarray(to_rgb(Image.new("I", (1, 1), 65535))).tolist() == [[[255, 255, 255]]]


def test_cmyk_is_converted_as_ink() -> None:
    ink = Image.new("CMYK", (1, 1), (255, 0, 0, 0))
    assert np.asarray(to_rgb(ink)).tolist() == [[[0, 255, 255]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparency_shows_white(mode: str, tmp_path: Path) -> None:
    """In a channel, in a palette entry, or as a colour key: through a file, as it is met."""
    if mode == "RGBA":
        Image.new("RGBA", (2, 2), (255, 0, 0, 51)).save(tmp_path / "x.png")
        expected = [255, 204, 204]
    elif mode == "LA":
        Image.new("LA", (2, 2), (0, 51)).save(tmp_path / "x.png")
        expected = [204, 204, 204]
    elif mode == "P":
        palette = Image.new("P", (2, 2), 1)
        palette.putpalette([10, 20, 30, 200, 100, 50])
        palette.save(tmp_path / "x.png", transparency=1)
        expected = [255, 255, 255]
    else:
        key = Image.new("RGB", (2, 2), (1, 2, 3))
        key.save(tmp_path / "x.png", transparency=(1, 2, 3))
        expected = [255, 255, 255]
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == mode
        assert (np.asarray(to_rgb(image)) == expected).all()


def test_exif_orientation_is_applied_where_asked_for(tmp_path: Path) -> None:
    pixels = noise(8, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert np.array_equal(np.asarray(to_rgb(image)), pixels)
        assert np.array_equal(np.asarray(to_rgb(image, exif=True)), np.rot90(pixels, -1))


def test_floating_point_images_are_refused() -> None:
    with pytest.raises(PagodaError, match="floating-point"):
        to_rgb(Image.new("F", (2, 2)))
