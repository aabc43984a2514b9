"""Squared Euclidean distances between sets of features, each comparison decided exactly.

The distance of a pair is ``sum_j (a_j - b_j)^2`` in float64. Making all of them so would take
minutes; a tile of them is first bounded, from one matrix product about a common centre c, in the
precision of the features::

    lower = (1 - e)(|a - c|^2 + |b - c|^2) - 2 (a - c).(b - c) <= |a - b|^2 <= lower + 2 e (...)

The fraction e is a bound on all rounding: a dot product of d terms is off by at most
``d u |a| |b| <= d u (|a|^2 + |b|^2) / 2``, whatever the order of its sum. Only pairs for which the
bounds leave a comparison open are measured. Where these are many (an outlier, far clusters) the
tile is bounded again in float64. So results depend neither on tiles, threads or device, nor on
norms; ties are exact. Rows that repeat are worked on once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pagoda.evaluation.metrics.arrays import Arrays, tiles, working_type

_TILE = 2048  # rows and columns of a tile of distances: 16 MiB in float32
_MANY = 32  # more open comparisons than this part of a float32 tile: float64 is cheaper
_EXACT = 1 << 17  # numbers whose differences are squared together: 1 MiB
_FEW = 4  # times k candidates a row are measured as they are
_LARGE = 1e30  # squared norms beyond it have no products in float32

Pairs = tuple[np.ndarray, np.ndarray]
"""Indices of rows of two sets, (p,) each."""


class Points:
    """A set of features about a centre, each distinct row once.

    Attributes:
        copies: how often each distinct row occurs, (rows,).
        origin: the distinct row that each given row is, (n,).
        slices: of the distinct rows, a tile each.
        types: precisions in which bounds may be made, cheapest first.
    """

    def __init__(
        self, features: np.ndarray, centre: np.ndarray, dtype: type, arrays: Arrays
    ) -> None:
        first, self.origin = _distinct(features)
        self.copies = np.bincount(self.origin)
        self.features = features if len(first) == len(features) else features[first]
        self.arrays = arrays
        self._centre: np.ndarray = centre.astype(dtype)
        self.slices = tiles(len(first), _TILE)
        self.norms = np.empty(len(first))
        for part in self.slices:
            rows = self.rows(part, np.float64)
            self.norms[part] = arrays.get(arrays.row_products(rows, rows))
        small = dtype == np.float32 and self.norms.max() < _LARGE
        self.types: tuple[type, ...] = (np.float32, np.float64) if small else (np.float64,)

    def of_distinct(self, values: np.ndarray) -> np.ndarray:
        """Values of the given rows, (n,), as those of the distinct rows."""
        found = np.empty(len(self.copies), values.dtype)
        found[self.origin] = values
        return found

    def rows(self, part: slice, dtype: type) -> Any:
        """Centred rows, where the arithmetic runs."""
        return self.arrays.put(self.features[part] - self._centre.astype(dtype), dtype)


@dataclass(frozen=True)
class Tile:
    """Bounds of the distances between some rows of two sets.

    No distance is smaller than ``lower``; ``slack`` (rows,) and (columns,) is together twice the
    rounding, in ``dtype``.
    """

    lower: Any
    slack: tuple[Any, Any]
    dtype: type
    arrays: Arrays

    def upper(self) -> Any:
        """No distance is larger."""
        upper = self.lower + self.slack[0][:, None]
        upper += self.slack[1]
        return upper

    def transposed(self) -> Tile:
        """Of the same pairs the other way round."""
        lower = self.arrays.transposed(self.lower)
        return Tile(lower, self.slack[::-1], self.dtype, self.arrays)

    def limit(self, values: np.ndarray, towards: float) -> Any:
        """``values`` in the tile's precision, rounded up (inf) or down (-inf)."""
        with np.errstate(over="ignore"):
            near: np.ndarray = values.astype(self.dtype)
        return self.arrays.put(np.nextafter(near, self.dtype(towards)), self.dtype)


def about(sets: Sequence[np.ndarray], arrays: Arrays) -> list[Points]:
    """Sets of features ``(n, d)`` about their common mean."""
    centre = np.mean([f.mean(axis=0, dtype=np.float64) for f in sets], axis=0)
    dtype = working_type(*sets)
    return [Points(f, centre, dtype, arrays) for f in sets]


def decide(
    a: Points, rows: slice, b: Points, columns: slice, find: Callable[[Tile], tuple[Any, Any]]
) -> tuple[Any, Pairs]:
    """What ``find`` makes of a tile, and the pairs that it leaves open, as rows of the sets."""
    found, flags = None, None
    for dtype in min(a.types, b.types, key=len):
        found, flags = find(_bounded(a, rows, b, columns, dtype))
        if a.arrays.count(flags) * _MANY <= len(a.norms[rows]) * len(b.norms[columns]):
            break
    i, j = a.arrays.where(flags)
    return found, (i + rows.start, j + columns.start)


def squared_distances(a: Points, b: Points, pairs: Pairs) -> np.ndarray:
    """``sum_j (a_j - b_j)^2`` of each pair in float64, by differences, (p,)."""
    i, j = pairs
    found = np.empty(len(i))
    for part in tiles(len(i), max(1, _EXACT // a.features.shape[1])):
        gaps = a.features[i[part]].astype(np.float64)
        gaps -= b.features[j[part]]
        found[part] = np.square(gaps, out=gaps).sum(axis=1)
    return found


def nearest(points: Points, others: Points, k: int) -> np.ndarray:
    """Ascending squared distances of each distinct point to its k nearest others, ``(rows, k)``.

    Where both are one set, a point is not its own neighbour, but its copies are.
    """
    own = points is others
    best = np.full((len(points.norms), k), np.inf)
    if own:
        best[np.arange(k) < points.copies[:, None] - 1] = 0.0
        for rows in points.slices:  # these first: they leave few candidates for the others
            _take(points, rows, points, rows, best)
    for i, rows in enumerate(points.slices):
        for columns in others.slices[:i] if own else others.slices:
            _take(points, rows, others, columns, best)
    return best


def _take(a: Points, rows: slice, b: Points, columns: slice, best: np.ndarray) -> None:
    """Put into ``best`` what a tile holds for its rows and, of one set, for its columns."""
    k, mirrored = best.shape[1], a is b and rows != columns

    def find(tile: Tile) -> tuple[None, Any]:
        flags = _candidates(tile, best[rows, -1], k)
        if mirrored:
            flags |= _mirrored_candidates(tile, best[columns, -1], k)
        return None, flags

    _, (i, j) = decide(a, rows, b, columns, find)
    if a is b:
        others = i != j
        i, j = i[others], j[others]
    values = squared_distances(a, b, (i, j))
    _keep_least(best, i, values, b.copies[j])
    if mirrored:
        _keep_least(best, j, values, a.copies[i])


def _candidates(tile: Tile, limits: np.ndarray, k: int) -> Any:
    """Flags of what may be among the k nearest of each row, none of them beyond its limit."""
    arrays = tile.arrays
    flags = tile.lower <= tile.limit(limits, np.inf)[:, None]
    if arrays.count(flags) <= _FEW * k * len(limits) or tile.lower.shape[1] < k:
        return flags
    reach = arrays.get(arrays.smallest(tile.upper(), k))[:, -1]
    return tile.lower <= tile.limit(np.minimum(limits, reach), np.inf)[:, None]


def _mirrored_candidates(tile: Tile, limits: np.ndarray, k: int) -> Any:
    """:func:`_candidates` of each column."""
    flags = tile.lower <= tile.limit(limits, np.inf)
    if tile.arrays.count(flags) <= _FEW * k * len(limits):
        return flags
    return _candidates(tile.transposed(), limits, k).T


def _keep_least(best: np.ndarray, rows: np.ndarray, values: np.ndarray, copies: np.ndarray) -> None:
    """Put values, each as often as it has copies, into their rows of ``best``, ascending."""
    k = best.shape[1]
    copies = np.where(values < best[rows, -1], np.minimum(copies, k), 0)
    rows, values = np.repeat(rows, copies), np.repeat(values, copies)
    touched, rows = np.unique(rows, return_inverse=True)
    rows = np.concatenate([np.repeat(np.arange(len(touched)), k), rows])
    values = np.concatenate([best[touched].ravel(), values])
    order = np.lexsort((values, rows))
    first = np.searchsorted(rows[order], np.arange(len(touched)))
    best[touched] = values[order][first[:, None] + np.arange(k)]


def _bounded(a: Points, rows: slice, b: Points, columns: slice, dtype: type) -> Tile:
    arrays, own = a.arrays, a is b and rows == columns
    left = a.rows(rows, dtype)
    right = left if own else b.rows(columns, dtype)
    dim, unit = left.shape[1], np.finfo(dtype).eps / 2
    # 11 roundings more than those of the product: centring 2, norms 1, sums 8; then the norms' own
    e = (dim + 16) * unit / (1 - (dim + 16) * unit) + (dim + 16) * 2.0**-53
    tiny = (dim + 16) * float(np.finfo(dtype).tiny)  # products below it may be lost
    norms, others = a.norms[rows], b.norms[columns]
    lower = left @ right.T  # numpy takes half the work where both are one matrix
    lower *= -2.0
    lower += arrays.put((1 - e) * norms, dtype)[:, None]
    lower += arrays.put((1 - e) * others - tiny, dtype)
    slack = arrays.put(2 * e * norms, dtype), arrays.put(2 * e * others + 2 * tiny, dtype)
    if own:
        diagonal = np.arange(len(norms))
        lower[diagonal, diagonal] = np.inf
    return Tile(lower, slack, dtype, arrays)


def _distinct(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each kind, and the kind of each row."""
    seen: dict[bytes, int] = {}
    origin = np.empty(len(features), np.int64)
    for i, row in enumerate(features):
        key = hashlib.sha256((row + 0).tobytes()).digest()  # -0 and 0 are one
        origin[i] = seen.setdefault(key, len(seen))
    return np.unique(origin, return_index=True)[1], origin
