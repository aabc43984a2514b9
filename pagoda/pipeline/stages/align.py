"""Captions of the embedded set, and how many pictures show what theirs say: ``pagoda align``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pagoda.config import Config
from pagoda.config.revision import package_revision
from pagoda.data.captions import Words, agreement, captions, parse, shares
from pagoda.data.embedded import SEED
from pagoda.data.reading import read
from pagoda.data.registry import SPLITS
from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import size
from pagoda.evaluation.metrics.intervals import fraction_interval
from pagoda.evaluation.results import check_out, write_results
from pagoda.pipeline.stages.progress import track
from pagoda.pipeline.stages.score import Source
from pagoda.pipeline.stages.text_lines import read_lines, write_lines
from pagoda.rows import Row, to_json

_BLOCK = 64
_CAPTIONS = 1 << 14  # made at once


def write(config: Config, split: str, n: int, length: str, out: Path | None) -> None:
    """The captions of the first images of a split, a line an image, to a new file or shown.

    Raises:
        PagodaError: the images of the experiment have no captions, there is no such split or
            length, or the file is in the way.
    """
    if config.data.source != "embedded":
        raise PagodaError(f"data.source = {config.data.source}; the embedded set has captions")
    if split not in SPLITS:
        raise PagodaError(f"--split {split}; it must be one of {', '.join(SPLITS)}")
    variety = config.data.variety
    starts = range(0, n, _CAPTIONS)
    blocks = (np.arange(start, min(start + _CAPTIONS, n)) for start in starts)
    told = (captions(rows, seed=SEED, split=split, variety=variety, length=length)
            for rows in blocks)  # fmt: skip
    write_lines(chain.from_iterable(told), out)


def run(images: Source, file: Path, out: Path | None) -> dict[str, Any]:
    """Show which share of pictures says what the captions say, word by word, and write JSON.

    The captions of other pictures, in a random order, are the share that chance would give.

    Raises:
        PagodaError: one line: a caption that cannot be read, with its line; another number of
            pictures than of captions; pictures that are too small.
    """
    if out is not None:
        check_out(out)
    said = read_captions(file)
    x = images.open()
    if len(x) != len(said):
        raise PagodaError(f"{x.where} has {len(x)} images and {file} {len(said)} captions")
    others = [said[i] for i in np.random.default_rng(0).permutation(len(said))]
    rows = list(_rows(x, {"": said, "_by_chance": others}))
    for row in rows:
        sys.stdout.write(f"{row.protocol:<32} {row.number:.4f}  [{row.low:.4f}, {row.high:.4f}]\n")
    tree = {"rows": to_json(rows), "images": x.card(), "revision": package_revision()}
    if out is not None:
        write_results(out, tree)
    return tree


def read_captions(file: Path) -> list[Words]:
    """The captions of a file, a line each.

    Raises:
        PagodaError: there is no such file, it has fewer than two, or a line is none of the grammar.
    """
    lines = read_lines(file)
    if len(lines) < 2:
        raise PagodaError(f"{file} has {len(lines)} captions; two or more, a line each, are needed")
    found = []
    for i, line in enumerate(lines, 1):
        try:
            found.append(parse(line))
        except PagodaError as error:
            raise PagodaError(f"{file}, line {i}: {error}") from error
    return found


def _rows(x: Any, sets: dict[str, list[Words]]) -> Iterable[Row]:
    """Shares of each word and of whole captions, for sets of captions by the names' endings."""
    parts: dict[str, list[np.ndarray]] = {}
    with track(len(x), f"read {x.where}") as bar:
        for start in range(0, len(x), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(x)))
            seen = read(x.read(rows))
            for ending, said in sets.items():
                own: Sequence[Words] = said[start : start + _BLOCK]
                for word, told in shares(agreement(seen, own), own).items():
                    name = "caption" if word == "all" else f"caption_{word}"
                    parts.setdefault(f"{name}{ending}", []).append(told)
            bar.advance(len(rows))
    for name, found in parts.items():
        values = np.concatenate(found)
        if len(values) > 1:
            over = fraction_interval(values)
            yield Row(metric=name, protocol=f"{name}_{size(len(values))}", value=over.value,
                      n=len(values), low=over.low, high=over.high, interval=str(over),
                      generator=x.where)  # fmt: skip
