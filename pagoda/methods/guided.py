"""PaGoDA's objective under classifier-free guidance (arXiv 2405.14822, section 4).

Generator and discriminator are told the weight omega of p(x | c, omega) ~ p(x | c)^omega
p(x)^(1 - omega); omega = 1 is no guidance. For L_rec a latent is one of the guided inversion,
E(x, c, omega), and the generator is told that omega; for L_adv omega ~ pi, the law of the
inversion's weights. A real pair (x, c) gets omega_phi(x, c) by an estimator that learns from the
teacher's samples of known weights,

    min_phi E || omega - omega_phi(x_teacher(z, c, omega), c) ||^2,

so that the discriminator compares p(x | c, omega) with the generator's. In stage 3 the estimator
is the one that distillation left beside the generator, and sees real images at the base resolution.

A real image has latents E(x, c, omega) under every omega, but is a likely image of few. Under the
others they lie far from the prior: of the default images under omega = 4 their deviation is 1.5,
and prior latents, of deviation 1, are never near them. So stage 3 keeps the pairs whose omega is
within ``estimator.tolerance`` of omega_phi(x, c), which are triples of p(x, c) p(omega | x, c).
Their weights are pi there, for prior latents too: the paper's identity

    p(c) pi(omega) p(x | c, omega) = p(x, c) p(omega | x, c)

holds for that pi alone, and under another the discriminator tells images by their weight. Stage 2,
where nothing is estimated yet, is better taught by the teacher's samples, L_dstl
(``distill.loss.regression: noise_to_data``), as the paper's paragraph on limitations says it was.

Where labels are captions, ``clip_loss`` adds the similarity of what is generated from prior latents
to its caption, under the CLIP of the run whose text encoder the generator is told by, never the one
that scores samples. The paper does not state its weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from pagoda.errors import PagodaError
from pagoda.fields import Check, opt
from pagoda.methods.one_step import OneStep, OneStepConfig
from pagoda.training.method import Given, Loss

if TYPE_CHECKING:
    from torch import Tensor

    from pagoda.artifacts import Artifact
    from pagoda.networks.clip import Clip
    from pagoda.networks.guidance import ProductEstimator, WeightEstimator
    from pagoda.training.batches import PairBatches
    from pagoda.training.draw import GlobalDraw

ESTIMATOR = "estimator"
"""The estimator's weights beside the generator are ``estimator.safetensors``."""

_AT_ONCE = 512  # images that the estimator sees in one call


@dataclass(frozen=True)
class EstimatorConfig:
    """The estimator of the guidance weight of real images."""

    kind: str = opt(
        "what it sees: image, and the class or the caption's number; with captions, clip: products "
        "of CLIP's embeddings of image and caption, as the paper's does",
        default="image", choices=("image", "clip"),
    )  # fmt: skip
    channels: int = opt("width at the highest resolution of what it sees", default=16, ge=1)
    lr: float = opt("learning rate", default=1e-3, gt=0)
    init: str = opt(
        "in growth: what distillation left beside the generator, or random weights, which are to "
        "be counted only",
        default="below", choices=("below", "random"),
    )  # fmt: skip
    tolerance: float = opt(
        "in growth: how far the weight of a pair may be from the one that its image looks like",
        default=0.5, gt=0,
    )  # fmt: skip


@dataclass(frozen=True)
class ClipLossConfig:
    """The term of the generator's loss by which images follow captions."""

    weight: float = opt("its weight; 0 = none, and no CLIP is loaded", default=0.0, ge=0)
    kind: str = opt(
        "angle: the square of the angle between image and caption; cosine: minus its cosine",
        default="angle", choices=("angle", "cosine"),
    )  # fmt: skip


@dataclass(frozen=True)
class GuidedConfig(OneStepConfig):
    """The objective of stages 2 and 3 for generators that are told the weight."""

    estimator: EstimatorConfig = opt("estimator of the weight", default=EstimatorConfig())
    clip_loss: ClipLossConfig = opt(
        "with captions: similarity under the run's CLIP", default=ClipLossConfig()
    )

    def untrained(self) -> Self:
        """Backbones and the estimator with random weights."""
        return replace(super().untrained(), estimator=replace(self.estimator, init="random"))

    def checks(self, at: str) -> Iterator[Check]:
        """A discriminator that is told the weight."""
        kind = self.discriminator.kind
        yield (kind in ("conv", "tokens"), f"{at}discriminator.kind", kind,
               "conv or tokens, which are told the weight of the guidance")  # fmt: skip


class Guided(OneStep):
    """:class:`~pagoda.methods.one_step.OneStep` with omega as an input of both networks."""

    Config = GuidedConfig
    config: GuidedConfig
    weighted = True

    def __init__(self, config: GuidedConfig, given: Given) -> None:
        import torch

        from pagoda.networks.generator import Generator
        from pagoda.training.player import Player

        assert isinstance(given.network, Generator) and given.pairs is not None
        self.low, self.high = given.pairs.weight_range
        with torch.random.fork_rng(devices=[]):
            self.clip = _clip(config, given)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(given.seed + 1)
            if given.network.guidance is None:
                given.network.take_weights(self.low, self.high)
            self.estimator = self._estimator(config.estimator, given)
        self.estimator.to(given.device).to(memory_format=torch.channels_last)
        if given.teacher_pairs is None and config.estimator.init == "below":
            given = replace(given, pairs=self._likely(given.pairs, config.estimator.tolerance))
        super().__init__(config, given)
        if given.teacher_pairs is not None:
            self.samples = self.pairs if config.loss.regression == "noise_to_data" else (
                given.teacher_pairs()
            )  # fmt: skip
            optim = config.optim.rival(optimizer="adamw", lr=config.estimator.lr)
            self.players[ESTIMATOR] = Player(self.estimator, optim, given.device, main=False)
        else:
            self.estimator.requires_grad_(False)
            self.modules = {**self.modules, ESTIMATOR: self.estimator}

    def _estimator(
        self, config: EstimatorConfig, given: Given
    ) -> WeightEstimator | ProductEstimator:
        from pagoda.networks.captions import CaptionTable
        from pagoda.networks.generator import Generator
        from pagoda.networks.guidance import build_estimator

        assert isinstance(given.network, Generator)
        told_by, table = None, given.network.trunk.label
        if config.kind == "clip":
            assert self.clip is not None and isinstance(table, CaptionTable)
            told_by = self.clip, table.pooled.to(given.device)
        if given.teacher_pairs is None and config.init == "below":
            return load_estimator(given.below, told_by)
        spec = given.network.spec
        card = {"kind": config.kind, "resolution": spec.resolution, "channels": config.channels,
                "low": self.low, "high": self.high, "num_classes": spec.num_classes,
                "image_channels": spec.image_channels}  # fmt: skip
        return build_estimator(card, told_by)

    def _likely(self, pairs: PairBatches, tolerance: float) -> PairBatches:
        """The pairs whose images look like their weight."""
        import numpy as np
        import torch

        from pagoda.training.draw import GlobalDraw

        draw, seen = GlobalDraw(pairs.device), []
        with torch.no_grad():
            for first in range(0, len(pairs), _AT_ONCE):
                rows = np.arange(first, min(first + _AT_ONCE, len(pairs)))
                _, x, labels = draw.pairs_at(pairs, rows)
                off = self.estimator(x, labels) - pairs.weights_of(rows)
                seen.append((off.abs() <= tolerance).cpu().numpy())
        rows = np.flatnonzero(np.concatenate(seen))
        if not len(rows):
            raise PagodaError(
                f"no weight of {len(pairs)} pairs is within {tolerance:g} of what its image looks "
                "like; raise grow.estimator.tolerance"
            )
        return pairs.only(rows)

    def card(self) -> dict[str, Any]:
        """The objective, and what the estimator's weights belong to."""
        loss = self.config.clip_loss
        asked = {"clip_loss": vars(loss)} if loss.weight else {}
        return {**super().card(), **asked, ESTIMATOR: self.estimator.card()}

    def beside(self) -> dict[str, dict[str, Tensor]]:
        """The estimator."""
        return {ESTIMATOR: dict(self.estimator.state_dict())}

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """The estimator's update on samples of the teacher, then those of the objective."""
        if ESTIMATOR in self.players:
            yield self._estimator_loss(draw)
        if self.clip is not None and self.config.clip_loss.weight:
            yield self._clip_loss(draw, self.clip, progress)
        yield from super().step(draw, i, progress)

    def _estimator_loss(self, draw: GlobalDraw) -> Loss:
        n = self.config.optim.batch
        _, x, labels, omega = draw.guided_pairs(self.samples, n)
        with self.player.autocast():
            guess = self.estimator(x, labels)
        loss = (guess - omega).square().mean()
        stats = {"loss_omega": draw.mean(loss.detach(), n)}
        return Loss(ESTIMATOR, draw.mean(loss, n), stats=stats)

    def _clip_loss(self, draw: GlobalDraw, clip: Clip, progress: float) -> Loss:
        """Adds its gradient to the generator's next update, on prior latents of its own."""
        from torch.nn import functional as F

        from pagoda.losses.similarity import similarity_loss
        from pagoda.networks.captions import CaptionTable
        from pagoda.training.micro_batch import in_parts

        config, n = self.config, self.config.prior_batch
        most, spec = config.optim.micro_batch, self.generator.spec
        z = draw.normal(n, spec.image_channels, spec.resolution, spec.resolution,
                        on=self.pairs.device, dtype=self.images.dtype)  # fmt: skip
        labels, omega = self._prior_told(draw, n)
        with self.player.autocast():
            made = in_parts(self._made, most, z, labels, omega)
            found = in_parts(clip.images, most, made)
        table = self.generator.trunk.label
        assert isinstance(table, CaptionTable)
        captions = F.normalize(table.pooled[labels], dim=-1)
        loss = draw.mean(similarity_loss(config.clip_loss.kind, found, captions), n)
        alone = config.loss.regression == "none" and config.loss.ramp(progress) is None
        return Loss("generator", config.clip_loss.weight * loss, last=alone,
                    stats={"loss_clip": loss.detach()})  # fmt: skip

    def _pairs(self, draw: GlobalDraw, n: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        z, x, labels, omega = draw.guided_pairs(self.pairs, n)
        return z, x, [labels, omega]

    def _prior_told(self, draw: GlobalDraw, n: int) -> list[Tensor]:
        return [draw.labels(self.images, n), draw.weights(self.pairs, n).to(self.images.dtype)]

    def _real(self, draw: GlobalDraw, n: int) -> tuple[Tensor, list[Tensor]]:
        """Real images with their classes and the weights that they look like."""
        import torch

        real, labels = draw.images(self.images, n)
        with torch.no_grad(), self.player.autocast():
            omega = self.estimator(real, labels)
        return real, [labels, omega.to(real.dtype)]

    def _made(self, z: Tensor, *told: Tensor) -> Tensor:
        labels, omega = told
        return self.generator(z, labels, omega=omega)


def _clip(config: GuidedConfig, given: Given) -> Clip | None:
    """What ``clip_loss`` and ``estimator.kind`` ask; nothing is loaded without them.

    Raises:
        PagodaError: the generator is told classes, or there is no CLIP that may be asked.
    """
    from pagoda.networks.captions import CaptionTable
    from pagoda.networks.generator import Generator

    weight, kind = config.clip_loss.weight, config.estimator.kind
    if not weight and kind == "image":
        return None
    assert isinstance(given.network, Generator)
    if given.clip is None or not isinstance(given.network.trunk.label, CaptionTable):
        asked = f"clip_loss.weight = {weight:g}" if weight else f"estimator.kind = {kind}"
        without = "clip_loss.weight: 0" if weight else "estimator.kind: image"
        raise PagodaError(
            f"{asked} needs a generator that is told captions; set text.captions, or {without}"
        )
    return given.clip().requires_grad_(False).to(given.device, given.images.dtype)


def load_estimator(
    below: Artifact | None, told_by: tuple[Clip, Tensor] | None = None
) -> WeightEstimator | ProductEstimator:
    """The estimator beside a generator, in eval mode.

    Args:
        below: the generator.
        told_by: the CLIP and its embeddings of the captions, for an estimator that sees them.

    Raises:
        PagodaError: it has none, or weights and card do not belong together.
    """
    from pagoda.networks.guidance import build_estimator
    from pagoda.tensors import read_tensors
    from pagoda.weight_files import fitted

    facts = None if below is None else below.card().get(ESTIMATOR)
    if below is None or facts is None:
        where = "the generator" if below is None else str(below.path)
        raise PagodaError(
            f"{where} has no estimator of the guidance weight, which distill.method: guided leaves "
            "there; distil by it first"
        )
    kind, asked = facts.get("kind", "image"), "image" if told_by is None else "clip"
    if kind != asked:
        raise PagodaError(
            f"{below.path} has an estimator of kind {kind}, and {asked} is asked for; set "
            f"grow.estimator.kind: {kind}, or distil again"
        )
    file = below.path / f"{ESTIMATOR}.safetensors"
    try:
        return fitted(
            lambda card: build_estimator(card, told_by), read_tensors(file), facts | {"kind": kind}
        )
    except PagodaError as error:
        raise PagodaError(f"{file}: {error}; distil again") from error
