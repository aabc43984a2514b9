"""Each objective finds mean and deviation of Gaussian data, with a generator that has just these.

What a method learns beside the generator is known in closed form here, or has the form of what it
would be at its optimum; losses, weights, draws and targets are the methods' own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pagoda.methods import mean_flow
from pagoda.training.draw import GlobalDraw
from pagoda.training.method import Loss
from tests.methods.small import CPU, Case, make

DOUBLE = torch.float64
MEAN, DEVIATION, SIDE, BATCH = 0.3, 0.4, 4, 64


class Affine(nn.Module):
    """G(z) = m + s z, pixel by pixel; and the exact functions of N(m, s^2)."""

    def __init__(self, mean: float = -0.2, deviation: float = 0.9) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean, dtype=DOUBLE))
        self.log = nn.Parameter(torch.tensor(math.log(deviation), dtype=DOUBLE))
        self.spec = SimpleNamespace(resolution=SIDE, num_classes=4, shape=(3, SIDE, SIDE))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.mean + self.log.exp() * z

    def spread(self, sigma: Tensor) -> Tensor:
        return ((2 * self.log).exp() + sigma[:, None, None, None] ** 2).sqrt()

    def denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.mean + (2 * self.log).exp() / self.spread(sigma) ** 2 * (x - self.mean)

    def end(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Of the probability-flow path through x."""
        return self.mean + self.log.exp() / self.spread(sigma) * (x - self.mean)

    def consistency(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """What a generator calls it."""
        return self.end(x, sigma)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Of a noisy image (n,), up to what does not depend on the law."""
        spread = self.spread(sigma)
        return -(((x - self.mean) / spread) ** 2 / 2 + spread.log()).flatten(1).sum(1)

    def velocity(self, z: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """The average one from z_t: a path keeps (z - (1 - t) m) / deviation of z_t."""
        r, t = r[:, None, None, None], t[:, None, None, None]
        wide = [((1 - at) ** 2 * (2 * self.log).exp() + at**2).sqrt() for at in (r, t)]
        start = (1 - r) * self.mean + wide[0] / wide[1] * (z - (1 - t) * self.mean)
        return torch.where(
            t > r, (z - start) / (t - r).clamp(min=1e-12), self._slope(z, t, wide[1])
        )

    def _slope(self, z: Tensor, t: Tensor, wide: Tensor) -> Tensor:
        bend = (t - (1 - t) * (2 * self.log).exp()) / wide**2
        return -self.mean + bend * (z - (1 - t) * self.mean)


DATA = Affine(MEAN, DEVIATION).requires_grad_(False)


class Draw(GlobalDraw):
    """Gaussian images of one class; all else as it is."""

    def images(self, source: Any, n: int) -> tuple[Tensor, ...]:
        return DATA(torch.randn(n, 3, SIDE, SIDE, dtype=DOUBLE)), self.labels(source, n)

    def labels(self, source: Any, n: int) -> Tensor:
        return torch.zeros(n, dtype=torch.long)

    def prior(self, source: Any, n: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 3, SIDE, SIDE, dtype=DOUBLE), self.labels(source, n)


class Function(nn.Module):
    """A function in the place of a network."""

    def __init__(self, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *values: Tensor) -> Tensor:
        return self.call(*values)


def small(method: str, generator: Affine, **settings: Any) -> Any:
    length = {"optim.batch": BATCH, "optim.images": 10 * BATCH}
    made = make(Case(method, "generator"), DOUBLE, **length | settings)
    made.generator = generator  # type: ignore[attr-defined]
    return made


def train(
    steps: int, losses: Callable[[Draw], Iterable[Loss]], players: dict[str, nn.Module],
    rate: float = 0.05,
) -> None:  # fmt: skip
    """Adam, whose rate falls to zero."""
    torch.manual_seed(0)
    own = {name: torch.optim.Adam(p.parameters(), rate, betas=(0.5, 0.9))
           for name, p in players.items()}  # fmt: skip
    for i in range(steps):
        for loss in losses(Draw(CPU)):
            if loss.player not in own:
                continue
            optimiser = own[loss.player]
            optimiser.param_groups[0]["lr"] = rate * (1 - i / steps)
            optimiser.zero_grad()
            loss.value.backward()
            optimiser.step()


def found(generator: Affine) -> tuple[float, float]:
    return float(generator.mean.detach()), float(generator.log.detach().exp())


def near(tolerance: float) -> Any:
    return pytest.approx((MEAN, DEVIATION), abs=tolerance)


@pytest.mark.parametrize("divergence", ["reverse_kl", "js"])
def test_class_ratio(divergence: str) -> None:
    """With the exact ratio."""
    generator = Affine()
    method = small("class_ratio", generator, divergence=divergence, sigma_low=0.1, sigma_high=3.0,
                   **{"ratio.freeze_after": 0.0})  # fmt: skip

    def ratio(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        now = Affine(*found(generator))
        # Of a few numbers of the image, so that JS is not saturated from the start.
        return (DATA.log_density(x, sigma) - now.log_density(x, sigma)) / 8

    method.ratio = Function(ratio)
    train(120, lambda draw: method.step(draw, 0, 0.5), {"generator": generator})
    assert found(generator) == near(0.02)


def test_distribution_matching() -> None:
    """With the exact teacher and critic, at all noise levels."""
    generator = Affine()
    method = small("distribution_matching", generator, **{"critic.weight": 0.0})
    method.teacher = Function(lambda x, s, y: DATA.denoised(x, s))
    method.critic = Function(lambda x, s, y: Affine(*found(generator)).denoised(x, s))
    train(120, lambda draw: [method._generator_loss(draw)], {"generator": generator})
    assert found(generator) == near(0.02)


@pytest.mark.parametrize("neighbours", ["data", "teacher"])
def test_consistency(neighbours: str) -> None:
    """At the last stage of its schedule, from a path's function in the exact form."""
    generator = Affine()
    method = small("consistency", generator, neighbours=neighbours, p_mean=-0.5, p_std=1.0)
    if neighbours == "teacher":
        method.teacher = Function(lambda x, s, y: DATA.denoised(x, s))
    train(130, lambda draw: method.step(draw, 0, 0.99), {"generator": generator})
    assert found(generator) == near(0.03)


def test_mean_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """From an average velocity in the exact form; some times are equal."""
    generator = Affine()
    monkeypatch.setattr(
        mean_flow, "average_velocity", lambda g, second, z, r, t, y: generator.velocity(z, r, t)
    )
    method = small("mean_flow", generator, equal=0.5)
    train(130, lambda draw: method.step(draw, 0, 0.5), {"generator": generator})
    assert found(generator) == near(0.02)


def test_drifting() -> None:
    """In features that are pairs of pixels."""
    generator = Affine()
    method = small("drifting", generator, temperatures=[0.5], normalise=False)
    method._vectors = lambda x, labels: x.flatten(1)[:, :2]
    method._split = lambda vectors: iter([vectors[None]])
    train(160, lambda draw: method.step(draw, 0, 0.5), {"generator": generator})
    assert found(generator) == near(0.06)


def test_relativistic() -> None:
    """A critic of the two statistics that a Gaussian has, which trains."""
    generator = Affine()

    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.zeros(2, dtype=DOUBLE))

        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            statistics = torch.stack([x.mean((1, 2, 3)), x.square().mean((1, 2, 3))], 1)
            return 5 * statistics @ self.weights

    method = small("relativistic", generator, **{"critic.gamma": 1.0})
    method.critic = Critic()
    players: dict[str, nn.Module] = {"generator": generator, "critic": method.critic}
    train(250, lambda draw: method.step(draw, 0, 0.5), players)
    assert found(generator) == near(0.03)
