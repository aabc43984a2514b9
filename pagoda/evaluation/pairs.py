"""Images against images, pair by pair: originals and what came back of them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.files import FileImages
from pagoda.evaluation.metrics.base import pair_metrics, protocol
from pagoda.evaluation.metrics.intervals import mean_interval
from pagoda.evaluation.streaming import Images
from pagoda.rows import Row

_BLOCK = 256  # pairs that are in memory at a time


def pair_names(text: str) -> tuple[str, ...]:
    """``psnr,ssim`` -> the metrics, each once.

    Raises:
        PagodaError: for an unknown name, or none.
    """
    names = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    known = pair_metrics()
    if unknown := [name for name in names if name not in known] or (not names and [text]):
        raise PagodaError(f"--metrics {unknown[0]!r} is unknown; known: {', '.join(known)}")
    return names


def compare(
    first: Images,
    second: Images,
    metrics: Iterable[str],
    network: str = "alex",
    weights: Path | None = None,
    device: str = "cpu",
    advance: Callable[[int], None] = lambda _: None,
) -> list[Row]:
    """Compare each image of one set with the one of the other that :func:`matched` gives it.

    Args:
        first, second: images that are measured, and what they are compared with.
        metrics: keys of :func:`.base.pair_metrics`.
        network, weights, device: of LPIPS.
        advance: is told how many pairs are done.

    Returns:
        Means over pairs with their intervals, and ratios of means. The value of ``psnr`` is None
        where pairs are equal: their ratio is infinite.

    Raises:
        PagodaError: if the sets differ in number or size, their names do not correspond, or a
            metric cannot be had of them.
    """
    chosen = [pair_metrics()[name] for name in metrics]
    if len(first) != len(second) or first.resolution != second.resolution:
        sides = (
            f"{len(s)} of {s.resolution[1]}x{s.resolution[0]} in {s.where}" for s in (first, second)
        )
        raise PagodaError(f"pairs need equal numbers and sizes of images; {', '.join(sides)}")
    for metric in chosen:
        if metric.square and first.resolution[0] != first.resolution[1]:
            raise PagodaError(
                f"{metric.key} takes square images; leave it out of --metrics, or use --crop"
            )
    order = matched(first, second)
    measures = [(metric, metric.open(network, weights, device)) for metric in chosen]
    found: dict[tuple[str, str, float, float], list[np.ndarray]] = {}
    for start in range(0, len(first), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(first)))
        x, y = first.read(order[0][rows]), second.read(order[1][rows])
        for metric, measure in measures:
            features = network if metric.learned else "pixels"
            for key, values in measure(x, y).items():
                name = key, features, metric.least, metric.most
                found.setdefault(name, []).append(values)
        advance(len(rows))
    made = [_row(*name, np.concatenate(parts)) for name, parts in found.items()]
    return [row for row in made if row is not None]


def _row(key: str, features: str, least: float, most: float, values: np.ndarray) -> Row | None:
    """None for a ratio of means over nothing."""
    n = len(values)
    plain = Row(metric=key, protocol=protocol(key, features, n), value=None, n=n)
    if values.ndim == 2:
        above, below = values.mean(axis=0)
        return replace(plain, value=float(above / below)) if below > 0 else None
    if not np.isfinite(values).all():
        return plain
    plain = replace(plain, value=float(values.mean()))
    if n < 2:
        return plain
    over = mean_interval(values, method="student_pairs").within(least, most)
    return replace(plain, low=over.low, high=over.high, interval=str(over))


def in_order(images: Images) -> np.ndarray:
    """Rows of images: files by the numbers in their names, an array as it is."""
    rows = np.arange(len(images))
    if not isinstance(images, FileImages):
        return rows
    return np.array(sorted(rows, key=[_natural(name) for name in images.names].__getitem__))


def matched(first: Images, second: Images) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two sets of equal length that belong together.

    Files go with those of the same folder and name, whatever the ending and the folders around
    everything. Where that leaves files alone, the numbers in names decide (``0007.png`` goes with
    ``img7.jpg``), and then the same without folders. Image i of an array goes with file i, where
    numbers in names are compared as numbers.

    Raises:
        PagodaError: if no rule gives every file one partner.
    """
    rows = np.arange(len(first))
    if not (isinstance(first, FileImages) and isinstance(second, FileImages)):
        return in_order(first), in_order(second)
    parts = [_parted(s.names) for s in (first, second)]
    for key in _KEYS:
        ours, theirs = ([key(folder, stem) for folder, stem in found] for found in parts)
        place = {k: i for i, k in enumerate(theirs)}
        if len(set(ours)) == len(rows) and set(ours) == set(place):
            return rows, np.array([place[k] for k in ours])
    known, names = set(parts[1]), first.names
    alone = next((n for n, k in zip(names, parts[0], strict=True) if k not in known), names[0])
    raise PagodaError(
        f"the names in {first.where} and {second.where} do not correspond: {alone} has no "
        "partner of its own; pairs are files of one name or number: rename the files, or use .npz "
        "arrays, which pair in their order"
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts numbers in a name as numbers, whatever zeros they start with."""
    return [(len(part.lstrip("0")), part.lstrip("0")) if part.isdigit() else (0, part)
            for part in re.split("([0-9]+)", name)]  # fmt: skip


_KEYS: tuple[Callable[[str, str], Hashable], ...] = (
    lambda folder, stem: (folder, stem),
    lambda folder, stem: (folder, _numbers(stem)),
    lambda folder, stem: stem,
    lambda folder, stem: _numbers(stem),
)


def _numbers(stem: str) -> Hashable:
    return tuple(number.lstrip("0") for number in re.findall("[0-9]+", stem))


def _parted(names: Sequence[str]) -> list[tuple[str, str]]:
    """Folder and stem of each name, without folders that lie around all of them."""
    around = len(posixpath.commonpath([f"/{posixpath.dirname(name)}" for name in names]))
    stems = (posixpath.splitext(posixpath.basename(name))[0] for name in names)
    return [(posixpath.dirname(f"/{name}")[around:].strip("/"), stem)
            for name, stem in zip(names, stems, strict=True)]  # fmt: skip
