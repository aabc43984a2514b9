"""Recipes give the bytes of Pillow and of the published chains; modes follow their rules."""

from __future__ import annotations

import io
import math
import struct
import zlib
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
    for mode in ("I;16", "I;16B", "I;16L"):  # of either byte order
        one = Image.frombytes(mode, (1, 1), bytes([1, 2]))
        value = 258 if mode == "I;16B" else 513
        assert np.asarray(to_rgb(one)).tolist() == [[[round(value / 257)] * 3]]
    (tmp_path / "deep.pgm").write_bytes(b"P5 2 1 1000\n" + struct.pack(">2H", 0, 1000))
    with Image.open(tmp_path / "deep.pgm") as image:  # Pillow scales it to 65535
        assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [0, 255]


def tiff(values: np.ndarray, **tags: int) -> Image.Image:
    """A grey TIFF file of one strip that says what it likes of its numbers, read back."""
    content = values.tobytes()
    stated = {256: values.shape[1], 257: values.shape[0], 258: tags["bits"], 259: 1,
              262: tags.get("photometric", 1), 273: 8, 277: 1, 278: values.shape[0],
              279: len(content), 339: tags.get("sample_format", 1)}  # fmt: skip
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in stated.items())
    directory = struct.pack("<H", len(stated)) + fields + bytes(4)
    return Image.open(io.BytesIO(b"II*\0" + struct.pack("<I", 8 + len(content)) + content
                                 + directory))  # fmt: skip


def test_twelve_bits_span_the_whole_range() -> None:
    packed = np.array([[0x00, 0x0F, 0xFF]], np.uint8)  # 0x000 and 0xFFF
    image = tiff(packed, bits=12)
    image._size = (2, 1)  # two pixels in three bytes
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.new("F", (2, 2)), "floating-point"),
        (Image.new("I", (2, 2), 255), "32-bit integer"),
        (tiff(np.full((2, 2), 255, "<i4"), bits=32, sample_format=2), "signed"),
        (tiff(np.full((2, 2), 255, "<u4"), bits=32), "32-bit integer"),
        (tiff(np.full((2, 2), -1, "<i2"), bits=16, sample_format=2), "signed"),
        (tiff(np.full((2, 2), -1, "i1"), bits=8, sample_format=2), "signed"),
        (tiff(np.full((2, 2), 0.5, "<f4"), bits=32, sample_format=3), "floating-point"),
        (tiff(np.full((2, 2), 9, "<u2"), bits=16, photometric=0), "16-bit white-is-zero"),
    ],
)
@pytest.mark.parametrize("exif", [False, True])
def test_pixels_of_unknown_range_are_refused(image: Image.Image, kind: str, exif: bool) -> None:
    with pytest.raises(PagodaError, match=f"^{kind} pixels have no certain black and white"):
        to_rgb(image, exif)


def test_known_tiffs_are_read() -> None:
    """The files above with known numbers: 8 bits in both orders of black and white, 16 bits."""
    for image, white in (
        (tiff(np.array([[255, 0]], np.uint8), bits=8), 0),
        (tiff(np.array([[255, 0]], np.uint8), bits=8, photometric=0), 1),
        (tiff(np.array([[65535, 0]], "<u2"), bits=16), 0),
    ):
        assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [255 * (i == white) for i in (0, 1)]


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


def keyed(depth: int, colour: int, row: bytes, key: bytes) -> Image.Image:
    """A PNG file of two pixels with a colour key, byte by byte: Pillow writes 8 bits only."""
    head = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    chunks = [
        (b"IHDR", head),
        (b"tRNS", key),
        (b"IDAT", zlib.compress(b"\0" + row)),
        (b"IEND", b""),
    ]
    content = b"".join(struct.pack(">I", len(c)) + t + c + struct.pack(">I", zlib.crc32(t + c))
                       for t, c in chunks)  # fmt: skip
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + content))


@pytest.mark.parametrize(
    ("depth", "row", "key", "other"),
    [(1, b"\x40", 0, 255), (1, b"\x80", 1, 0), (2, b"\x60", 1, 170), (4, b"\x1f", 1, 255),
     (8, b"\x01\x09", 1, 9), (16, b"\x01\x00\x01\x01", 256, 1)],
)  # fmt: skip
@pytest.mark.parametrize("exif", [False, True])
def test_a_colour_key_hides_its_grey_at_every_depth(
    depth: int, row: bytes, key: int, other: int, exif: bool
) -> None:
    """The first of two pixels is hidden."""
    image = keyed(depth, 0, row, struct.pack(">H", key))
    assert np.asarray(to_rgb(image, exif))[0, :, 1].tolist() == [255, other]


def test_a_colour_key_of_sixteen_bit_colour_is_refused() -> None:
    """Pillow keeps the high bytes, in which the key cannot be told from its neighbours."""
    with pytest.raises(PagodaError, match="save it with an alpha channel"):
        to_rgb(keyed(16, 2, bytes(12), struct.pack(">HHH", 0, 0, 1)))


@pytest.mark.parametrize(
    "mode",
    [
        *["1", "L", "P", "RGB", "RGBX", "RGBA", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr", "LAB"],
        *["HSV", "I;16", "I;16B", "I;16L"],
    ],
)
def test_every_mode_has_a_rule_and_can_be_turned(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    image.getexif()[0x0112] = 6
    assert to_rgb(image).mode == to_rgb(image, exif=True).mode == "RGB"
    assert to_rgb(image).size == (3, 2) and to_rgb(image, exif=True).size == (2, 3)


def test_exif_orientation_is_applied_where_asked_for(tmp_path: Path) -> None:
    pixels = noise(8, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert np.array_equal(np.asarray(to_rgb(image)), pixels)
        assert np.array_equal(np.asarray(to_rgb(image, exif=True)), np.rot90(pixels, -1))
