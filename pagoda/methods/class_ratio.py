"""One-step training by class-ratio estimation, without a teacher's score (arXiv 2502.08005).

Re-derived, after the abstract: the paper's body could not be read. What is not in it is our choice.

A classifier l(x_t, t, y) tells noised real images from noised generated ones; at its optimum it is
log r, r = p_t / q_t, the ratio of their densities at noise level t (logistic regression, equal
priors). The generator x = G(z, y) descends a divergence between the two at all noise levels,

    D_f = E_t w(t) E_{q_t} f(p_t / q_t),
    grad D_f = - E_t w(t) E[ h(r) grad_x log r(x_t) dx/dtheta ],    h(r) = r^2 f''(r),

since E_q grad log q = 0: the gradient passes through the classifier's input, weighted by h
(:mod:`pagoda.losses.divergences`), and no score network is needed.

The ratio network stays beside the generator that it trained, in :data:`RATIO_FILE`, since it can
tell good samples from bad ones (:mod:`pagoda.pipeline.stages.verify`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pagoda.errors import PagodaError
from pagoda.fields import Check, opt
from pagoda.losses.divergences import WEIGHTS
from pagoda.training.method import Given, Loss, Method
from pagoda.training.settings import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pagoda.networks.generator import Generator
    from pagoda.training.draw import GlobalDraw

RATIO_FILE = "ratio.safetensors"
"""The ratio network's weights in the folder of the generator; its card has the rest."""
STARTS = ("teacher", "shuffled", "encoder", "features", "random", "map")
_ENCODER = ("trunk.time", "trunk.label", "trunk.augment", "trunk.stem", "trunk.encoder",
            "trunk.middle")  # fmt: skip
_ENDS = ("trunk.stem", "head")


@dataclass(frozen=True)
class RatioConfig:
    """The ratio network, and how it is trained."""

    init: str = opt(
        "where its encoder comes from: the teacher's weights, the same in random order within each "
        "tensor, or random ones",
        default="teacher", choices=("teacher", "shuffled", "random"),
    )  # fmt: skip
    lr: float = opt("learning rate", default=1e-3, gt=0)
    beta1: float = opt("Adam beta 1", default=0.0, ge=0, lt=1)
    beta2: float = opt("Adam beta 2", default=0.99, ge=0, lt=1)
    steps: int = opt("its updates before each of the generator's", default=2, ge=1)
    warm_up: float = opt(
        "fraction of training, at the beginning, in which it trains alone", default=0.0, ge=0, lt=1
    )
    freeze_after: float | None = opt(
        "fraction of training after which it stays as it is; null = it trains to the end",
        default=None, ge=0, le=1,
    )  # fmt: skip
    spectral_norm: bool = opt("spectral normalisation of its layers", default=False)
    r1: float = opt("weight gamma of the R1 penalty; 0 = none", default=0.0, ge=0)
    r1_every: int = opt("steps between R1 penalties", default=8, ge=1)

    def checks(self, at: str) -> Iterator[Check]:
        """It is trained at all."""
        after = self.freeze_after
        yield (after is None or after >= self.warm_up, f"{at}freeze_after", after,
               f"at least {at}warm_up = {self.warm_up:g}")  # fmt: skip


@dataclass(frozen=True)
class ClassRatioConfig(MethodConfig):
    """The generator against an estimated density ratio."""

    divergence: str = opt(
        "what the generator minimises", default="reverse_kl", choices=tuple(WEIGHTS)
    )
    alpha: float = opt("skew_js: weight of the data in the mixture", default=0.5, gt=0, lt=1)
    clamp: float = opt("largest |log r| that weights a gradient", default=10.0, gt=0)
    normalise: bool = opt(
        "divide the weights by their running mean in ten parts of the noise levels", default=False
    )
    noise_weight: str = opt(
        "w of a noise level: 1, or its square, as in units of the denoised image",
        default="square", choices=("constant", "square"),
    )  # fmt: skip
    sigma_low: float = opt("smallest noise level", default=0.1, gt=0)
    sigma_high: float = opt("largest noise level", default=5.0, gt=0)
    curriculum: float = opt(
        "fraction of training over which the smallest noise level in use falls from the largest",
        default=0.0, ge=0, le=1,
    )  # fmt: skip
    start: str = opt(
        "the generator's weights at the beginning: the teacher's; the same in random order within "
        "each tensor; the teacher's encoder alone; all but its first and last layers (features); "
        "random; or random, learning the teacher's one-step images at first (map)",
        default="teacher", choices=STARTS,
    )  # fmt: skip
    mapping: float = opt(
        "start: map: fraction of training in which it first learns these", default=0.5, gt=0, lt=1
    )
    sigma_start: float | None = opt(
        "noise level that a base generator takes its latents for; null: diffusion.sigma_max, where "
        "the teacher's images hardly depend on them", default=2.5, gt=0,
    )  # fmt: skip
    ratio: RatioConfig = opt("the ratio network", default=RatioConfig())

    def checks(self, at: str) -> Iterator[Check]:
        """Noise levels have two ends."""
        yield (self.sigma_low < self.sigma_high, f"{at}sigma_low", self.sigma_low,
               f"below {at}sigma_high = {self.sigma_high:g}")  # fmt: skip


class ClassRatio(Method):
    """The ratio network learns, then moves the generator; both see noise levels of the same law.

    Noise levels are uniform on EDM's ramp (Karras et al. 2022, eq. 5) from ``sigma_high`` to
    ``sigma_low``; those of real and of generated images are drawn independently.
    """

    Config = ClassRatioConfig

    def __init__(self, config: ClassRatioConfig, given: Given) -> None:
        from pagoda.losses.weight_mean import WeightMean
        from pagoda.networks.generator import Generator
        from pagoda.training.player import Player

        assert isinstance(given.network, Generator)
        self.config, self.images, self.rho = config, given.images, given.diffusion.rho
        self.generator, r = given.network, config.ratio
        self.ratio: Any = build_ratio(config.ratio, given).to(given.device)
        self.mapped = config.mapping if config.start == "map" else 0.0
        told(given.network, config.sigma_start)
        if self.mapped:
            origin = copy.deepcopy(given.network).to(given.device, given.images.dtype)
            self.origin: Any = origin.eval().requires_grad_(False)
        restart(given.network, config.start, given.seed)
        optim = config.optim.rival(optimizer="adamw", lr=r.lr, beta1=r.beta1, beta2=r.beta2)
        self.player = Player(self.generator, config.optim, given.device)
        self.players = {
            "generator": self.player,
            # R1 differentiates the network twice, which compiled code cannot.
            "ratio": Player(self.ratio, optim, given.device, main=False, compiled=not r.r1),
        }
        _iterate(self.ratio)
        self.period = r.r1_every if r.r1 else 1
        self.turns = tuple(t for t in (r.warm_up, r.freeze_after, self.mapped) if t)
        if config.normalise:
            self.means = WeightMean().to(given.device)
            self.modules = {"means": self.means}

    def card(self) -> dict[str, Any]:
        """What was minimised, that it is not the paper's own text, and what the ratio knows."""
        c = self.config
        about = {"unet": self.ratio.trunk.spec.to_card(), "sigma_data": self.ratio.sigma_data,
                 "sigma_low": c.sigma_low, "sigma_high": c.sigma_high, "rho": self.rho}  # fmt: skip
        return {"needs": ["data", "ratio network", "teacher's weights"], "nfe": [1], "ratio": about,
                "divergence": c.divergence, "start": c.start,
                "source": "re-derived, after the abstract"}  # fmt: skip

    def beside(self) -> dict[str, dict[str, Tensor]]:
        """The ratio network, :data:`RATIO_FILE`."""
        return {RATIO_FILE.removesuffix(".safetensors"): ratio_weights(self.ratio)}

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """The ratio network's updates, then the generator's."""
        ratio = self.config.ratio
        if ratio.freeze_after is None or progress < ratio.freeze_after:
            for _ in range(ratio.steps):
                yield self._ratio_loss(draw, i, progress)
        if progress >= ratio.warm_up:
            done = progress >= self.mapped
            yield self._generator_loss(draw, progress) if done else self._map_loss(draw)

    def _ratio_loss(self, draw: GlobalDraw, i: int, progress: float) -> Loss:
        """E softplus(-l(real)) + E softplus(l(generated)), at independent noise levels."""
        import torch
        from torch.nn import functional as F

        from pagoda.losses.adversarial import r1_penalty, twice_differentiable

        n, r = self.config.optim.batch, self.config.ratio
        real, labels = draw.images(self.images, n)
        self.ratio.requires_grad_(True)
        _iterate(self.ratio)
        with torch.no_grad():
            made, made_labels = self._made(draw)
        of_real, at_real = self._logits(draw, progress, real, labels)
        of_made, at_made = self._logits(draw, progress, made, made_labels)
        apart = F.softplus(-of_real).mean() + F.softplus(of_made).mean()
        value = draw.mean(apart, n)
        if r.r1 and i % r.r1_every == 0:
            seen = real.detach().requires_grad_(True)
            with twice_differentiable():
                logits, _ = self._logits(draw, progress, seen, labels, whole=True)
            value = value + draw.mean(r.r1 / 2 * r.r1_every * r1_penalty(logits, seen), n)
        noisy = [(self._sigma(at_real), of_real), (self._sigma(at_made), of_made)]
        return Loss("ratio", value, noisy=noisy, stats={
            "loss_ratio": draw.mean(apart.detach(), n) / r.steps,
            "logit_real": draw.mean(of_real.detach().mean(), n) / r.steps,
            "logit_fake": draw.mean(of_made.detach().mean(), n) / r.steps,
        })  # fmt: skip

    def _generator_loss(self, draw: GlobalDraw, progress: float) -> Loss:
        """- E w(t) h(r) l, its weights constants: the gradient of the divergence."""
        n = self.config.optim.batch
        self.ratio.requires_grad_(False)
        made, labels = self._made(draw)
        logits, at = self._logits(draw, progress, made, labels)
        held = logits.detach().clamp(-self.config.clamp, self.config.clamp)
        weights = WEIGHTS[self.config.divergence](held, self.config.alpha)
        if self.config.normalise:
            weights = self.means(weights, at, draw.total)
        sigma = self._sigma(at)
        w = sigma.square() if self.config.noise_weight == "square" else 1.0
        loss = draw.mean(-(w * weights * logits).mean(), n)
        stats = {"loss": loss.detach(), "weight": draw.mean(weights.mean(), n)}
        return Loss("generator", loss, stats=stats, noisy=[(sigma, logits)])

    def _map_loss(self, draw: GlobalDraw) -> Loss:
        """Mean square to what the teacher's weights make of the same latents in one step."""
        import torch
        from torch.nn import functional as F

        z, labels = self._prior(draw)
        with torch.no_grad():
            wanted = self._images(self.origin, z, labels)
        loss = F.mse_loss(self._images(self.generator, z, labels), wanted)
        loss = draw.mean(loss, self.config.optim.batch)
        return Loss("generator", loss, stats={"loss": loss.detach()})

    def _made(self, draw: GlobalDraw) -> tuple[Tensor, Tensor]:
        """Images of prior latents and of random images' classes."""
        z, labels = self._prior(draw)
        return self._images(self.generator, z, labels), labels

    def _prior(self, draw: GlobalDraw) -> tuple[Tensor, Tensor]:
        return draw.prior(self.images, self.config.optim.batch, self.generator.spec.shape)

    def _images(self, generator: nn.Module, z: Tensor, labels: Tensor) -> Tensor:
        from pagoda.training.micro_batch import in_parts

        with self.player.autocast():
            return in_parts(generator, self.config.optim.micro_batch, z, labels)

    def _logits(
        self, draw: GlobalDraw, progress: float, images: Tensor, labels: Tensor,
        *, whole: bool = False,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """log r (n,) of images at drawn noise levels, and these levels' places on the ramp."""
        from pagoda.training.micro_batch import in_parts

        n, c = self.config.optim.batch, self.config
        lowest = min(1.0, progress / c.curriculum) if c.curriculum else 1.0
        at = lowest * draw.uniform(n).to(images)
        sigma = self._sigma(at)
        noisy = images + sigma[:, None, None, None] * draw.noise(images, n)
        most = None if whole else c.optim.micro_batch
        with self.player.autocast():
            return in_parts(self.ratio, most, noisy, sigma, labels).to(images.dtype), at

    def _sigma(self, at: Tensor) -> Tensor:
        from pagoda.diffusion.edm import ramp

        return ramp(at, self.config.sigma_high, self.config.sigma_low, self.rho)


def told(generator: Generator, sigma: float | None) -> None:
    """Take latents for noise of that level, in the generator's card too; not where it is grown."""
    if sigma is not None and not generator.levels:
        generator.sigma_max, s = sigma, generator.sigma_data
        if generator.output_scale != 1:  # c_out
            generator.output_scale = sigma * s / math.hypot(sigma, s)


def restart(generator: Generator, start: str, seed: int) -> None:
    """Put other weights in the place of the teacher's, as one of :data:`STARTS` says.

    Raises:
        PagodaError: the generator was grown, or its weights are spread over processes.
    """
    import torch

    from pagoda.networks.generator import build_generator
    from pagoda.training import sharding

    if start == "teacher":
        return
    if generator.levels or sharding.wanted():
        why = "grown" if generator.levels else f"sharded ({sharding.SHARD}=1)"
        raise PagodaError(f"start = {start!r}: the generator is {why}; set start: teacher")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        fresh = build_generator(generator.card()).state_dict()
        for name, weights in generator.named_parameters():
            kept = {"encoder": name.startswith(_ENCODER), "features": not name.startswith(_ENDS)}
            if not kept.get(start, start == "shuffled"):
                weights.copy_(fresh[name])
        if start == "shuffled":
            shuffle(generator)


def shuffle(network: nn.Module) -> None:
    """Put the numbers of each tensor in random order: every layer keeps its law, and no feature."""
    import torch

    for weights in network.parameters():
        order = torch.randperm(weights.numel(), device="cpu").to(weights.device)
        weights.data.copy_(weights.data.flatten()[order].reshape(weights.shape))


def build_ratio(config: RatioConfig, given: Given) -> nn.Module:
    """The ratio network for images of the generator's resolution.

    Raises:
        PagodaError: the teacher's encoder is of another resolution.
    """
    import torch
    from torch.nn.utils.parametrizations import spectral_norm

    from pagoda.networks.encoder_logit import EncoderLogit
    from pagoda.networks.generator import Generator
    from pagoda.networks.unet import UNetTrunk

    assert isinstance(given.network, Generator) and given.teacher is not None
    teacher, side = given.teacher(), given.network.resolution
    spec = teacher.spec
    if config.init != "random" and spec.resolution != side:
        raise PagodaError(
            f"ratio.init = {config.init!r}: its encoder is of {spec.resolution}x{spec.resolution}, "
            f"the images are {side}x{side}; set ratio.init: random"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(given.seed)
        if config.init != "random":
            trunk = teacher.net.trunk
        else:
            more = (side // spec.resolution).bit_length() - 1
            mult = (spec.channel_mult[0],) * more + tuple(spec.channel_mult)
            trunk = UNetTrunk(replace(spec, resolution=side, channel_mult=mult))
        network = EncoderLogit(trunk, teacher.sigma_data)
        if config.init == "shuffled":
            shuffle(network.trunk)
        if config.spectral_norm:
            for layer in list(network.modules()):
                if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                    if not layer.weight.any():  # has no norm to be divided by
                        layer.reset_parameters()
                    spectral_norm(layer)
    return network.to(memory_format=torch.channels_last)


def ratio_weights(network: nn.Module) -> dict[str, Tensor]:
    """Weights of a ratio network by name, each with its spectral norm as it is now."""
    state = {k: v for k, v in network.state_dict().items() if "parametrizations." not in k}
    for name, module in network.named_modules():
        for key in getattr(module, "parametrizations", ()):
            state[f"{name}.{key}"] = getattr(module, key)
    return state


def _iterate(network: nn.Module) -> None:
    """One power iteration of every spectral norm. However often the network is called until the
    next one, and in how many parts, its weights stay the same.
    """
    import torch

    for module in network.modules():
        if parametrized := getattr(module, "parametrizations", None):
            for name in parametrized:
                norm = parametrized[name][0]
                if hasattr(norm, "n_power_iterations"):
                    with torch.no_grad():
                        norm.train()(parametrized[name].original)
                    norm.eval()
