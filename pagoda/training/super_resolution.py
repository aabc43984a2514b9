"""One step of a cascade's upper stage: super-resolution diffusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pagoda.data.pixels import to_float
from pagoda.data.shards import read_at_random
from pagoda.data.store import Images
from pagoda.diffusion.edm import sample_sigma
from pagoda.networks.super_resolution import SuperResolver, condition
from pagoda.objectives.super_resolution import super_resolution_loss
from pagoda.training.ema import EMA
from pagoda.training.optim import OptimSpec, autocast


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
        """(batch, 3, b, b) and (batch, 3, r, r) in [-1, 1], (batch,) labels."""
        rows = self.rows(batch)
        mirror = (torch.rand(batch) < 0.5).to(self.device)[:, None, None, None]
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
        precision: ``"fp32"`` or ``"bf16"``.
    """

    batch: int
    noise_max: float
    p_mean: float
    p_std: float
    clip: float | None
    ema: float
    precision: str


class SuperResolutionStep:
    """EDM denoising at the high resolution, conditioned on the noisy low one; one process only."""

    def __init__(
        self,
        resolver: SuperResolver,
        pairs: ResolutionPairs,
        spec: SuperResolutionSpec,
        optim: OptimSpec,
    ) -> None:
        self.resolver, self.pairs, self.spec = resolver.train(), pairs, spec
        self.optimizer = optim.build(resolver.parameters())
        self.ema = EMA(resolver, spec.ema)
        self.modules: dict[str, nn.Module] = {"resolver": resolver, "ema": self.ema.model}
        self.optimizers = {"resolver": self.optimizer}

    def __call__(self, step: int, progress: float) -> dict[str, Tensor | float]:
        """Draw a batch, take one optimiser step, update the average."""
        spec = self.spec
        low, high, labels = self.pairs.draw(spec.batch)
        sigma = sample_sigma(spec.batch, spec.p_mean, spec.p_std).to(high.device)
        level = (torch.rand(spec.batch) * spec.noise_max).to(high.device)
        seen = condition(low, high.shape[-1], level, torch.randn_like(high))
        with autocast(high.device, spec.precision):
            loss = super_resolution_loss(
                self.resolver, high, labels, sigma, torch.randn_like(high), seen, level,
                self.resolver.sigma_data,
            )  # fmt: skip
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = spec.clip if spec.clip is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(self.resolver.parameters(), limit)
        self.optimizer.step()
        self.ema.update(step)
        lr = self.optimizer.param_groups[0]["lr"]
        return {"loss": loss.detach(), "grad_norm": norm.detach(), "lr": lr}

    def rows(self) -> np.ndarray:
        """Indices of the training images of a step."""
        return self.pairs.rows(self.spec.batch)
