"""Images against images, pair by pair: originals and what came back of them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.files import FileImages
from pagoda.evaluation.metrics.high_frequency import (
    high_frequency_energy,
    high_frequency_error,
    high_frequency_shares,
)
from pagoda.evaluation.metrics.intervals import mean_interval
from pagoda.evaluation.metrics.lpips import Lpips
from pagoda.evaluation.metrics.protocol import protocol
from pagoda.evaluation.metrics.psnr import psnr
from pagoda.evaluation.metrics.ssim import ssim
from pagoda.evaluation.streaming import Images

METRICS = ("mse", "psnr", "ssim", "hf", "lpips")
_BLOCK = 256  # pairs that are in memory at a time


def pair_metrics(text: str) -> tuple[str, ...]:
    """``psnr,ssim`` -> the metrics, each once.

    Raises:
        PagodaError: for an unknown name, or none.
    """
    names = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    if unknown := [name for name in names if name not in METRICS] or (not names and [text]):
        raise PagodaError(f"--metrics {unknown[0]!r} is unknown; known: {', '.join(METRICS)}")
    return names


def compare(
    first: Images,
    second: Images,
    metrics: Iterable[str],
    lpips: Lpips | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Compare each image of one set with the one of the other that :func:`matched` gives it.

    Args:
        first: images that are judged.
        second: what they are held against.
        metrics: of :data:`METRICS`.
        lpips: the network, for ``lpips``.
        advance: is told how many pairs are done.

    Returns:
        Rows: metric, protocol, value, n, and for means over pairs ``low``, ``high`` and
        ``interval`` (:func:`.intervals.mean_interval`). The value of ``psnr`` is
        None where pairs are equal: their ratio is infinite.

    Raises:
        PagodaError: if the sets differ in number or size, their names do not correspond, or a
            metric cannot be had of them.
    """
    metrics = tuple(metrics)
    _check(first, second, metrics)
    order = matched(first, second)
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(first), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(first)))
        x, y = first.read(order[0][rows]), second.read(order[1][rows])
        for name in metrics:
            for key, values in _MEASURES[name](x, y, lpips).items():
                found.setdefault(key, []).append(values)
        advance(len(rows))
    features = {"lpips": lpips.network} if lpips else {}
    return _rows({key: np.concatenate(parts) for key, parts in found.items()}, features)


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
        a, b = (
            np.array(sorted(rows, key=[_natural(name) for name in s.names].__getitem__))
            if isinstance(s, FileImages) else rows for s in (first, second)
        )  # fmt: skip
        return a, b
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


def _check(first: Images, second: Images, metrics: tuple[str, ...]) -> None:
    if len(first) != len(second) or first.resolution != second.resolution:
        sides = (f"{s.where} has {len(s)} of {s.resolution}" for s in (first, second))
        raise PagodaError(f"{' and '.join(sides)} images; pairs need equal numbers and equal sizes")
    if "hf" in metrics and first.resolution[0] != first.resolution[1]:
        raise PagodaError("hf takes square images; leave it out of --metrics, or use --crop")


Measure = Callable[[np.ndarray, np.ndarray, Lpips | None], dict[str, np.ndarray]]
"""uint8 images (n, 3, h, w) twice -> named values, (n,) each."""


def _mse(x: np.ndarray, y: np.ndarray, lpips: Lpips | None) -> dict[str, np.ndarray]:
    """Pixels in [-1, 1], as the round trip of the inversion has it."""
    gaps = (x.astype(np.float64) - y) / 127.5
    return {"mse": np.square(gaps).mean((1, 2, 3))}


def _high_frequencies(x: np.ndarray, y: np.ndarray, lpips: Lpips | None) -> dict[str, np.ndarray]:
    pairs = [(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    return {
        "hf_share": high_frequency_shares(x),
        "hf_share_second": high_frequency_shares(y),
        "hf_mse": np.array([high_frequency_error(a, b) for a, b in pairs]),
        "_first": np.array([high_frequency_energy(a) for a, _ in pairs]),
        "_second": np.array([high_frequency_energy(b) for _, b in pairs]),
    }


def _lpips(x: np.ndarray, y: np.ndarray, lpips: Lpips | None) -> dict[str, np.ndarray]:
    if lpips is None:
        raise PagodaError("lpips needs its network")
    return {"lpips": lpips(x, y)}


_MEASURES: dict[str, Measure] = {
    "mse": _mse,
    "psnr": lambda x, y, _: {"psnr": psnr(x, y)},
    "ssim": lambda x, y, _: {"ssim": ssim(x, y)},
    "hf": _high_frequencies,
    "lpips": _lpips,
}


def _rows(found: dict[str, np.ndarray], features: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    for key, values in found.items():
        if key.startswith("_"):
            continue
        named = protocol(key, features.get(key, "pixels"), len(values))
        row: dict[str, Any] = {"metric": key, "protocol": named, "n": len(values), "value": None}
        row |= {"low": None, "high": None, "interval": None}
        if np.isfinite(values).all():
            row["value"] = float(values.mean())
            if len(values) > 1:
                mean = mean_interval(values)
                row |= {"low": mean.low, "high": mean.high, "interval": "student_pairs_95"}
        rows.append(row)
    if "_second" in found and (whole := found["_second"].mean()) > 0:
        n = len(found["_second"])
        rows.append(
            {"metric": "hf_ratio", "protocol": protocol("hf_ratio", "pixels", n), "n": n,
             "value": float(found["_first"].mean() / whole), "low": None, "high": None,
             "interval": None}
        )  # fmt: skip
    return rows
