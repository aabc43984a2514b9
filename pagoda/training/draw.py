"""Random draws of a step's global batch, of which each process gets its rows.

Everything is drawn for the whole batch by every process and cut afterwards, so that the number of
processes changes nothing of what is computed; but for dropout, which in a group is each process's
own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from pagoda import distributed
from pagoda.data.pixels import seen
from pagoda.losses.augment import Augmentation
from pagoda.training.batches import ImageBatches, PairBatches

V = TypeVar("V", bound=Tensor | float)


@dataclass
class Forecast(Exception):
    """What a step draws first: rows of a data set, None if it is something else."""

    source: ImageBatches | PairBatches | None
    rows: np.ndarray


class GlobalDraw:
    """The draws of one step, from torch's global generators, which the loop seeds.

    There they are alike in all processes of a group; from the first draw on, and outside of
    :meth:`common`, they are each process's own.

    A batch is given by its size, or by the sizes of its parts: (pairs, prior) is a batch of pairs
    followed by one of prior samples, each divided over the processes by itself.

    Args:
        device: where batches go.
        forecast: raise :class:`Forecast` instead of the first draw, from this generator.
    """

    def __init__(self, device: torch.device, forecast: torch.Generator | None = None) -> None:
        self.device, self._forecast, self._seed = device, forecast, torch.initial_seed()
        self._devices = [device] if device.type == "cuda" else []
        self._common: list[Tensor] | None = None  # where the common numbers go on

    @contextmanager
    def common(self) -> Iterator[None]:
        """Inside, random numbers are those that all processes of a group draw; alone, any are."""
        if distributed.world_size() == 1 or self._forecast is not None:
            yield
            return
        with torch.random.fork_rng(self._devices):
            if self._common is not None:
                torch.set_rng_state(self._common[0])
                for state in self._common[1:]:
                    torch.cuda.set_rng_state(state, self.device)
            yield
            states = (torch.cuda.get_rng_state(device) for device in self._devices)
            first, self._common = self._common is None, [torch.get_rng_state(), *states]
        if first:
            own = f"{torch.initial_seed()}/{distributed.rank()}"
            torch.manual_seed(zlib.crc32(own.encode()))

    def local(self, values: Tensor, *sizes: int) -> Tensor:
        """This process's rows of values that all processes have for the whole batch."""
        starts = np.cumsum([0, *sizes])
        parts = [values[starts[i] :][distributed.local_rows(n)] for i, n in enumerate(sizes)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def mean(self, value: V, *sizes: int, rows: int | None = None) -> V:
        """This process's part of a mean over the whole batch: the parts add up to it.

        Args:
            value: the mean over this process's rows of the batch, or over ``rows`` of them.
        """
        if rows is None:
            mine = [distributed.local_rows(n) for n in sizes]
            rows = sum(part.stop - part.start for part in mine)
        return cast(V, value * (rows / sum(sizes)))

    def total(self, value: Tensor) -> Tensor:
        """The sum of a value over the whole batch, from this process's part of it; no gradient."""
        total = value.detach().clone()
        distributed.all_reduce_([total])
        return total

    def images(self, source: ImageBatches, n: int) -> tuple[Tensor, ...]:
        """Images in [-1, 1] at each of the source's resolutions, and labels; half are mirrored.

        Codes are taken as they are stored.
        """
        rows = self._rows(source, n)
        pixels = source.take(rows)
        mirror = (self.uniform(n) < 0.5).to(self.device)
        seen = (_seen(p, mirror, source.dtype) for p in pixels)
        return *seen, source.labels_of(rows)

    def pairs(self, source: PairBatches, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, their images in [-1, 1], mirrored as the latents were, and labels."""
        return self.pairs_at(source, self._rows(source, n))

    def guided_pairs(self, source: PairBatches, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As :meth:`pairs`, and the weight of the guidance of each latent."""
        rows = self._rows(source, n)
        return *self.pairs_at(source, rows), source.weights_of(rows)

    def weights(self, source: PairBatches, n: int) -> Tensor:
        """Weights of the guidance of random pairs: omega ~ pi."""
        return source.weights_of(self._integers(len(source), n))

    def pairs_at(self, source: PairBatches, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`pairs`, of these rows."""
        z, pixels = source.take(rows)
        mirror = torch.from_numpy(source.flips[rows] > 0).to(self.device)
        x = _seen(pixels, mirror, source.dtype)
        return z.to(source.dtype) * source.scale, x, source.labels_of(rows)

    def labels(self, source: ImageBatches, n: int) -> Tensor:
        """Labels of random images."""
        return source.labels_of(self._integers(len(source.labels), n))

    def prior(self, source: ImageBatches, n: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Prior latents (n, *shape), and labels of random images."""
        labels = self.labels(source, n)
        z = self.normal(n, *shape, on=self.device, dtype=source.dtype)
        return z.contiguous(memory_format=torch.channels_last), labels

    def sigma(self, n: int, p_mean: float, p_std: float) -> Tensor:
        """Noise levels of training, on the CPU: ln sigma ~ N(p_mean, p_std^2)."""
        return (self.normal(n) * p_std + p_mean).exp()

    def uniform(self, n: int, *shape: int) -> Tensor:
        """Uniform in [0, 1), on the CPU."""
        with self._drawn():
            return self.local(torch.rand(n, *shape), n)

    def normal(
        self, n: int, *shape: int, on: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:  # fmt: skip
        """Standard normal."""
        with self._drawn():
            return self.local(torch.randn(n, *shape, device=on, dtype=dtype), n)

    def noise(self, images: Tensor, n: int) -> Tensor:
        """Standard normal, for a batch of ``n`` images like these."""
        drawn = torch.empty(
            (n, *images.shape[1:]), dtype=images.dtype, device=images.device,
            memory_format=torch.channels_last,
        )  # fmt: skip
        with self._drawn():
            return self.local(drawn.normal_(), n)

    def augmentation(self, key: int, resolution: int, *sizes: int) -> Augmentation:
        """Numbers of DiffAugment for a batch: a function of ``key``, sizes, resolution and the
        seed that torch had when this was made: that of a step.
        """
        random = torch.Generator().manual_seed((self._seed + key) % (1 << 63))
        return Augmentation.draw(sum(sizes), resolution, random).map(
            lambda values: self.local(values, *sizes).to(self.device)
        )

    def _rows(self, source: ImageBatches | PairBatches, n: int) -> np.ndarray:
        with self.common():
            rows = torch.randint(len(source), (n,), generator=self._forecast)
        if self._forecast is not None:
            raise Forecast(source, rows.numpy())
        return self.local(rows, n).numpy()

    def _integers(self, below: int, n: int) -> np.ndarray:
        with self._drawn():
            return self.local(torch.randint(below, (n,)), n).numpy()

    @contextmanager
    def _drawn(self) -> Iterator[None]:
        """Of what is no row of a data set."""
        if self._forecast is not None:
            raise Forecast(None, np.arange(0))
        with self.common():
            yield


def _seen(stored: Tensor, mirror: Tensor, dtype: torch.dtype) -> Tensor:
    return seen(stored, mirror).to(dtype).contiguous(memory_format=torch.channels_last)
