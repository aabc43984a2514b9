"""One step of a cascade's upper stage: super-resolution diffusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pagoda import distributed
from pagoda.data.pixels import to_float
from pagoda.data.shards import read_at_random
from pagoda.data.store import Images
from pagoda.diffusion.edm import sample_sigma
from pagoda.losses.super_resolution import super_resolution_loss
from pagoda.networks.super_resolution import SuperResolver, condition
from pagoda.training import sharding
from pagoda.training.batches import share_of_noise
from pagoda.training.ema import EMA
from pagoda.training.micro_batch import slices
from pagoda.training.optim import OptimSpec, Updates, autocast


@dataclass(frozen=True)
class ResolutionPairs:
    """Random batches of the same images at two resolutions, mirrored together.

    Attributes:
        low: (n, 3, b, b) uint8, possibly memory-mapped.
        high: (n, 3, r, r) uint8, row by row the same images.
        labels: (n,) class indices.
    """

    low: Images
    high: Images
    labels: np.ndarray
    device: torch.device

    def __post_init__(self) -> None:
        read_at_random(self.low)
        read_at_random(self.high)

    def draw(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, 3, b, b), (batch, 3, r, r) in [-1, 1], (batch,) labels; this process's share."""
        mine = distributed.local_rows(batch)
        rows = self.rows(batch)[mine]
        mirror = (torch.rand(batch) < 0.5)[mine].to(self.device)[:, None, None, None]
        sizes = []
        for array in (self.low, self.high):
            x = to_float(torch.from_numpy(np.asarray(array[rows])).to(self.device))
            x = torch.where(mirror, x.flip(3), x)
            sizes.append(x.contiguous(memory_format=torch.channels_last))
        return sizes[0], sizes[1], torch.from_numpy(np.asarray(self.labels[rows])).to(self.device)

    def rows(self, batch: int) -> np.ndarray:
        """(batch,) rows that :meth:`draw` takes; what it draws first."""
        return torch.randint(len(self.high), (batch,)).numpy()


@dataclass(frozen=True)
class SuperResolutionSpec:
    """How a super-resolver trains.

    Attributes:
        batch: images a step.
        noise_max: the condition's noise level is uniform in [0, noise_max].
        p_mean: mean of ln sigma.
        p_std: standard deviation of ln sigma.
        clip: largest gradient norm, or None.
        ema: decay of the weight average.
        precision: ``"fp32"``, ``"bf16"`` or, on a GPU, ``"fp16"``.
        micro_batch: images a call of the network; None for this process's share of the batch.
    """

    batch: int
    noise_max: float
    p_mean: float
    p_std: float
    clip: float | None
    ema: float
    precision: str
    micro_batch: int | None = None


class SuperResolutionStep:
    """EDM denoising at the high resolution, conditioned on the noisy low one."""

    def __init__(
        self,
        resolver: SuperResolver,
        pairs: ResolutionPairs,
        spec: SuperResolutionSpec,
        optim: OptimSpec,
    ) -> None:
        self.resolver, self.pairs, self.spec = resolver.train(), pairs, spec
        self.ema = EMA(resolver, spec.ema)
        sharding.check(spec.precision, [spec.batch], spec.micro_batch)
        sharding.shard(pairs.device, resolver, self.ema.model)
        self.optimizer = optim.build(resolver.parameters())
        self.updates = Updates(self.optimizer, resolver.parameters(), spec.precision, spec.clip)
        self.modules: dict[str, nn.Module] = {
            "resolver": resolver, "ema": self.ema.model, "updates": self.updates,
        }  # fmt: skip
        self.optimizers = {"resolver": self.optimizer}

    def __call__(self, step: int, progress: float) -> dict[str, Tensor | float]:
        """Draw a batch, take one optimiser step, update the average."""
        spec, mine = self.spec, distributed.local_rows(self.spec.batch)
        low, high, labels = self.pairs.draw(spec.batch)
        sigma = sample_sigma(spec.batch, spec.p_mean, spec.p_std)[mine].to(high)
        level = (torch.rand(spec.batch) * spec.noise_max)[mine].to(high)
        seen = condition(low, high.shape[-1], level, share_of_noise(high, spec.batch))
        noise = share_of_noise(high, spec.batch)
        distributed.part_streams()
        total = torch.zeros((), device=high.device)
        for part in slices(len(high), spec.micro_batch):
            with autocast(high.device, spec.precision):
                loss = super_resolution_loss(
                    self.resolver, high[part], labels[part], sigma[part], noise[part], seen[part],
                    level[part], self.resolver.sigma_data,
                )  # fmt: skip
            images = len(high[part])
            self.updates.backward(loss * (images / spec.batch))
            total = total + loss.detach() * (images / len(high))
        norm = self.updates.step()
        self.ema.update(step)
        return {"loss": total, "grad_norm": norm, "lr": self.optimizer.param_groups[0]["lr"]}

    def rows(self) -> np.ndarray:
        """Indices of the training images of a step."""
        return self.pairs.rows(self.spec.batch)
