"""Consistency training from a teacher's weights (ECT), and consistency distillation.

A consistency function f(x_t, t) maps every point of a probability-flow path to its end (Song et al.
2023, arXiv 2303.01469); at sigma_max it is a one-step generator. It learns from neighbours on a
path,

    || f(x_t, t) - sg f(x_r, r) || / (t - r),    ln t ~ N(p_mean, p_std^2),
    r = t max(0, 1 - q^-(stage + 1) (1 + 8 sigmoid(-t)))

whose distance shrinks from stage to stage (Geng et al. 2024, arXiv 2406.14548). From the data, both
points are a real image with one noise; from the teacher, x_r is one Heun step of its ODE away.
f = c_skip x + c_out F is EDM's form, over the generator's own network F.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pagoda.fields import Check, opt
from pagoda.training.method import Given, Loss, Method, needs_one_step_denoiser
from pagoda.training.settings import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pagoda.training.draw import GlobalDraw

_TINY = 1e-6  # of the norm, which has no gradient at 0
_LEAST = 1e-5  # (t - r) / t at large t: a hundred times float32's resolution


@dataclass(frozen=True)
class ConsistencyConfig(MethodConfig):
    """Consistency of neighbours on a path."""

    neighbours: str = opt(
        "where they come from: noise on real images, or a step of the teacher's ODE",
        default="data", choices=("data", "teacher"),
    )  # fmt: skip
    p_mean: float = opt("mean of ln t", default=-1.1)
    p_std: float = opt("standard deviation of ln t", default=2.0, gt=0)
    shrink: float = opt("q: the distance of neighbours falls by it a stage", default=2.0, gt=1)
    stages: int = opt("stages of equal length", default=8, ge=1)

    def checks(self, at: str) -> Iterator[Check]:
        """Neighbours of the last stage are still two points in float32."""
        most = int(math.log(1 / _LEAST, self.shrink))
        yield (self.stages <= max(most, 1), f"{at}stages", self.stages,
               f"at most {max(most, 1)}: {at}shrink = {self.shrink:g} brings neighbours too near "
               "after it to be told apart in float32")  # fmt: skip


def gap(t: Tensor, stage: int, shrink: float) -> Tensor:
    """t - r (n,), in (0, t]: the distance of the neighbour's noise level r from t (n,).

    The loss divides by it, and float32's t - r would keep few of its digits in late stages.
    """
    return t * (shrink ** -(stage + 1) * (1 + 8 * (-t).sigmoid())).clamp(max=1)


class Consistency(Method):
    """The generator's network as a consistency function; nothing else trains."""

    Config = ConsistencyConfig

    def __init__(self, config: ConsistencyConfig, given: Given) -> None:
        from pagoda.networks.generator import Generator
        from pagoda.training.player import Player

        assert isinstance(given.network, Generator)
        self.config, self.images, self.low = config, given.images, given.diffusion.sigma_min
        self.generator = given.network
        needs_one_step_denoiser(given.network, "consistency", "noise level")
        self.player = Player(given.network, config.optim, given.device)
        self.players = {"generator": self.player}
        self.teacher: Any = None
        if config.neighbours == "teacher":
            assert given.teacher is not None
            teacher = given.teacher().to(given.device, given.images.dtype)
            self.teacher = teacher.eval().requires_grad_(False)

    def card(self) -> dict[str, Any]:
        """What it needed, and the steps that its network can make samples in."""
        taught = ["teacher"] if self.config.neighbours == "teacher" else []
        return {"needs": ["data", *taught], "nfe": [1, 2]}

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """One update, in micro batches."""
        import torch

        from pagoda.training.micro_batch import slices

        c, n = self.config, self.config.optim.batch
        images, labels = draw.images(self.images, n)
        t = draw.sigma(n, c.p_mean, c.p_std).to(images).clamp(min=self.low)
        noise = draw.noise(images, n)
        steps = gap(t, int(progress * c.stages), c.shrink)
        r = t - steps
        devices = [images.device] if images.is_cuda else []
        for rows in slices(len(images), c.optim.micro_batch):
            part, apart = (images[rows], noise[rows], t[rows], r[rows], labels[rows]), steps[rows]
            # The same dropout below; narrow weights are cached apart, as these have no gradient.
            with torch.random.fork_rng(devices), torch.no_grad(), self.player.autocast():
                target = self._target(*part)
            x, e, high, _, y = part
            with self.player.autocast():
                made = self.generator.consistency(x + high[:, None, None, None] * e, high, y)
            norm = ((made - target).square().flatten(1).sum(1) + _TINY**2).sqrt()
            loss = (norm / apart).mean()
            loss = draw.mean(loss, n, rows=len(x))
            distance = draw.mean(norm.detach().mean(), n, rows=len(x))
            yield Loss("generator", loss, last=rows.stop == len(images),
                       stats={"loss": loss.detach(), "distance": distance})  # fmt: skip

    def _target(self, x: Tensor, e: Tensor, t: Tensor, r: Tensor, labels: Tensor) -> Tensor:
        """f of the neighbour; at noise levels below sigma_min the neighbour is the end itself."""
        import torch

        ends = (r < self.low)[:, None, None, None]
        r = r.clamp(min=self.low)
        high, low = t[:, None, None, None], r[:, None, None, None]
        near = x + low * e
        if self.teacher is not None:
            start = x + high * e
            slope = (start - self.teacher(start, t, labels)) / high
            near = start + (low - high) * slope
            other = (near - self.teacher(near, r, labels)) / low
            near = start + (low - high) * (slope + other) / 2
        found = self.generator.consistency(near, r, labels)
        return torch.where(ends, x if self.teacher is None else near, found)
