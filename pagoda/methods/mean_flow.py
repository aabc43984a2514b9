"""MeanFlow: the average velocity of a flow, learned from data alone (arXiv 2505.13447).

On the path z_t = (1 - t) x + t e from an image x to noise e, with v = e - x, the average velocity

    u(z_t, r, t) = (z_t - z_r) / (t - r),    0 <= r <= t <= 1,

leads from t to r in one step, and in the limit r = t it is the velocity itself. Differentiated
along the path, its definition becomes u = v - (t - r) du/dt (Geng et al. 2025), which is learned as

    || u - sg(v - (t - r) (v du/dz + du/dt)) ||^2 / sg(|| ... ||^2 + c)^p,

the derivative by forward mode (a Jacobian-vector product) and sg a stopped gradient.

**Between EDM's noise levels and the flow's times.** x_sigma = x + sigma e, divided by 1 + sigma, is
z_t at t = sigma / (1 + sigma); so logit t = ln sigma, and the paper's logit-normal times are EDM's
log-normal noise levels. With EDM's form f = c_skip x_sigma + c_out F of the end of the path,

    u(z, r, t) = (z - f) / t
               = (sigma - s^2) / (sigma^2 + s^2) x_sigma - (1 + sigma) s / sqrt(sigma^2 + s^2) F,

s = sigma_data, F the generator's own network. At r = t its f is a denoiser; at r = 0 and the time
of sigma_max it is the one-step generator, which leaves out c_skip x_sigma (below 0.004 z).

**The second time** enters by an embedding of t - r that is added to that of the noise level, times
r / t: it starts at zero, so that u starts as the teacher's velocity for every r, and at r = 0 it is
always zero, so that the generator needs none of it. That form is our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pagoda.errors import PagodaError, first_line
from pagoda.fields import Check, opt
from pagoda.training.method import Given, Loss, Method, needs_one_step_denoiser
from pagoda.training.settings import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pagoda.networks.generator import Generator
    from pagoda.training.draw import GlobalDraw

Velocity = Callable[["Tensor", "Tensor", "Tensor"], "Tensor"]
"""u(z, r, t): (n, ...), (n,) and (n,) -> (n, ...)."""


@dataclass(frozen=True)
class MeanFlowConfig(MethodConfig):
    """Average velocities."""

    p_mean: float = opt("mean of logit t and logit r, which is that of ln sigma", default=-0.4)
    p_std: float = opt("their standard deviation", default=1.0, gt=0)
    equal: float = opt("share of a batch in which r is t", default=0.75, ge=0, le=1)
    ends: float = opt(
        "share of a batch whose t is that of sigma_max, where the one-step map is; logit-normal "
        "times hardly get there. The paper has none",
        default=0.25, ge=0, le=1,
    )  # fmt: skip
    power: float = opt("p of the adaptive weight; 0 = none", default=0.75, ge=0)
    offset: float = opt("c of the adaptive weight", default=1e-3, gt=0)

    def checks(self, at: str) -> Iterator[Check]:
        """Gradients of two networks are scaled alike."""
        yield (self.optim.precision != "fp16", f"{at}optim.precision", self.optim.precision,
               "fp32 or bf16: mean_flow differentiates forward, without scaled losses")  # fmt: skip


def target(u: Velocity, z: Tensor, r: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """v - (t - r) (v du/dz + du/dt), without gradient; for the exact u and v it is u.

    Raises:
        PagodaError: an operation of ``u`` has no forward derivative.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    moved = v, torch.zeros_like(r), torch.ones_like(t)
    try:
        # Only this kernel of attention has a forward derivative.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            slope = torch.func.jvp(u, (z, r, t), moved)[1]
    except NotImplementedError as error:
        raise PagodaError(
            f"mean_flow needs forward derivatives of the network: {first_line(error)}"
        ) from error
    return v - (t - r)[:, None, None, None] * slope


def average_velocity(
    generator: Generator, second: nn.Module, z: Tensor, r: Tensor, t: Tensor, labels: Tensor
) -> Tensor:
    """u(z, r, t) (n, 3, b, b) of the generator's network and the embedding of its second time."""
    from pagoda.diffusion.edm import scalings

    sigma, s = t / (1 - t), generator.sigma_data
    level = sigma[:, None, None, None]
    coefficients, trunk = scalings(level, s), generator.trunk
    x = (1 + level) * z
    emb = trunk.embed(coefficients.c_noise.flatten(), labels) + second(r, t)
    out = generator.head(trunk(coefficients.c_in * x, emb)).to(x.dtype)
    keep = (level - s**2) / (level**2 + s**2)
    return keep * x - (1 + level) * s * coefficients.c_in * out


class MeanFlow(Method):
    """The generator's network as an average velocity, and the embedding of its second time."""

    Config = MeanFlowConfig

    def __init__(self, config: MeanFlowConfig, given: Given) -> None:
        from dataclasses import replace

        from pagoda.networks.generator import Generator
        from pagoda.training.player import Player

        assert isinstance(given.network, Generator)
        _check(given.network)
        self.config, self.images = config, given.images
        self.generator = given.network
        self.low, self.high = given.diffusion.sigma_min, given.network.sigma_max
        self.second = build_second_time(given.network, given.seed).to(given.device)
        self.player = Player(given.network, config.optim, given.device, compiled=False)
        optim = replace(config.optim, weight_decay=0.0)
        self.players = {
            "generator": self.player,
            "second_time": Player(self.second, optim, given.device, main=False, compiled=False),
        }

    def card(self) -> dict[str, Any]:
        """What it needed, and that the generator's map is one of the average velocity."""
        return {"needs": ["data", "JVP"], "guidance": "none", "nfe": [1, 2]}

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """One update of both, in micro batches; their gradients come from the same losses."""
        import torch

        from pagoda.training.micro_batch import slices

        c, n = self.config, self.config.optim.batch
        images, labels = draw.images(self.images, n)
        r, t, first = self._times(draw, images)
        noise = draw.noise(images, n)
        for rows in slices(len(images), c.optim.micro_batch):
            x, e, y = images[rows], noise[rows], labels[rows]
            far = t[rows, None, None, None]
            z, v = (1 - far) * x + far * e, e - x
            wanted = self._target(z, r[rows], t[rows], v, y, first - rows.start)
            with self.player.autocast():
                made = average_velocity(self.generator, self.second, z, r[rows], t[rows], y)
            error = (made - wanted).square().flatten(1).sum(1)
            weight = (error.detach() + c.offset) ** -c.power
            loss = draw.mean((weight * error).mean(), n, rows=len(x))
            apart = draw.mean(error.detach().mean(), n, rows=len(x))
            yield Loss("generator", loss, last=rows.stop == len(images),
                       stats={"loss": loss.detach(), "error": apart})  # fmt: skip
        # Its gradients are there already; this ends its update.
        nothing = torch.stack([p.sum() for p in self.second.parameters()]).sum() * 0.0
        yield Loss("second_time", nothing)

    def _times(self, draw: GlobalDraw, like: Tensor) -> tuple[Tensor, Tensor, int]:
        """r and t (n,), and from which of this process's rows on they differ.

        The number of rows with r = t is fixed, so that no derivative is computed for them.
        """
        import torch

        from pagoda import distributed

        c, n = self.config, self.config.optim.batch
        levels = torch.stack([draw.sigma(n, c.p_mean, c.p_std) for _ in range(2)])
        least, most = levels.clamp(self.low, self.high).sort(dim=0).values
        most = torch.where(draw.uniform(n) < c.ends, torch.full_like(most, self.high), most)
        equal = round(c.equal * n)
        least = torch.where(draw.local(torch.arange(n), n) < equal, most, least)
        r, t = ((level.double() / (1 + level.double())).to(like) for level in (least, most))
        return r, t, max(0, equal - distributed.local_rows(n).start)

    def _target(
        self, z: Tensor, r: Tensor, t: Tensor, v: Tensor, labels: Tensor, first: int
    ) -> Tensor:
        """v in the rows before ``first``, where r = t."""
        import torch

        first = min(max(first, 0), len(z))
        if first == len(z):
            return v
        rest = slice(first, None)

        def u(z: Tensor, r: Tensor, t: Tensor) -> Tensor:
            return average_velocity(self.generator, self.second, z, r, t, labels[rest])

        return torch.cat([v[:first], target(u, z[rest], r[rest], t[rest], v[rest])])


def build_second_time(generator: Generator, seed: int) -> nn.Module:
    """(r, t) -> r / t W_2 silu(W_1 wave(t - r)), added to the embedding of the noise level."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    from pagoda.networks.layers import timestep_embedding, zero

    channels, width = generator.spec.channels, generator.trunk.embedding

    class SecondTime(nn.Module):
        """(n,) and (n,) -> (n, embedding); 0 at r = 0."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(channels, width)
            self.last = zero(nn.Linear(width, width))

        def forward(self, r: Tensor, t: Tensor) -> Tensor:
            wave = timestep_embedding(t - r, channels).to(self.first.weight.dtype)
            made: Tensor = self.last(F.silu(self.first(wave)))
            return (r / t).to(made.dtype)[:, None] * made

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SecondTime()


def _check(generator: Generator) -> None:
    """It is a one-step map in the form of the end of a path, all of it in this process."""
    from pagoda.training import sharding

    needs_one_step_denoiser(generator, "mean_flow", "path")
    if sharding.wanted():
        raise PagodaError(
            f"mean_flow differentiates forward, which sharded weights cannot; set "
            f"{sharding.SHARD}=0"
        )
