"""What ``pagoda prefer make`` does: the folder of a preference study."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pagoda import outputs
from pagoda.errors import PagodaError
from pagoda.pipeline.stages.prefer_inputs import (
    Candidate,
    Match,
    Wanted,
    matched,
    named,
    open_candidate,
    read,
    renamed,
)
from pagoda.pipeline.stages.progress import log_line, track
from pagoda.preference.study import (
    PICTURES,
    QUESTIONS,
    SCRAMBLED,
    STUDY,
    Item,
    Obvious,
    Study,
    check_names,
    scramble,
    stem,
    stranger,
    to_json,
)

_MOST = 200_000  # pictures of a study
_OBVIOUS = 32  # pictures that are scrambled for attention pairs
_BLOCK = 256  # pictures read at a time


@dataclass(frozen=True)
class Asked:
    """How a study asks: options of ``pagoda prefer make``."""

    questions: dict[str, str] = field(default_factory=lambda: dict(QUESTIONS))
    seed: int = 0
    per_voter: int | None = None
    repeats: float = 0.05
    attention: float = 0.05


def question_list(given: Sequence[str]) -> dict[str, str]:
    """``["sharp=Which is sharper?"]`` -> texts by key; none: :data:`QUESTIONS`.

    Raises:
        PagodaError: one is not of that form, or there are more than four.
    """
    found: dict[str, str] = {}
    for text in given:
        key, equals, asked = (part.strip() for part in text.partition("="))
        if not (equals and asked and key.isidentifier() and key.isascii()) or key in found:
            raise PagodaError(f"--question {text!r}; it is KEY=TEXT, every KEY a new word")
        found[key] = asked
    if len(found) > 4:
        raise PagodaError(f"{len(found)} questions are more than the page has room for; ask 4")
    return found or dict(QUESTIONS)


def make(
    sources: Sequence[str], out: Path, names: str | None, wanted: Wanted, asked: Asked
) -> None:
    """Write the folder of a study.

    Args:
        sources: generators, or images.
        out: the folder; one that holds votes is never replaced.
        names: of the sources, with commas.
        wanted: which images.
        asked: how it asks.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    outputs.check_folder(out, stranger)
    called = renamed(names, sources)
    check_names(called)
    opened = (open_candidate(*one, wanted) for one in zip(sources, called, strict=True))
    candidates = named(list(opened))
    matches = matched(candidates, wanted)
    if (count := len(matches) * len(candidates)) > _MOST:
        raise PagodaError(
            f"{count:,} pictures are more than {_MOST:,}; take fewer classes, seeds or --per-prompt"
        )
    items = [Item(m.prompt, tuple(stem(asked.seed, i, g) for g in range(len(candidates))))
             for i, m in enumerate(matches)]  # fmt: skip
    with outputs.new_folder(out, stranger) as partial:
        (partial / PICTURES).mkdir()
        files, obvious = _write_pictures(partial / PICTURES, candidates, matches, items, asked)
        study = Study(
            tuple(called), tuple(c.about() for c in candidates),
            tuple((c.images.resolution[1], c.images.resolution[0]) for c in candidates),
            tuple(items), obvious, dict(asked.questions),
            "items" if wanted.prompts is None else "prompts", asked.seed, asked.per_voter,
            asked.repeats, asked.attention, files,
        )  # fmt: skip
        (partial / STUDY).write_text(to_json(study), "utf-8")
    log_line(f"{out}: {len(items)} items, {study.pairs} pairs, a voter sees "
             f"{len(study.trials('', 0))}; 'pagoda prefer serve {out}' asks them")  # fmt: skip


def _write_pictures(
    folder: Path, candidates: Sequence[Candidate], matches: Sequence[Match], items: Sequence[Item],
    asked: Asked,
) -> tuple[dict[str, str], tuple[Obvious, ...]]:  # fmt: skip
    """Every picture of the items, and some with their pixels shuffled.

    Returns:
        SHA-256 by stem, and the attention pairs.
    """
    files: dict[str, str] = {}
    obvious: dict[int, Obvious] = {}
    pick = np.random.default_rng([asked.seed, 4])
    some = pick.permutation(len(items))[: _OBVIOUS if asked.attention else 0].tolist()
    shown = {i: int(pick.integers(len(candidates))) for i in some}

    def write(name: str, image: np.ndarray) -> None:
        files[name] = _write(folder / f"{name}.png", image)

    with track(len(items) * len(candidates), "pictures") as bar:
        for g, candidate in enumerate(candidates):
            for start in range(0, len(items), _BLOCK):
                block = range(start, min(start + _BLOCK, len(items)))
                images = read(candidate, [matches[i].rows[g] for i in block])
                for i, image in zip(block, images, strict=True):
                    write(items[i].pictures[g], image)
                    mixed = scramble(image, asked.seed, i) if shown.get(i) == g else None
                    if mixed is not None:
                        obvious[i] = Obvious(i, g, stem(asked.seed, i, SCRAMBLED))
                        write(obvious[i].scrambled, mixed)
                bar.advance(len(block))
    if asked.attention and not obvious:
        raise PagodaError(
            "the images are so flat that shuffled pixels look alike, so there can be no attention "
            "pairs; --attention 0 goes without"
        )
    return dict(sorted(files.items())), tuple(obvious[i] for i in sorted(obvious))


def _write(file: Path, image: np.ndarray) -> str:
    """A PNG of (3, h, w) uint8; its SHA-256."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(stream, "PNG")
    file.write_bytes(stream.getvalue())
    return hashlib.sha256(stream.getvalue()).hexdigest()
