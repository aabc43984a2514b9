"""Captions say what the picture shows, measured on the pixels."""

from __future__ import annotations

import colorsys
import dataclasses
from typing import Any

import numpy as np
import pytest

from pagoda.data import scenes
from pagoda.data.captions import Words, agreement, parse, shares, words
from pagoda.data.embedded import captions, render
from pagoda.data.reading import read
from pagoda.errors import PagodaError

# Hue range in degrees of each colour word; one entry for light and one for dark objects.
HUES = {
    "salmon": (345, 375), "red": (345, 375), "orange": (15, 45), "brown": (15, 45),
    "yellow": (45, 70), "olive": (45, 70), "green": (70, 160), "dark-green": (70, 160),
    "turquoise": (160, 195), "teal": (160, 195), "cyan": (160, 195), "sky-blue": (195, 255),
    "blue": (195, 255), "lilac": (255, 290), "purple": (255, 290), "pink": (290, 345),
    "magenta": (290, 345),
}  # fmt: skip
LIGHT = {"salmon", "orange", "yellow", "green", "turquoise", "sky-blue", "lilac", "pink"}


def pictures(label: int, count: int, resolution: int = 64) -> tuple[np.ndarray, list[str]]:
    indices = label + 10 * np.arange(count)
    images, _ = render(indices, resolution=resolution, seed=0, split="train")
    return images.astype(float), captions(indices, seed=0, split="train")


def has_hue(rgb: np.ndarray, word: str, slack: float = 8) -> bool:
    hue = 360 * colorsys.rgb_to_hsv(*(rgb / 255))[0]
    low, high = HUES[word]
    return any(low - slack <= turn <= high + slack for turn in (hue, hue + 360))


def object_mask(image: np.ndarray) -> np.ndarray:
    """Pixels clearly nearer to the centre colour than to the border's."""
    border = np.concatenate([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], axis=1)
    return np.abs(image - border.mean(1)[:, None, None]).sum(0) > 110


def test_captions_name_the_class_and_read_as_english() -> None:
    lines = captions(np.arange(10), seed=0, split="train")
    nouns = ("disc", "square", "triangle", "ring", "plus sign", "star", "striped tile",
             "checkered tile", "crescent", "dumbbell")  # fmt: skip
    for line, noun in zip(lines, nouns, strict=True):
        assert f" {noun}," in line and line.startswith("a ") and " background, lit from " in line


def test_captions_do_not_depend_on_the_batch() -> None:
    lines = captions(np.arange(100), seed=5, split="test")
    assert captions([42], seed=5, split="test") == [lines[42]]
    assert len(set(lines)) > 90


def test_object_colour_words_match_the_pixels() -> None:
    images, lines = pictures(0, 150)
    for image, line in zip(images, lines, strict=True):
        word = line.split(" disc")[0].split()[-1]
        body = np.median(image[:, object_mask(image)], axis=1)
        assert has_hue(body, word), line
        # A name of a light colour is used exactly where the object outshines the background.
        assert (body @ scenes.LUMA > image[:, 0, 0] @ scenes.LUMA) == (word in LIGHT), line


def test_background_words_match_the_pixels() -> None:
    images, lines = pictures(3, 150)
    for image, line in zip(images, lines, strict=True):
        depth, word = line.split(" on a ")[1].split(" background")[0].split()
        corners = image[:, [2, 2, -3, -3], [2, -3, 2, -3]].mean(1)
        assert has_hue(corners, word, slack=15), line
        assert (corners @ scenes.LUMA > 128) == (depth == "pale"), line


def test_size_words_follow_the_area() -> None:
    images, lines = pictures(1, 200)
    area = np.array([object_mask(image).sum() for image in images])
    words = np.array([line.split()[1] for line in lines])
    small, medium, large = (area[words == w] for w in ("small", "medium-sized", "large"))
    assert min(map(len, (small, medium, large))) > 20
    assert small.mean() < 0.85 * medium.mean() and medium.mean() < 0.85 * large.mean()


def test_light_words_name_the_brighter_side() -> None:
    images, lines = pictures(0, 200)
    rights = 0
    for image, line in zip(images, lines, strict=True):
        y, x = np.nonzero(object_mask(image))
        core = np.hypot(x - x.mean(), y - y.mean()) < 0.7 * np.sqrt(len(x) / np.pi)
        y, x = y[core], x[core]  # without outline and shadow
        luma = np.tensordot(scenes.LUMA, image, 1)[y, x]
        across, down = np.cov(x, luma)[0, 1], np.cov(y, luma)[0, 1]
        sides = {"left": -across, "right": across, "above": -down, "below": down}
        rights += max(sides, key=lambda side: sides[side]) == line.split()[-1]
    assert rights > 190  # light close to a diagonal may be measured on the other side of it


def test_tilt_words_follow_the_axis_of_the_object() -> None:
    images, lines = pictures(9, 200)
    for image, line in zip(images, lines, strict=True):
        y, x = np.nonzero(object_mask(image))
        turn = 0.5 * np.arctan2(2 * np.cov(x, y)[0, 1], np.var(x) - np.var(y))
        if "tilted right" in line:  # clockwise on the screen, where y points down
            assert turn > 0.05, line
        elif "tilted left" in line:
            assert turn < -0.05, line
        else:
            assert "upright" in line and abs(turn) < 0.2


def own(n: int, resolution: int = 32, variety: float = 1.0) -> tuple[np.ndarray, list[Words]]:
    indices = np.arange(n)
    how: dict[str, Any] = {"seed": 0, "split": "test", "variety": variety}
    images, _ = render(indices, resolution=resolution, **how)
    return images, words(scenes.scenes(indices, **how))


def test_every_caption_is_read_back_at_both_lengths() -> None:
    said = own(400)[1]
    for w in said:
        assert parse(w.text("long")) == w
        assert parse(w.text("short")) == Words(w.colour, w.noun)
    assert {w.text("short").split()[0] for w in said} == {"a", "an"}
    assert captions(np.arange(400), seed=0, split="test", length="short") == [
        w.text("short") for w in said
    ]


def test_a_picture_says_what_its_own_caption_says() -> None:
    """Of short captions every one, whatever the size of the picture; of long ones nearly every."""
    for resolution, variety in ((32, 1.0), (64, 0.4)):
        images, said = own(40, resolution, variety)
        seen = read(images)
        short = [parse(w.text("short")) for w in said]
        assert shares(agreement(seen, short), short)["all"].all()
        found = shares(agreement(seen, said), said)
        assert found["all"].mean() >= 0.9 and found["noun"].all() and found["depth"].all()
        other = said[3:] + said[:3]  # other classes: classes come in turn
        assert not shares(agreement(seen, other), other)["noun"].any()


@pytest.mark.parametrize(
    ("word", "wrong"),
    [("colour", ("pink", "teal")), ("noun", ("star", "ring")), ("depth", ("pale", "dark")),
     ("ground", ("cyan", "red")), ("light", ("the left", "the right")),
     ("tilt", ("tilted left", "tilted right"))],
)  # fmt: skip
def test_words_that_exclude_each_other_are_not_both_seen(word: str, wrong: tuple[str, str]) -> None:
    images, said = own(20)
    seen = read(images)
    changed = [[dataclasses.replace(w, **{word: other}) for w in said] for other in wrong]
    first, second = (agreement(seen, c)[word] for c in changed)
    assert not (first & second).any() and not first.all() and not second.all()


def test_noise_says_nothing_in_particular() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    images, said = own(20)
    seen = read(noise)
    assert shares(agreement(seen, said), said)["all"].mean() < 0.2
    assert seen.error.min() > 10 * read(images).error.mean()


@pytest.mark.parametrize(
    ("text", "line"),
    [("", "empty caption"), ("  ", "empty caption"), ("a blue cat", "'a blue cat' is no caption"),
     ("a large orange star", "is no caption"), ("an orange star " * 50, "is no caption")],
)  # fmt: skip
def test_what_is_no_caption_is_one_line(text: str, line: str) -> None:
    with pytest.raises(PagodaError, match=line) as error:
        parse(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_pictures_too_small_to_be_read() -> None:
    with pytest.raises(PagodaError, match="images are 16x16; they are read at 32 or a multiple"):
        read(np.zeros((1, 3, 16, 16), np.uint8))
    with pytest.raises(PagodaError, match="length = 'medium'; it must be one of short, long"):
        captions([0], seed=0, split="test", length="medium")
