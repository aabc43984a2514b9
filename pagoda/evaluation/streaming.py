"""One pass over images: features in blocks, statistics in float64, nothing else kept.

Images are cut into blocks of a fixed number of rows. Process r of p takes blocks r, r + p, ... and
all hand their features to each other and feed them to the statistics in the order of the images.
An image's features do not depend on its batch (:class:`Extractor`) and the statistics do
not depend on how rows arrive (:class:`RunningMoments`), so any number of processes gives the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import numpy as np

from pagoda import distributed
from pagoda.artifacts import Artifact
from pagoda.data.store import Images as Pixels
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor, Features
from pagoda.evaluation.metrics.base import Sample
from pagoda.evaluation.metrics.statistics import RunningMoments

BLOCK = 1024  # images a block

Pass = tuple[Extractor, Collection[str]]
"""A feature network, and what is kept beside mean and covariance: of ``features``, ``spatial`` and
``logits``."""


def subset(n: int, most: int | None, seed: int = 0, labels: np.ndarray | None = None) -> np.ndarray:
    """Ascending indices of a fixed random ``min(n, most)`` of ``n`` images; None keeps all.

    With ``labels`` (n,) classes differ by one image at most, while they last. Generators draw
    classes so; by chance alone 1,024 of ten classes have 85 to 120 of each, and a Frechet distance
    that this adds to.
    """
    order = np.random.default_rng(seed).permutation(n)
    if labels is not None:
        by_class = np.argsort(np.asarray(labels)[order], kind="stable")
        sizes = np.unique(np.asarray(labels), return_counts=True)[1]
        turn = np.empty(n, np.int64)
        turn[by_class] = np.concatenate([np.arange(size) for size in sizes]) if n else 0
        order = order[np.argsort(turn, kind="stable")]
    return np.sort(order[:most])


class Images(Protocol):
    """Images of one size in a fixed order, read in pieces."""

    @property
    def where(self) -> str:
        """What messages call them."""
        ...

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width."""
        ...

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB images (n, 3, h, w) of ascending ``rows``."""
        ...

    def card(self) -> dict[str, Any]:
        """What identifies the images: list of files, crop, size. JSON-able."""
        ...


def collect(
    images: Images,
    passes: Sequence[Pass],
    rows: np.ndarray | None = None,
    keep: np.ndarray | None = None,
    advance: Callable[[int], None] = lambda _: None,
    seen: Callable[[np.ndarray, np.ndarray], None] = lambda rows, pixels: None,
) -> list[Sample]:
    """Read images once, for every feature network.

    The processes of a group share the images, and all get the results.

    Args:
        images: where they come from.
        passes: the networks, each with what is kept of its features.
        rows: which images, ascending; None takes all.
        keep: positions among ``rows`` of the images whose features are kept; None keeps all.
        advance: is told how many images are done.
        seen: is shown the rows and pixels that this process reads.

    Returns:
        What was found, in the order of ``passes``.

    Raises:
        PagodaError: with fewer than 2 images, or features that are not finite.
    """
    rows = np.arange(len(images)) if rows is None else rows
    if len(rows) < 2:
        raise PagodaError(f"{images.where}: fewer than 2 images have no covariance; use more")
    gatherings = [_Gathering(extractor, needs, keep) for extractor, needs in passes]
    starts, world = range(0, len(rows), BLOCK), distributed.world_size()
    for turn in range(0, len(starts), world):
        mine = turn + distributed.rank()
        block = rows[starts[mine] : starts[mine] + BLOCK] if mine < len(starts) else rows[:0]
        pixels = images.read(block) if len(block) else None
        if pixels is not None:
            seen(block, pixels)
        for gathering in gatherings:
            gathering.add(pixels)
        advance(min(len(rows), (turn + world) * BLOCK) - turn * BLOCK)
    return [gathering.found(images, rows) for gathering in gatherings]


class _Gathering:
    def __init__(
        self, extractor: Extractor, needs: Collection[str], keep: np.ndarray | None
    ) -> None:
        self._extractor, self._n = extractor, 0
        self._keep = keep if "features" in needs else np.empty(0, np.int64)
        self._moments = RunningMoments(extractor.dim)
        self._spatial = RunningMoments(extractor.spatial_dim or 0) if "spatial" in needs else None
        self._features: list[np.ndarray] = [np.empty((0, extractor.dim), np.float32)]
        self._logits: list[np.ndarray] | None = None
        if "logits" in needs and extractor.classes is not None:
            self._logits = []

    def add(self, pixels: np.ndarray | None) -> None:
        """Take in the blocks of all processes, this one's among them, in order of the images."""
        part = self._own(pixels)
        pooled = distributed.all_gather_rows(part.pooled)
        self._moments.update(pooled)
        if self._spatial is not None and part.spatial is not None:
            self._spatial.update(distributed.all_gather_rows(part.spatial))
        if self._logits is not None and part.logits is not None:
            self._logits.append(distributed.all_gather_rows(part.logits))
        stop = self._n + len(pooled)
        if self._keep is None:
            self._features.append(pooled)
        else:
            here = self._keep[(self._keep >= self._n) & (self._keep < stop)]
            self._features.append(pooled[here - self._n])
        self._n = stop

    def _own(self, pixels: np.ndarray | None) -> Features[np.ndarray]:
        extractor = self._extractor
        if pixels is not None:
            return extractor(pixels, self._spatial is not None)
        sizes = extractor.dim, extractor.spatial_dim or 0, extractor.classes or 0
        return Features(*(np.empty((0, d), np.float32) for d in sizes))

    def found(self, images: Images, rows: np.ndarray) -> Sample:
        labels = getattr(images, "labels", None)  # files know no labels
        return Sample(
            where=images.where,
            extractor=self._extractor.name,
            n=self._n,
            moments=self._moments.moments(),
            spatial=None if self._spatial is None else self._spatial.moments(),
            features=np.concatenate(self._features),
            logits=None if self._logits is None else np.concatenate(self._logits),
            labels=None if labels is None else labels[rows],
            columns=self._extractor.columns,
            fingerprint=getattr(images, "fingerprint", ""),
        )


class StoredImages:
    """Images that are there already: an array (n, 3, h, w) uint8, or its rows ``kept``.

    Attributes:
        kept: rows of the array.
    """

    def __init__(
        self,
        where: str,
        images: Pixels,
        labels: np.ndarray | None = None,
        kept: np.ndarray | None = None,
        fingerprint: str = "",
    ) -> None:
        self.where, self.fingerprint, self._images = where, fingerprint, images
        self.kept = np.arange(len(images)) if kept is None else kept
        self.labels = None if labels is None else np.asarray(labels[self.kept])
        self.resolution = images.shape[2], images.shape[3]

    def __len__(self) -> int:
        return len(self.kept)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB images (n, 3, h, w)."""
        return np.asarray(self._images[self.kept[rows]])

    def card(self) -> dict[str, Any]:
        """Their fingerprint."""
        return {"files": self.fingerprint, "n": len(self)}


def open_split(artifact: Artifact, split: str, most: int | None = None) -> StoredImages:
    """One split of an ``images`` artifact, or a fixed random subset of ``most`` images of it.

    A subset has as many images of every class.
    """
    images, labels = open_images(artifact, split), artifact.array(f"{split}_labels")
    kept = subset(len(images), most, labels=labels)
    return StoredImages(f"{artifact.path} ({split})", images, labels, kept, artifact.fingerprint)


def even_batch(batch: int) -> int:
    """The smallest number of images a call that takes no more calls a block than ``batch``."""
    return -(-BLOCK // -(-BLOCK // batch))
