"""One pass over images: features in blocks, statistics in float64, nothing else kept.

Images are cut into blocks of a fixed number of rows. Process r of p takes blocks r, r + p, ... and
all hand their features to each other and feed them to the statistics in the order of the images.
An image's features do not depend on its batch (:class:`Extractor`) and the statistics do
not depend on how rows arrive (:class:`RunningMoments`), so any number of processes gives the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pagoda import distributed
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor, Features
from pagoda.evaluation.metrics.statistics import Moments, RunningMoments

BLOCK = 1024  # images a block


def subset(n: int, most: int | None, seed: int = 0) -> np.ndarray:
    """Ascending indices of a fixed random ``min(n, most)`` of ``n`` images; None keeps all."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:most])


class Images(Protocol):
    """Images of one size in a fixed order, read in pieces.

    Attributes:
        where: what messages call them.
        resolution: height and width.
    """

    where: str
    resolution: tuple[int, int]

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB images (n, 3, h, w) of ascending ``rows``."""
        ...

    def card(self) -> dict[str, Any]:
        """What identifies the images: list of files, crop, size. JSON-able."""
        ...


@dataclass(frozen=True)
class Wanted:
    """What a pass keeps beyond mean and covariance of the pooled features.

    Attributes:
        spatial: statistics of the spatial features.
        logits: all logits.
        features: positions, in the pass, of images whose pooled features are kept; None keeps all.
    """

    spatial: bool = False
    logits: bool = False
    features: np.ndarray | None = None


@dataclass(frozen=True)
class Collected:
    """What one pass over n images found.

    Attributes:
        n: number of images.
        moments: of the pooled features.
        spatial: moments of the spatial features, if wanted.
        features: (k, d) float32, the pooled features that were wanted.
        logits: (n, classes) float32, if wanted.
    """

    n: int
    moments: Moments
    spatial: Moments | None
    features: np.ndarray
    logits: np.ndarray | None


def collect(
    extractor: Extractor,
    images: Images,
    rows: np.ndarray,
    wanted: Wanted,
    advance: Callable[[int], None] = lambda _: None,
) -> Collected:
    """:func:`collect_each` for one extractor."""
    return collect_each([(extractor, wanted)], images, rows, advance)[0]


def collect_each(
    passes: Sequence[tuple[Extractor, Wanted]],
    images: Images,
    rows: np.ndarray,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Collected]:
    """Read ``rows`` of the images once, for every extractor.

    The processes of a group share the images, and all get the results.

    Args:
        passes: extractors, each with what is kept of its features.
        images: where they come from.
        rows: which images, ascending.
        advance: is told how many images are done.

    Returns:
        What was found, in the order of ``passes``.

    Raises:
        PagodaError: with fewer than 2 images, or features that are not finite.
    """
    if len(rows) < 2:
        raise PagodaError(f"{images.where}: {len(rows)} images have no covariance; use 2 or more")
    gatherings = [_Gathering(*each) for each in passes]
    starts = range(0, len(rows), BLOCK)
    for turn in range(0, len(starts), distributed.world_size()):
        mine = turn + distributed.rank()
        block = rows[starts[mine] : starts[mine] + BLOCK] if mine < len(starts) else rows[:0]
        pixels = images.read(block) if len(block) else None
        for gathering, (extractor, wanted) in zip(gatherings, passes, strict=True):
            gathering.add(_gathered(_features(extractor, pixels, wanted), extractor, wanted))
        advance(min(len(rows), (turn + distributed.world_size()) * BLOCK) - turn * BLOCK)
    return [gathering.found() for gathering in gatherings]


def _features(extractor: Extractor, pixels: np.ndarray | None, wanted: Wanted) -> Features:
    if pixels is not None:
        return extractor(pixels, wanted.spatial)
    spatial, classes = extractor.spatial_dim or 0, extractor.classes or 0
    return Features(*(np.empty((0, d), np.float32) for d in (extractor.dim, spatial, classes)))


def _gathered(part: Features, extractor: Extractor, wanted: Wanted) -> Features:
    """The blocks of all processes, in the order of the images."""

    def together(rows: np.ndarray | None, needed: bool) -> np.ndarray | None:
        return distributed.all_gather_rows(rows) if needed and rows is not None else None

    return Features(
        distributed.all_gather_rows(part.pooled),
        together(part.spatial, wanted.spatial),
        together(part.logits, wanted.logits and extractor.classes is not None),
    )


class _Gathering:
    def __init__(self, extractor: Extractor, wanted: Wanted) -> None:
        self._wanted, self._n = wanted, 0
        self._moments = RunningMoments(extractor.dim)
        self._spatial = RunningMoments(extractor.spatial_dim or 0) if wanted.spatial else None
        self._features: list[np.ndarray] = [np.empty((0, extractor.dim), np.float32)]
        self._logits: list[np.ndarray] = []

    def add(self, part: Features) -> None:
        self._moments.update(part.pooled)
        if self._spatial is not None and part.spatial is not None:
            self._spatial.update(part.spatial)
        if self._wanted.logits and part.logits is not None:
            self._logits.append(part.logits)
        kept, stop = self._wanted.features, self._n + len(part.pooled)
        if kept is None:
            self._features.append(part.pooled)
        else:
            here = kept[(kept >= self._n) & (kept < stop)]
            self._features.append(part.pooled[here - self._n])
        self._n = stop

    def found(self) -> Collected:
        return Collected(
            n=self._n,
            moments=self._moments.moments(),
            spatial=None if self._spatial is None else self._spatial.moments(),
            features=np.concatenate(self._features),
            logits=np.concatenate(self._logits) if self._logits else None,
        )
