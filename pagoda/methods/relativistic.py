"""A relativistic GAN with two gradient penalties, from a teacher's weights (R3GAN).

Huang et al. 2024 (arXiv 2501.05441). A critic D scores pairs of a real image x and a generated one
G(z), of the same class y here:

    L_D = E softplus(-(D(x, y) - D(G(z), y))) + gamma / 2 (R1 + R2),
    L_G = E softplus(-(D(G(z), y) - D(x, y))),
    R1 = E || grad D(x, y) ||^2 over real images,    R2 = E || grad D(G(z), y) ||^2 over generated.

Only differences of scores count, so no score has to be driven to infinity; the penalties are what
makes training converge. Both networks may start at the teacher's weights, which is our choice: the
paper trains its own networks from scratch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pagoda.errors import PagodaError
from pagoda.fields import opt
from pagoda.training.method import Given, Loss, Method
from pagoda.training.settings import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pagoda.networks.denoiser import Denoiser
    from pagoda.training.draw import GlobalDraw


@dataclass(frozen=True)
class CriticConfig:
    """The critic, and how it is trained."""

    kind: str = opt(
        "teacher: the teacher's encoder and a head, all of which trains; conv: a network of its "
        "own, from scratch",
        default="teacher", choices=("teacher", "conv"),
    )  # fmt: skip
    sigma: float = opt("teacher: noise level that its encoder is told", default=0.1, gt=0)
    channels: int = opt("conv: width at the input resolution", default=32, ge=4)
    max_channels: int = opt("conv: largest width", default=128, ge=4)
    lr: float = opt("learning rate", default=1e-3, gt=0)
    beta1: float = opt("Adam beta 1", default=0.0, ge=0, lt=1)
    beta2: float = opt("Adam beta 2", default=0.99, ge=0, lt=1)
    gamma: float = opt("weight of R1 and of R2; 0 = none", default=0.05, ge=0)
    penalty_every: int = opt("steps between penalties; R3GAN: 1", default=1, ge=1)


@dataclass(frozen=True)
class RelativisticConfig(MethodConfig):
    """The generator against a relativistic critic."""

    critic: CriticConfig = opt("the critic", default=CriticConfig())


def relativistic(above: Tensor, below: Tensor) -> Tensor:
    """E softplus(-(above - below)): the loss of who wants the scores of ``above`` higher.

    Args:
        above, below: scores (n,) of the images of n pairs.
    """
    from torch.nn import functional as F

    return F.softplus(below - above).mean()


class Relativistic(Method):
    """The critic learns from pairs of one class, then scores the same pairs for the generator."""

    Config = RelativisticConfig

    def __init__(self, config: RelativisticConfig, given: Given) -> None:
        from pagoda.networks.generator import Generator
        from pagoda.training.player import Player

        assert isinstance(given.network, Generator)
        self.config, self.images, c = config, given.images, config.critic
        self.generator = given.network
        self.critic = build_critic(c, given).to(given.device)
        optim = config.optim.rival(optimizer="adamw", lr=c.lr, beta1=c.beta1, beta2=c.beta2)
        self.player = Player(self.generator, config.optim, given.device)
        self.players = {
            "generator": self.player,
            # Penalties differentiate the network twice, which compiled code cannot.
            "critic": Player(self.critic, optim, given.device, main=False, compiled=not c.gamma),
        }
        self.period = c.penalty_every if c.gamma else 1

    def card(self) -> dict[str, Any]:
        """What it needed."""
        c = self.config.critic
        needs = ["data", "critic", *(["teacher's weights"] if c.kind == "teacher" else [])]
        return {"needs": needs, "critic": c.kind, "gamma": c.gamma, "nfe": [1]}

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """The critic's update, then the generator's."""
        from pagoda.training.micro_batch import in_parts

        n = self.config.optim.batch
        real, labels = draw.images(self.images, n)
        z = draw.normal(n, *self.generator.spec.shape, on=real.device, dtype=real.dtype)
        with self.player.autocast():
            made = in_parts(self.generator, self.config.optim.micro_batch, z, labels)
        yield self._critic_loss(draw, i, real, made.detach(), labels)
        self.critic.requires_grad_(False)
        with self.player.autocast():
            of_real, of_made = (self.critic(x, labels) for x in (real, made))
        loss = draw.mean(relativistic(of_made, of_real), n)
        yield Loss("generator", loss, stats={"loss": loss.detach()})

    def _critic_loss(
        self, draw: GlobalDraw, i: int, real: Tensor, made: Tensor, labels: Tensor
    ) -> Loss:
        """It takes whole batches: scores may depend on them, and penalties are of all of them."""
        import contextlib

        from pagoda.losses.adversarial import r1_penalty, twice_differentiable

        n, c = self.config.optim.batch, self.config.critic
        self.critic.requires_grad_(True)
        due = c.gamma > 0 and i % c.penalty_every == 0
        pair = [x.detach().requires_grad_(due) for x in (real, made)]
        with contextlib.ExitStack() as how:
            # Squares of gradients want full precision.
            how.enter_context(twice_differentiable() if due else self.player.autocast())
            of_real, of_made = (self.critic(x, labels) for x in pair)
        value = relativistic(of_real, of_made)
        stats = {"loss_d": value, "logit_real": of_real.mean(), "logit_fake": of_made.mean()}
        if due:
            r1, r2 = (r1_penalty(logits, x) for logits, x in zip((of_real, of_made), pair,
                                                                   strict=True))  # fmt: skip
            stats |= {"r1": r1, "r2": r2}
            value = value + c.gamma / 2 * c.penalty_every * (r1 + r2)
        return Loss("critic", draw.mean(value, n),
                    stats={key: draw.mean(v.detach(), n) for key, v in stats.items()})  # fmt: skip


def build_critic(config: CriticConfig, given: Given) -> nn.Module:
    """The critic, x (n, 3, r, r) and labels (n,) -> (n,), for images of the generator's resolution.

    Raises:
        PagodaError: the teacher's encoder is of another resolution.
    """
    import torch

    from pagoda.networks.discriminators import ConvDiscriminator
    from pagoda.networks.generator import Generator

    assert isinstance(given.network, Generator) and given.teacher is not None
    side, spec = given.network.resolution, given.network.spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(given.seed)
        if config.kind == "conv":
            widths = config.channels, config.max_channels
            made = ConvDiscriminator(side, *widths, spec.num_classes, spec.image_channels)
            return made.to(memory_format=torch.channels_last)
        teacher = given.teacher()
        known = teacher.spec.resolution
        if known != side:
            raise PagodaError(
                f"critic.kind = 'teacher': its encoder is of {known}x{known}, the images are "
                f"{side}x{side}; set critic.kind: conv"
            )
        return _critic(teacher, config.sigma).to(memory_format=torch.channels_last)


def _critic(teacher: Denoiser, sigma: float) -> nn.Module:
    """The teacher's encoder on images as they are: a noise level is told, no noise is added."""
    from torch import nn

    from pagoda.networks.encoder_logit import EncoderLogit
    from pagoda.networks.layers import at_least_float32

    class Critic(nn.Module):
        """Scores of images x (n, 3, r, r) with labels (n,)."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = EncoderLogit(teacher.net.trunk, teacher.sigma_data)

        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            return at_least_float32(self.encoder(x, x.new_full((len(x),), sigma), labels))

    return Critic()
