"""The grammar of the embedded set's captions, at two lengths, and whether pictures say the same.

short   = article, colour, noun                           "an orange star"
long    = article, size, colour, noun, ["," tilt], ", on a", depth, ground, "background, lit from",
          light     "a large orange star, tilted left, on a dark blue background, lit from above"

Every caption of the grammar is read back to the words that it was made of (:func:`parse`), and
pictures are read by :mod:`pagoda.data.reading`, so that how well a picture follows its caption is
counted, not judged by a network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pagoda.data.scenes import RADIUS, ROUND, Floats, Scenes, scenes
from pagoda.errors import PagodaError

if TYPE_CHECKING:
    from pagoda.data.reading import Seen

LENGTHS = "short", "long"
MIXED = "mixed"
"""Of every class half the images have a short caption, the others a long one."""

SIZES = ("small", "medium-sized", "large")
NOUNS = ("disc", "square", "triangle", "ring", "plus sign", "star", "striped tile",
         "checkered tile", "crescent", "dumbbell")  # fmt: skip
"""Of the classes in their order."""
TILTS = ("tilted left", "upright", "tilted right")
DEPTHS = ("pale", "dark")
LIGHTS = ("the left", "the right", "above", "below")
LIGHT = ("salmon", "orange", "yellow", "green", "turquoise", "sky-blue", "lilac", "pink")
DARK = ("red", "brown", "olive", "dark-green", "teal", "blue", "purple", "magenta")
"""Colours of light and dark objects, a sector of hue each."""
GROUNDS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")

# Upper ends of the hue sectors in degrees; the last sector wraps round to red.
_HUE_ENDS = np.array([15.0, 45, 70, 160, 195, 255, 290, 345])
_UPRIGHT = 0.12  # radians
# How far a picture may lie beyond the limit of a word and still say it: what reading can miss.
_SLACK = {"hue": 8 / 360, "ground": 15 / 360, "size": 0.035, "tilt": 0.06, "light": 0.35}


@dataclass(frozen=True)
class Words:
    """What a caption says; an empty word says nothing."""

    colour: str
    noun: str
    size: str = ""
    tilt: str = ""
    depth: str = ""
    ground: str = ""
    light: str = ""

    def text(self, length: str = "long") -> str:
        """The caption of a length; of a long one all words are needed, but the tilt of round ones.

        Raises:
            PagodaError: there is no such length.
        """
        if length not in LENGTHS:
            raise PagodaError(f"length = {length!r}; it must be one of {', '.join(LENGTHS)}")
        if length == "short":
            article = "an" if self.colour[0] in "aeiou" else "a"
            return f"{article} {self.colour} {self.noun}"
        pose = f" {self.tilt}," if self.tilt else ""
        return (
            f"a {self.size} {self.colour} {self.noun},{pose} on a {self.depth} {self.ground} "
            f"background, lit from {self.light}"
        )


def captions(
    indices: ArrayLike, *, seed: int, split: str, variety: float = 1.0, length: str = "long"
) -> list[str]:
    """One English caption an image, true to the scene's parameters.

    Raises:
        PagodaError: there is no such length.
    """
    found = words(scenes(indices, seed=seed, split=split, variety=variety))
    return [w.text(length) for w in found]


def words(s: Scenes) -> list[Words]:
    """What there is to say of scenes."""
    sizes = _pick(SIZES, ((s.radius - RADIUS.min()) / _third()).astype(int))
    light, sector = s.is_light, _sector(s.hue)
    colours = [(LIGHT if a else DARK)[b] for a, b in zip(light, sector, strict=True)]
    grounds = _pick(GROUNDS, _sector(s.ground_hue))
    depths = _pick(DEPTHS, light.astype(int))
    tilts = _pick(TILTS, np.digitize(s.tilt * s.mirror, (-_UPRIGHT, _UPRIGHT)))
    side, rise = s.light[:, 0] * s.mirror, s.light[:, 1]
    across, updown = np.where(side < 0, 0, 1), np.where(rise < 0, 2, 3)
    lights = _pick(LIGHTS, np.where(abs(side) > abs(rise), across, updown))
    return [
        Words(colours[i], NOUNS[label], sizes[i], "" if label in ROUND else tilts[i], depths[i],
              grounds[i], lights[i])
        for i, label in enumerate(s.label)
    ]  # fmt: skip


def _one_of(name: str, choices: Sequence[str]) -> str:
    return f"(?P<{name}>{'|'.join(map(re.escape, sorted(choices, key=len, reverse=True)))})"


_SHAPE = f"{_one_of('colour', LIGHT + DARK)} {_one_of('noun', NOUNS)}"
_CAPTION = {
    "short": re.compile(f"an? {_SHAPE}"),
    "long": re.compile(
        f"an? {_one_of('size', SIZES)} {_SHAPE},(?: {_one_of('tilt', TILTS)},)? on a "
        f"{_one_of('depth', DEPTHS)} {_one_of('ground', GROUNDS)} background, lit from "
        f"{_one_of('light', LIGHTS)}"
    ),
}


def parse(text: str) -> Words:
    """The words of a caption of the grammar, of either length.

    Raises:
        PagodaError: one line: it is empty, or none of the grammar, with an example.
    """
    if not text.strip():
        raise PagodaError("an empty caption; one is, for example, 'an orange star'")
    for pattern in _CAPTION.values():
        if match := pattern.fullmatch(text.strip().lower()):
            return Words(**{key: word or "" for key, word in match.groupdict().items()})
    raise PagodaError(
        f"{text[:80]!r} is no caption of the embedded set; one is 'an orange star', or 'a large "
        "orange star, tilted left, on a dark blue background, lit from above'"
    )


def agreement(seen: Seen, said: Sequence[Words]) -> dict[str, NDArray[np.bool_]]:
    """By word, whether each of n pictures shows what its caption says; True where that is nothing.

    A picture just beyond the limit between two words, by what reading can miss, says both. The
    light is told from the side that is brighter.

    Args:
        seen: n pictures.
        said: their captions.
    """
    tests = {
        "noun": lambda w: seen.label == _index(NOUNS, w),
        "colour": lambda w: (
            _has_hue(seen.hue, np.maximum(_index(LIGHT, w), _index(DARK, w)), _SLACK["hue"])
            & (seen.is_light == np.isin(w, LIGHT))
        ),
        "size": lambda w: _within(seen.radius - RADIUS.min(), _index(SIZES, w), _third()),
        "tilt": lambda w: _tilted(seen.tilt, _index(TILTS, w)),
        "depth": lambda w: seen.is_light == (w == "dark"),
        "ground": lambda w: _has_hue(seen.ground_hue, _index(GROUNDS, w), _SLACK["ground"]),
        "light": lambda w: _lit(seen, _index(LIGHTS, w)),
    }
    told = {f.name: np.array([getattr(w, f.name) for w in said]) for f in fields(Words)}
    return {name: tests[name](told[name]) | (told[name] == "") for name in tests}


def shares(found: Mapping[str, NDArray[np.bool_]], said: Sequence[Words]) -> dict[str, Any]:
    """Of each word that captions say, whether pictures follow, (m,); ``all``: every word, (n,)."""
    told = {name: np.array([bool(getattr(w, name)) for w in said]) for name in found}
    of_each = {name: found[name][told[name]] for name in found if told[name].any()}
    return {"all": np.all(list(found.values()), axis=0), **of_each}


def _has_hue(hue: Floats, sector: NDArray[np.int64], slack: float) -> NDArray[np.bool_]:
    """Whether hues lie in sectors, or within ``slack`` turns of them; of -1 none does."""
    ends = _HUE_ENDS / 360
    low, high = np.roll(ends, 1)[sector], ends[sector]
    width = (high - low) % 1
    inside: NDArray[np.bool_] = (hue - low + slack) % 1 <= width + 2 * slack
    return inside & (sector >= 0)


def _within(above: Floats, third: NDArray[np.int64], width: float) -> NDArray[np.bool_]:
    slack = _SLACK["size"]
    inside: NDArray[np.bool_] = (above >= third * width - slack) & (
        above <= (third + 1) * width + slack
    )
    return inside


def _tilted(turn: Floats, which: NDArray[np.int64]) -> NDArray[np.bool_]:
    slack = _SLACK["tilt"]
    ends = np.array([-np.inf, -_UPRIGHT, _UPRIGHT, np.inf])
    inside: NDArray[np.bool_] = (turn >= ends[which] - slack) & (turn <= ends[which + 1] + slack)
    return inside


def _lit(seen: Seen, which: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the light comes from a side within 45 degrees and a slack."""
    wanted = np.array([np.pi, 0.0, -np.pi / 2, np.pi / 2])[which]
    off = np.abs((np.arctan2(seen.light[:, 1], seen.light[:, 0]) - wanted + np.pi) % (2 * np.pi)
                 - np.pi)  # fmt: skip
    inside: NDArray[np.bool_] = off <= np.pi / 4 + _SLACK["light"]
    return inside


def _third() -> float:
    return float((RADIUS.max() - RADIUS.min()) / 3)


def _index(choices: Sequence[str], told: NDArray[Any]) -> NDArray[np.int64]:
    """Place of each word among the choices; -1 of others."""
    order = {word: i for i, word in enumerate(choices)}
    return np.array([order.get(str(word), -1) for word in told])


def _sector(hue: Floats) -> NDArray[np.int64]:
    sector: NDArray[np.int64] = np.digitize(hue * 360, _HUE_ENDS) % len(_HUE_ENDS)
    return sector


def _pick(choices: Sequence[str], which: NDArray[np.int64]) -> list[str]:
    return [choices[min(int(i), len(choices) - 1)] for i in which]
