"""A preference study: pairs of pictures of one prompt, and the order in which a voter sees them.

Its folder holds ``study.json`` and the pictures, under names that do not tell who made them. What a
voter sees, with the sides, is drawn when they join and stored with their votes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pagoda import outputs
from pagoda.artifacts import digest
from pagoda.errors import PagodaError
from pagoda.rows import read_text

STUDY, PICTURES = "study.json", "pictures"
VOTES, LOCK = "votes.jsonl", "votes.lock"
"""What is in a study's folder."""

PAIR, REPEAT, ATTENTION = "pair", "repeat", "attention"
"""Kinds of trials: a pair for the first time, one again with its sides exchanged, and one of which
the answer is known."""

SCRAMBLED = -1
"""In the place of a generator: a picture whose pixels were shuffled."""

QUESTIONS = {
    "quality": "Which picture is of higher quality?",
    "match": "Which picture fits the description better?",
}
"""The two questions of PaGoDA's figure 17, for any reader."""

FORMAT = 1  # of study.json
_FLAT = 8.0  # grey levels between a picture and its shuffled pixels: less is not obvious
_FEW = 4  # pairs from which at least one is repeated


class Item(NamedTuple):
    """Pictures of one prompt: the stem of the file of each generator's."""

    prompt: str
    pictures: tuple[str, ...]


class Obvious(NamedTuple):
    """A picture of an item and its scrambled version: what attention pairs are made of."""

    item: int
    generator: int
    scrambled: str  # stem of the file


class Trial(NamedTuple):
    """What a voter is shown at once; sides are numbers of generators or :data:`SCRAMBLED`."""

    kind: str
    item: int
    left: int
    right: int


@dataclass(frozen=True)
class Study:
    """What is compared, what is asked, and how many pairs a voter sees.

    Attributes:
        generators: their names.
        sources: of each generator where its pictures are from, and what identifies them.
        sides: width and height of each generator's pictures, pixels.
        items: pictures of a prompt each.
        obvious: pairs of which the answer is known.
        questions: text by key.
        over: what the bootstrap draws again: ``prompts``, or ``items`` where prompts are classes
            and all of them are there.
        seed: of all draws.
        per_voter: pairs of a voter, repeats and attention pairs apart; None: all there are.
        repeats: pairs that come again, as a fraction of a voter's pairs.
        attention: attention pairs, as a fraction of a voter's pairs.
        files: SHA-256 of each picture, by its stem.
    """

    generators: tuple[str, ...]
    sources: tuple[dict[str, Any], ...]
    sides: tuple[tuple[int, int], ...]
    items: tuple[Item, ...]
    obvious: tuple[Obvious, ...]
    questions: dict[str, str] = field(default_factory=lambda: dict(QUESTIONS))
    over: str = "items"
    seed: int = 0
    per_voter: int | None = None
    repeats: float = 0.05
    attention: float = 0.05
    files: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all of the above; every vote carries it."""
        return digest(_tree(self))

    @property
    def pairs(self) -> int:
        """Number of different pairs: every two generators at every item."""
        g = len(self.generators)
        return len(self.items) * g * (g - 1) // 2

    def name(self, generator: int) -> str:
        """Name of a side of a trial."""
        return "scrambled" if generator == SCRAMBLED else self.generators[generator]

    def picture(self, trial: Trial, generator: int) -> str:
        """Stem of the file that a side of a trial shows.

        Raises:
            ValueError: the study has none such.
        """
        if generator == SCRAMBLED:
            found = [o.scrambled for o in self.obvious if o.item == trial.item]
        elif 0 <= trial.item < len(self.items) and 0 <= generator < len(self.generators):
            found = [self.items[trial.item].pictures[generator]]
        else:
            found = []
        if not found:
            raise ValueError(f"no picture of {generator} at item {trial.item}")
        return found[0]

    def right_answer(self, trial: Trial) -> str:
        """The side that an attentive voter of an attention pair takes."""
        return "right" if trial.left == SCRAMBLED else "left"

    def trials(self, voter: str, turn: int) -> list[Trial]:
        """Draw what a voter sees, in order.

        Every two generators take the items in a random order of their own, and take turns. Voter
        number ``turn`` has the next :attr:`per_voter` of these pairs; after the last comes the
        first again, so that further voters judge the same pairs. Each voter's are in random order
        on random sides. Repeats are of pairs of the first half, in the second half, their sides
        exchanged; of k attention pairs one is in each k-th part.

        Args:
            voter: any name; the same name draws the same.
            turn: number of voters that came before.
        """
        name = int.from_bytes(hashlib.sha256(voter.encode()).digest()[:8])
        rng = np.random.default_rng([self.seed, 2, name])
        own = [self._pair(turn * self._own + i) for i in range(self._own)]
        shown = [self._sided(PAIR, own[i][0], own[i][1], rng) for i in rng.permutation(len(own))]
        half, again = len(shown) // 2, _part(self.repeats, len(own))
        chosen = sorted(rng.choice(half, min(again, half), replace=False).tolist()) if half else []
        for first in chosen:
            _, item, left, right = shown[first]
            at = half + int(rng.integers(1, len(shown) - half + 1))
            shown.insert(at, Trial(REPEAT, item, right, left))
        count = _part(self.attention, len(own)) if self.obvious else 0
        parts = np.linspace(0, len(shown), count + 1).astype(int)
        for k in range(count):
            known = self.obvious[int(rng.integers(len(self.obvious)))]
            at = int(rng.integers(parts[k], parts[k + 1] + 1)) + k
            sides = (known.generator, SCRAMBLED)
            shown.insert(at, self._sided(ATTENTION, known.item, sides, rng))
        return shown

    @property
    def _own(self) -> int:
        return min(self.per_voter or self.pairs, self.pairs)

    def _pair(self, number: int) -> tuple[int, tuple[int, int]]:
        """Item and generators of the pair ``number`` of the order that all voters share."""
        both = list(combinations(range(len(self.generators)), 2))
        turn, which = divmod(number % self.pairs, len(both))
        order = np.random.default_rng([self.seed, 1, which]).permutation(len(self.items))
        return int(order[turn]), both[which]

    def _sided(
        self, kind: str, item: int, both: tuple[int, int], rng: np.random.Generator
    ) -> Trial:
        left, right = both if rng.random() < 0.5 else both[::-1]
        return Trial(kind, item, left, right)


def _part(fraction: float, of: int) -> int:
    """A fraction of a voter's pairs; at least one, where there are a few."""
    return max(round(fraction * of), 1) if fraction and of >= _FEW else 0


def stem(seed: int, item: int, generator: int) -> str:
    """Name of a picture's file, which does not tell the generator."""
    return digest([seed, item, generator, "picture"])[:20]


def scramble(image: np.ndarray, seed: int, item: int) -> np.ndarray | None:
    """The pixels of an image (3, h, w) in random order; None where that is hard to see."""
    _, height, width = image.shape
    order = np.random.default_rng([seed, 3, item]).permutation(height * width)
    mixed = image.reshape(3, -1)[:, order].reshape(image.shape)
    apart = np.abs(mixed.astype(np.float64) - image).mean()
    return np.ascontiguousarray(mixed) if apart >= _FLAT else None


def to_json(study: Study) -> str:
    """Content of ``study.json``."""
    return json.dumps({**_tree(study), "fingerprint": study.fingerprint}, indent=1) + "\n"


def read_study(folder: Path) -> Study:
    """The study of a folder.

    Raises:
        PagodaError: one line: there is none, or it was changed or damaged.
    """
    if not (folder / STUDY).is_file():
        raise PagodaError(f"{folder} holds no {STUDY}; 'pagoda prefer make' writes one")
    damaged = f"{folder / STUDY} is damaged or was changed; make the study again elsewhere"
    try:
        tree = json.loads(read_text(folder / STUDY))
        wanted, fmt = tree.pop("fingerprint"), tree.pop("format")
        if fmt != FORMAT:
            raise PagodaError(f"{folder / STUDY} is of format {fmt}, not {FORMAT}; update pagoda")
        study = Study(**tree | {
            "generators": tuple(tree["generators"]), "sources": tuple(tree["sources"]),
            "sides": tuple((int(w), int(h)) for w, h in tree["sides"]),
            "items": tuple(Item(prompt, tuple(made)) for prompt, made in tree["items"]),
            "obvious": tuple(Obvious(*one) for one in tree["obvious"]),
        })  # fmt: skip
        changed = study.fingerprint != wanted
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PagodaError(damaged) from error
    if changed:
        raise PagodaError(damaged)
    return study


def check_pictures(study: Study, folder: Path) -> None:
    """Refuse to show pictures that are not those of the study.

    Raises:
        PagodaError: one line, naming a picture that is missing or was changed.
    """
    for name, wanted in study.files.items():
        file = folder / PICTURES / f"{name}.png"
        try:
            found = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise PagodaError(
                f"{file} is missing or cannot be read; copy the study again"
            ) from error
        if found != wanted:
            raise PagodaError(f"{file} is not the picture of this study; copy the study again")


def stranger(folder: Path) -> str | None:
    """Why a folder may not be replaced by a new study: votes are never overwritten."""
    if (folder / VOTES).exists():
        return "holds votes"
    return outputs.only(STUDY, LOCK, f"{PICTURES}/*.png")(folder)


def check_names(names: Sequence[str]) -> None:
    """Refuse names that cannot stand in a table or tell no two generators apart.

    Raises:
        PagodaError: if so.
    """
    if len(names) < 2:
        raise PagodaError("a preference study compares two or more generators; name another one")
    if twice := [n for n in names if names.count(n) > 1]:
        raise PagodaError(f"two generators are called {twice[0]}; tell them apart with --names A,B")
    if wrong := [n for n in names if not n.strip() or not n.isprintable() or n == "scrambled"]:
        raise PagodaError(f"--names: {wrong[0]!r} is no name for a generator; choose another")


def _tree(study: Study) -> dict[str, Any]:
    tree = json.loads(json.dumps(asdict(study)))  # tuples as JSON has them
    return {"format": FORMAT, **tree}
