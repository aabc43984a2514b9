"""Data sets that random batches are drawn from: memory-mapped arrays, read by rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from pagoda.data.noise import NormalRows
from pagoda.data.shards import ShardedArray, read_at_random
from pagoda.data.store import Images


@dataclass(eq=False, kw_only=True)
class Rows:
    """Rows that a thread may read, and send to the device, before they are asked for.

    What is read ahead is kept under the rows themselves: a forecast that was wrong costs time,
    never a wrong batch.

    Attributes:
        labels: (n,) class of each row.
        device: where batches go.
        ahead: read ahead; on a CPU there is nothing idle that could.
        dtype: of images and latents.
    """

    labels: np.ndarray
    device: torch.device
    ahead: bool | None = None
    dtype: torch.dtype = torch.float32
    _thread: ThreadPoolExecutor | None = field(default=None, init=False)
    _reading: dict[bytes, Future[tuple[Tensor, ...]]] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """What is stored at rows, on the device."""

    def prefetch(self, rows: np.ndarray) -> None:
        """Start to read these rows in the background."""
        if self.ahead is False or (self.ahead is None and self.device.type != "cuda"):
            return
        self._thread = self._thread or ThreadPoolExecutor(1, "pagoda-ahead")
        if len(self._reading) > 1:  # one is in use, one is ahead; more were never fetched
            self._reading.clear()
        self._reading[rows.tobytes()] = self._thread.submit(self.read, rows)

    def take(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """As :meth:`read`, from the thread if it was told of these rows."""
        found = self._reading.pop(rows.tobytes(), None)
        return self.read(rows) if found is None else found.result()

    def labels_of(self, rows: np.ndarray) -> Tensor:
        """Labels of rows, on the device."""
        return torch.from_numpy(np.asarray(self.labels[rows])).to(self.device)

    def image_of(self, rows: np.ndarray) -> np.ndarray:
        """Which training image is at each of the rows."""
        return rows


@dataclass(eq=False, kw_only=True)
class ImageBatches(Rows):
    """Labelled images.

    Attributes:
        stores: the same images at one or more resolutions, lowest first: (n, 3, r, r) uint8.
    """

    stores: Sequence[Images]

    def __post_init__(self) -> None:
        for store in self.stores:
            read_at_random(store)

    def read(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """Pixels at each resolution, on the device."""
        return tuple(to_device(store[rows], self.device) for store in self.stores)


@dataclass(eq=False, kw_only=True)
class PairBatches(Rows):
    """(latent, image, label) triples.

    Attributes:
        latents: (m, 3, b, b), possibly sharded or made when they are read.
        indices: (m,) row of ``images`` of each latent.
        flips: (m,) 1 where the image was mirrored before its inversion.
        images: (n, 3, r, r) uint8 at the generator's resolution.
        scale: what brings stored latents to x(sigma_max) / sigma_max.
        weights: (m,) weight of the guidance that each was inverted under; None: one for all.
        weight_range: smallest and largest that there may be.
    """

    latents: np.ndarray | ShardedArray | NormalRows
    indices: np.ndarray
    flips: np.ndarray
    images: Images
    scale: float = 1.0
    weights: np.ndarray | None = None
    weight_range: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        read_at_random(self.images)
        read_at_random(self.latents)

    def thinned(self, fraction: float) -> PairBatches:
        """These pairs, or the first ``fraction`` of each class, at least one, if it is below 1.

        So the official code thins its pairs (``data_proportion``), but that it has no minimum.
        """
        if fraction >= 1:
            return self
        classes = [np.flatnonzero(self.labels == label) for label in np.unique(self.labels)]
        return self.only(
            np.sort(np.concatenate([c[: max(1, round(fraction * len(c)))] for c in classes]))
        )

    def only(self, rows: np.ndarray) -> PairBatches:
        """The pairs at these rows."""
        own = ("latents", "indices", "flips", "labels", *(["weights"] * (self.weights is not None)))
        parts = {k: getattr(self, k)[rows] for k in own}
        return replace(self, **parts)

    def read(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """Latents as stored and pixels, on the device."""
        latents = self.latents[rows].astype(np.float32)
        pixels = self.images[self.indices[rows]]
        return to_device(latents, self.device), to_device(pixels, self.device)

    def weights_of(self, rows: np.ndarray) -> Tensor:
        """Weights of the guidance of rows, on the device; 1, which is none, where none is known."""
        known = np.ones(len(rows)) if self.weights is None else np.asarray(self.weights[rows])
        return torch.from_numpy(known).to(self.device, self.dtype)

    def image_of(self, rows: np.ndarray) -> np.ndarray:
        """Which training image is the one of each latent."""
        return self.indices[rows]


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """An array on a device; the copy to a GPU runs beside the computation there."""
    tensor = torch.from_numpy(np.asarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
