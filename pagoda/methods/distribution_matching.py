"""Distribution matching distillation: DMD2, and f-distill's weights.

DMD2 (Yin et al. 2024, arXiv 2405.14867) moves generated images by the difference of two scores at
the same noisy image, the teacher's (of the data) and a critic's (of what is generated), which is
trained beside; a discriminator on the critic's features sees noisy real and noisy generated images.
f-distill (Xu et al. 2025, arXiv 2502.15681) weighs the difference by h(r) of an f-divergence, with
the discriminator's density ratio r (:mod:`pagoda.losses.divergences`); DMD2 is its reverse KL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pagoda.errors import PagodaError
from pagoda.fields import Check, opt
from pagoda.losses.divergences import WEIGHTS
from pagoda.training.method import Given, Loss, Method
from pagoda.training.settings import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pagoda.networks.denoiser import Denoiser
    from pagoda.training.draw import GlobalDraw


@dataclass(frozen=True)
class CriticConfig:
    """The critic: a denoiser of generated images, with a discriminator's head."""

    lr: float = opt("learning rate", default=1e-3, gt=0)
    beta1: float = opt("Adam beta 1", default=0.0, ge=0, lt=1)
    beta2: float = opt("Adam beta 2", default=0.99, ge=0, lt=1)
    steps: int = opt("its updates before each of the generator's; DMD2: 5", default=5, ge=1)
    weight: float = opt("weight of the discriminator's loss beside its own", default=1e-2, ge=0)


@dataclass(frozen=True)
class DistributionMatchingConfig(MethodConfig):
    """Matching the teacher's distribution."""

    divergence: str = opt(
        "weight of the score difference; reverse_kl is DMD2", default="reverse_kl",
        choices=tuple(WEIGHTS),
    )  # fmt: skip
    alpha: float = opt("skew_js: weight of the data in the mixture", default=0.5, gt=0, lt=1)
    clamp: float = opt("largest |log r| that weights a gradient", default=10.0, gt=0)
    normalise: bool = opt(
        "divide the weights by their running mean in ten parts of the noise levels", default=False
    )
    adversarial_weight: float = opt(
        "weight of the discriminator in the generator's loss", default=3e-3, ge=0
    )
    ramp_from: float = opt("first place on EDM's ramp of noise levels", default=0.02, ge=0, lt=1)
    ramp_to: float = opt("last place", default=0.98, gt=0, le=1)
    critic: CriticConfig = opt("the critic", default=CriticConfig())

    def checks(self, at: str) -> Iterator[Check]:
        """A ramp has two ends, and a ratio needs its discriminator."""
        yield (self.ramp_from < self.ramp_to, f"{at}ramp_from", self.ramp_from,
               f"below {at}ramp_to = {self.ramp_to:g}")  # fmt: skip
        yield (self.divergence == "reverse_kl" or self.critic.weight > 0,
               f"{at}critic.weight", self.critic.weight,
               f"above 0 where {at}divergence is not reverse_kl: the ratio is the "
               "discriminator's")  # fmt: skip


def pull(made: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """(D_fake - D_real) / mean |x - D_real|, image by image: what a generated image is moved by.

    Args:
        made: generated images x (n, c, h, w).
        real: the teacher's denoised images of the noisy x.
        fake: the critic's.
    """
    size = (made - real).abs().mean((1, 2, 3), keepdim=True)
    return (fake - real) / size.clamp(min=1e-8)


class DistributionMatching(Method):
    """The critic learns what is generated, then the generator moves towards the teacher's law."""

    Config = DistributionMatchingConfig

    def __init__(self, config: DistributionMatchingConfig, given: Given) -> None:
        from pagoda.losses.weight_mean import WeightMean
        from pagoda.networks.generator import Generator
        from pagoda.training.player import Player

        assert isinstance(given.network, Generator) and given.teacher is not None
        self.config, self.images, self.diffusion = config, given.images, given.diffusion
        self.generator, c, side = given.network, config.critic, given.network.resolution
        teacher = given.teacher().to(given.device, given.images.dtype)
        self.teacher: Any = teacher.eval().requires_grad_(False)
        if self.teacher.spec.resolution != side:
            known = self.teacher.spec.resolution
            raise PagodaError(
                "distribution matching needs a teacher of the generator's resolution "
                f"{side}x{side}; this one knows {known}x{known}: use it in distill, not in grow"
            )
        self.critic: Any = build_critic(given.teacher(), given.seed).to(given.device)
        optim = config.optim.rival(optimizer="adamw", lr=c.lr, beta1=c.beta1, beta2=c.beta2)
        self.player = Player(self.generator, config.optim, given.device)
        self.players = {
            "generator": self.player,
            "critic": Player(self.critic, optim, given.device, main=False),
        }
        if config.normalise:
            self.means = WeightMean().to(given.device)
            self.modules = {"means": self.means}

    def card(self) -> dict[str, Any]:
        """What it needed, and what was minimised."""
        return {"needs": ["data", "teacher", "critic"], "divergence": self.config.divergence,
                "nfe": [1]}  # fmt: skip

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """The critic's updates, then the generator's."""
        for _ in range(self.config.critic.steps):
            yield self._critic_loss(draw)
        yield self._generator_loss(draw)

    def _critic_loss(self, draw: GlobalDraw) -> Loss:
        """Denoising of generated images and, where it is weighted, logistic loss of its head."""
        import torch
        from torch.nn import functional as F

        from pagoda.losses.denoising import denoising_loss
        from pagoda.training.micro_batch import in_parts

        n, c, most = self.config.optim.batch, self.config.critic, self.config.optim.micro_batch
        real, real_labels = draw.images(self.images, n)
        self.critic.requires_grad_(True)
        with torch.no_grad():
            made, labels = self._made(draw)
        sigma, _ = self._sigma(draw, made)
        noisy: list[tuple[Tensor, Tensor]] = []

        def denoise(x: Tensor, s: Tensor, y: Tensor | None) -> Tensor:
            assert y is not None
            denoised = in_parts(self.critic, most, x, s, y)
            noisy.append((s, denoised))
            return denoised

        noise = draw.noise(made, n)
        with self.player.autocast():
            loss = denoising_loss(denoise, made, labels, sigma, noise, self.teacher.sigma_data)
        stats = {"loss_critic": draw.mean(loss.detach(), n) / c.steps}
        if c.weight:
            seen = [(real, self._sigma(draw, real)[0], real_labels),
                    (made, self._sigma(draw, made)[0], labels)]  # fmt: skip
            of_real, of_made = (
                self._logits(x + s[:, None, None, None] * draw.noise(x, n), s, y)
                for x, s, y in seen
            )
            noisy += [(seen[0][1], of_real), (seen[1][1], of_made)]
            apart = F.softplus(-of_real).mean() + F.softplus(of_made).mean()
            stats["loss_d"] = draw.mean(apart.detach(), n) / c.steps
            loss = loss + c.weight * apart
        return Loss("critic", draw.mean(loss, n), stats=stats, noisy=noisy)

    def _generator_loss(self, draw: GlobalDraw) -> Loss:
        """1/2 || x - sg(x - h(r) pull) ||^2, whose gradient is the pull, and the discriminator."""
        import torch
        from torch.nn import functional as F

        from pagoda.training.micro_batch import in_parts

        c, n, most = self.config, self.config.optim.batch, self.config.optim.micro_batch
        self.critic.requires_grad_(False)
        made, labels = self._made(draw)
        sigma, at = self._sigma(draw, made)
        noisy = made + sigma[:, None, None, None] * draw.noise(made, n)
        logits = None
        if c.critic.weight and (c.adversarial_weight or c.divergence != "reverse_kl"):
            logits = self._logits(noisy, sigma, labels)
        with torch.no_grad(), self.player.autocast():
            real, fake = (in_parts(net, most, noisy, sigma, labels).to(made.dtype)
                          for net in (self.teacher, self.critic))  # fmt: skip
        moved = pull(made.detach(), real, fake)
        if c.divergence != "reverse_kl":
            assert logits is not None
            held = logits.detach().clamp(-c.clamp, c.clamp)
            weights = WEIGHTS[c.divergence](held, c.alpha)
            if c.normalise:
                weights = self.means(weights, at, draw.total)
            moved = weights[:, None, None, None] * moved
        matching = (made - (made.detach() - moved)).square().mean() / 2
        loss, stats = matching, {"loss_match": draw.mean(matching.detach(), n)}
        if logits is not None and c.adversarial_weight:
            fooled = F.softplus(-logits).mean()
            stats["loss_adv"] = draw.mean(fooled.detach(), n)
            loss = loss + c.adversarial_weight * fooled
        seen = [(sigma, out) for out in (real, fake, logits) if out is not None]
        return Loss("generator", draw.mean(loss, n), noisy=seen,
                    stats={"loss": draw.mean(loss.detach(), n)} | stats)  # fmt: skip

    def _made(self, draw: GlobalDraw) -> tuple[Tensor, Tensor]:
        """Images of prior latents and of random images' classes."""
        from pagoda.training.micro_batch import in_parts

        z, labels = draw.prior(self.images, self.config.optim.batch, self.generator.spec.shape)
        with self.player.autocast():
            return in_parts(self.generator, self.config.optim.micro_batch, z, labels), labels

    def _sigma(self, draw: GlobalDraw, like: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels (n,), uniform on a part of the ramp, and their places on it."""
        from pagoda.diffusion.edm import ramp

        c, d = self.config, self.diffusion
        at = draw.uniform(c.optim.batch).to(like) * (c.ramp_to - c.ramp_from) + c.ramp_from
        return ramp(at, d.sigma_max, d.sigma_min, d.rho), at

    def _logits(self, noisy: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """The discriminator's (n,), of noisy images."""
        from pagoda.training.micro_batch import in_parts

        with self.player.autocast():
            logits = in_parts(self.critic.logits, self.config.optim.micro_batch, noisy, sigma,
                              labels)  # fmt: skip
        return logits.to(noisy.dtype)


def build_critic(teacher: Denoiser, seed: int) -> nn.Module:
    """The teacher's copy, with a discriminator's head on its innermost features."""
    import torch
    from torch import nn

    from pagoda.networks.layers import MeanLogit

    class Critic(nn.Module):
        """A denoiser, and the logit of a noisy image being real."""

        def __init__(self) -> None:
            super().__init__()
            self.denoiser = teacher.requires_grad_(True)
            self.head = MeanLogit(teacher.spec.channels * teacher.spec.channel_mult[-1])

        def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            """x (n, 3, r, r), sigma (n,), labels (n,) -> denoised images."""
            denoised: Tensor = self.denoiser(x, sigma, labels)
            return denoised

        def logits(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            """As above -> (n,)."""
            s, trunk = self.denoiser.scalings(x, sigma), self.denoiser.net.trunk
            emb = trunk.embed(s.c_noise.flatten(), labels)
            found: Tensor = self.head(trunk.innermost(s.c_in * x, emb))
            return found

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Critic().to(memory_format=torch.channels_last)
