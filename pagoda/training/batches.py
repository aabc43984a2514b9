"""Random training batches from memory-mapped arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pagoda import distributed
from pagoda.data.pixels import to_float
from pagoda.data.shards import ShardedArray, read_at_random
from pagoda.data.store import Images
from pagoda.training.ahead import Ahead, to_device


@dataclass(frozen=True)
class ImageBatches:
    """Random batches of labelled images, each mirrored with probability 1/2.

    Draws come from torch's global generator, which the training loop reseeds every step. Every
    process draws the whole batch and loads its own share.

    Attributes:
        images: (n, 3, r, r) uint8, possibly memory-mapped.
        labels: (n,) class indices.
        device: where batches go.
        ahead: reads the next batch while one trains.
    """

    images: Images
    labels: np.ndarray
    device: torch.device
    ahead: Ahead | None = None

    def __post_init__(self) -> None:
        read_at_random(self.images)

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """This process's share of (batch, 3, r, r) in [-1, 1] and (batch,) labels."""
        mine = distributed.local_rows(batch)
        rows = self.rows(batch)[mine]
        (pixels,) = self.ahead.take(rows, self.read) if self.ahead else self.read(rows)
        x = to_float(pixels)
        mirror = (torch.rand(batch) < 0.5)[mine].to(self.device)[:, None, None, None]
        x = torch.where(mirror, x.flip(3), x).contiguous(memory_format=torch.channels_last)
        return x, torch.from_numpy(self.labels[rows]).to(self.device)

    def read(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """The pixels of rows, on the device."""
        return (to_device(self.images[rows], self.device),)

    def rows(self, batch: int, random: torch.Generator | None = None) -> np.ndarray:
        """(batch,) rows that :meth:`draw` takes; what it draws first."""
        return torch.randint(len(self.images), (batch,), generator=random).numpy()

    def prefetch(self, batch: int, seed: int) -> None:
        """Start to read what :meth:`draw` takes first after torch's generator got this seed."""
        if self.ahead:
            rows = self.rows(batch, torch.Generator().manual_seed(seed))
            self.ahead.start(rows[distributed.local_rows(batch)], self.read)


def first_of_each_class(labels: np.ndarray, share: float) -> np.ndarray:
    """Ascending rows of the first ``share`` of each class, at least one row a class.

    So the official code thins its pairs (``data_proportion``), except that it has no minimum.
    """
    kept = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        kept.append(rows[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(kept))


@dataclass(frozen=True)
class PairBatches:
    """Random batches of (latent, image, label) triples; the image is mirrored as its latent was.

    Attributes:
        latents: (m, 3, b, b), possibly sharded.
        indices: (m,) row of ``images`` of each latent.
        flips: (m,) 1 where the image was mirrored before its inversion.
        images: (n, 3, r, r) uint8 at the generator's resolution.
        labels: (m,) class of each latent.
        scale: what brings stored latents to x(sigma_max) / sigma_max.
        ahead: reads the next batch while one trains.
    """

    latents: np.ndarray | ShardedArray
    indices: np.ndarray
    flips: np.ndarray
    images: Images
    labels: np.ndarray
    device: torch.device
    scale: float = 1.0
    ahead: Ahead | None = None

    def __post_init__(self) -> None:
        read_at_random(self.images)
        read_at_random(self.latents)

    def thinned(self, share: float) -> PairBatches:
        """These pairs, or the first ``share`` of each class if it is below 1."""
        if share >= 1:
            return self
        rows = first_of_each_class(self.labels, share)
        parts = {k: getattr(self, k)[rows] for k in ("latents", "indices", "flips", "labels")}
        return replace(self, **parts)

    def draw(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """This process's share of latents, images in [-1, 1] and labels of one batch."""
        rows = self.rows(batch)[distributed.local_rows(batch)]
        z, pixels = self.ahead.take(rows, self.read) if self.ahead else self.read(rows)
        z, x = z * self.scale, to_float(pixels)
        mirror = torch.from_numpy(self.flips[rows] > 0).to(self.device)[:, None, None, None]
        x = torch.where(mirror, x.flip(3), x).contiguous(memory_format=torch.channels_last)
        return z, x, torch.from_numpy(self.labels[rows]).to(self.device)

    def read(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """Latents as stored and pixels of rows, on the device."""
        latents = self.latents[rows].astype(np.float32)
        pixels = self.images[self.indices[rows]]
        return to_device(latents, self.device), to_device(pixels, self.device)

    def rows(self, batch: int, random: torch.Generator | None = None) -> np.ndarray:
        """(batch,) rows of the latents that :meth:`draw` takes; what it draws first."""
        return torch.randint(len(self.latents), (batch,), generator=random).numpy()

    def prefetch(self, batch: int, seed: int) -> None:
        """Start to read what :meth:`draw` takes first after torch's generator got this seed."""
        if self.ahead:
            rows = self.rows(batch, torch.Generator().manual_seed(seed))
            self.ahead.start(rows[distributed.local_rows(batch)], self.read)


def share_of_noise(images: Tensor, batch: int) -> Tensor:
    """Standard normal noise for this process's share of ``batch`` images like ``images``.

    Every process draws the whole batch, so that their number changes nothing.
    """
    drawn = torch.empty(
        (batch, *images.shape[1:]), dtype=images.dtype, device=images.device,
        memory_format=torch.channels_last,
    )  # fmt: skip
    return drawn.normal_()[distributed.local_rows(batch)]
