"""One step of stages 2 and 3: a one-step generator against a discriminator (PaGoDA eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pagoda import distributed
from pagoda.losses.adversarial import (
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from pagoda.losses.augment import diff_augment
from pagoda.losses.noise_to_data import noise_to_data_loss
from pagoda.losses.reconstruction import feature_distance, reconstruction_loss
from pagoda.networks.discriminators import ConvDiscriminator, Discriminator
from pagoda.networks.generator import Generator
from pagoda.training import sharding
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.ema import EMA, PowerAverages
from pagoda.training.micro_batch import in_parts
from pagoda.training.optim import OptimSpec, Updates, autocast


@dataclass(frozen=True)
class OneStepSpec:
    """The objective L_regression + lambda L_adv and how it is trained.

    Attributes:
        batch: pairs a step, for the regression loss.
        prior_batch: prior latents and real images a step, for the adversarial loss.
        regression: ``reconstruction``, ``noise_to_data`` or ``none``.
        fakes: what the discriminator judges: images of ``prior`` latents, ``reconstructions`` of
            the pairs, or ``both``.
        feature_weight: weight of the distance of discriminator features of the pairs.
        adversarial: ``hinge``, ``non_saturating`` or ``none``.
        separate_update: the generator takes one optimiser step by the regression, then one by the
            adversarial loss; otherwise one by their sum.
        weighting: ``fixed`` lambda = weight; ``adaptive``: weight times the ratio of gradient
            norms, clamped to [weight_min, weight_max]; ``adaptive_squared``: of their squares.
        adversarial_start: share of training before the adversarial loss.
        adversarial_ramp: share of training over which lambda then rises from 0.
        r1: gamma of the R1 penalty, every ``r1_every`` steps.
        augment: DiffAugment what the discriminator sees.
        clip: largest gradient norm of the generator, or None.
        ema: decay of the generator's weight average.
        precision: ``fp32``, ``bf16`` or, on a GPU, ``fp16``.
        micro_batch: images whose activations a network keeps at once, None for all; see
            :meth:`OneStepStep.judge`.
    """

    batch: int
    prior_batch: int
    regression: str
    feature_weight: float
    adversarial: str
    fakes: str
    weighting: str
    weight: float
    weight_min: float
    weight_max: float
    adversarial_start: float
    adversarial_ramp: float
    r1: float
    r1_every: int
    augment: bool
    clip: float | None
    ema: float
    precision: str
    micro_batch: int | None = None
    separate_update: bool = False


class OneStepStep:
    """Both players' updates on one batch.

    The generator maps pairs and prior latents in one call; the discriminator learns from the
    fakes and from ``prior_batch`` real images, then judges the fakes for the generator.

    Args:
        distance: of generated and target images, called with a seed for its augmentation; None is
            the mean square over pixels.
        averages: further averages of the generator's weights.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        pairs: PairBatches,
        real: ImageBatches,
        spec: OneStepSpec,
        generator_optim: OptimSpec,
        discriminator_optim: OptimSpec,
        distance: nn.Module | None = None,
        averages: PowerAverages | None = None,
    ) -> None:
        self.generator, self.discriminator = generator.train(), discriminator.train()
        self.distance, self.averages = distance, averages
        self.pairs, self.real, self.spec = pairs, real, spec
        self.ema = EMA(generator, spec.ema)
        kept = averages.models.values() if averages else ()
        sharding.check(spec.precision, [spec.batch, spec.prior_batch], spec.micro_batch)
        sharding.shard(
            pairs.device, generator, self.ema.model, *kept, keep=Generator.last_block_weight
        )
        self.optimizers = {
            "generator": generator_optim.build(generator.parameters()),
            "discriminator": discriminator_optim.build(discriminator.parameters()),
        }
        made = self.optimizers
        self.updates = {
            "generator": Updates(
                made["generator"], generator.parameters(), spec.precision, spec.clip
            ),
            "discriminator": Updates(
                made["discriminator"], discriminator.parameters(), spec.precision, measured=False
            ),
        }
        self.modules: dict[str, nn.Module] = {
            "generator": generator,
            "discriminator": discriminator,
            "ema": self.ema.model,
            "updates": nn.ModuleDict(self.updates),
            **(averages.modules if averages else {}),
        }
        if distance is not None and distance.state_dict():  # random projections
            self.modules["distance"] = distance

    def __call__(self, step: int, progress: float) -> dict[str, Tensor | float]:
        """Update the discriminator, then the generator, then the average."""
        spec = self.spec
        ramp = self._ramp(progress)
        with_prior = ramp is not None and spec.fakes != "reconstructions"
        z, x, labels = self._latents_and_targets(with_prior)
        device = z.device
        images = self._generate(z, labels, len(x))
        rows = {"prior": slice(len(x), None), "reconstructions": slice(len(x))}
        judged = rows.get(spec.fakes, slice(None))
        fake, fake_labels = images[judged], labels[judged]
        stats: dict[str, Tensor | float] = {}
        if ramp is not None:
            real, real_labels = self.real.draw(spec.prior_batch)
            stats |= self._update_discriminator(step, real, real_labels, fake.detach(), fake_labels)
        loss, parts = self._regression(images[: len(x)], x, step, ramp is not None)
        update = loss * distributed.local_fraction(spec.batch)
        done = torch.zeros_like(update.detach())
        if spec.separate_update and ramp is not None:
            self._update_generator(update, step)
            done, update = update.detach(), done
            with autocast(device, spec.precision):
                fake = in_parts(self.generator, spec.micro_batch, z[judged], fake_labels)
        if ramp is not None:
            with autocast(device, spec.precision):
                logits = self._judge(fake, fake_labels, 2 * step + 1)
            adversarial = generator_loss(spec.adversarial, logits)
            portion = len(fake) / self._fakes()
            weight = self._weight(update, adversarial * portion) * ramp
            update = update + weight * (adversarial * portion)
            parts |= {"loss_adv": adversarial.detach() * self._per_pair(), "lambda": weight}
        total = done + update.detach()
        stats |= parts | {"loss": total / distributed.local_fraction(spec.batch)}
        stats |= self._update_generator(update, step)
        return stats

    def _generate(self, z: Tensor, labels: Tensor, pairs: int) -> Tensor:
        """Images of pairs, then of the prior; with separate updates these are fakes alone, and the
        generator's adversarial update makes its own.
        """
        spec = self.spec
        with autocast(z.device, spec.precision):
            if not spec.separate_update:
                return in_parts(self.generator, spec.micro_batch, z, labels)
            with torch.no_grad():
                prior = in_parts(self.generator, spec.micro_batch, z[pairs:], labels[pairs:])
            seen = in_parts(self.generator, spec.micro_batch, z[:pairs], labels[:pairs])
        return torch.cat([seen, prior])

    def rows(self) -> np.ndarray:
        """Indices of the training images of a step's pairs."""
        return self.pairs.indices[self.pairs.rows(self.spec.batch)]

    def prefetch(self, seed: int) -> None:
        """Start to read the pairs of the step that begins with this seed."""
        self.pairs.prefetch(self.spec.batch, seed)

    def _fakes(self) -> int:
        """Images of the generator that all processes together judge in a step."""
        pairs, prior = self.spec.batch, self.spec.prior_batch
        return {"prior": prior, "reconstructions": pairs}.get(self.spec.fakes, pairs + prior)

    def _per_pair(self) -> float:
        """Brings a mean over prior samples to the weights that the loop averages means over pairs
        with: shares of the two batches may differ between processes."""
        return distributed.local_fraction(self.spec.prior_batch) / distributed.local_fraction(
            self.spec.batch
        )

    def _ramp(self, progress: float) -> float | None:
        """Share of lambda in force, None before the adversarial loss starts."""
        start, length = self.spec.adversarial_start, self.spec.adversarial_ramp
        if self.spec.adversarial == "none" or progress < start:
            return None
        return min(1.0, (progress - start) / length) if length else 1.0

    def _latents_and_targets(self, with_prior: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Latents of pairs, then of the prior; images of the pairs; labels of all latents."""
        z, x, labels = self.pairs.draw(self.spec.batch)
        if self.spec.regression == "none":
            z, x, labels = z[:0], x[:0], labels[:0]
        if with_prior:
            n, mine = self.spec.prior_batch, distributed.local_rows(self.spec.prior_batch)
            prior = torch.randn(n, *z.shape[1:], device=z.device, dtype=z.dtype)[mine]
            rows = torch.randint(len(self.real.labels), (n,))[mine].numpy()
            prior_labels = torch.from_numpy(self.real.labels[rows]).to(z.device)
            z, labels = torch.cat([z, prior]), torch.cat([labels, prior_labels])
        return z.contiguous(memory_format=torch.channels_last), x, labels

    def _regression(
        self, images: Tensor, x: Tensor, step: int, with_features: bool
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        if self.spec.regression == "none":
            return images.new_zeros(()), {}
        dstl = self.spec.regression == "noise_to_data"
        if self.distance is None:
            loss = (noise_to_data_loss if dstl else reconstruction_loss)(images, x)
        else:
            with autocast(images.device, self.spec.precision):
                loss = self.distance(images, x, step)
        stats: dict[str, Tensor | float] = {"loss_dstl" if dstl else "loss_rec": loss.detach()}
        if self.spec.feature_weight and with_features:
            with autocast(images.device, self.spec.precision):
                with torch.no_grad():
                    target = self.discriminator.features(x)
                distance = feature_distance(self.discriminator.features(images), target)
            stats["loss_features"] = distance.detach()
            loss = loss + self.spec.feature_weight * distance
        return loss, stats

    def _weight(self, regression: Tensor, adversarial: Tensor) -> Tensor | float:
        spec = self.spec
        if spec.weighting == "fixed" or spec.regression == "none":
            return spec.weight
        last, squared = self.generator.last_block_weight(), spec.weighting == "adaptive_squared"
        losses = [self.updates["generator"].scaled(loss) for loss in (regression, adversarial)]
        ratio = adaptive_weight(losses[0], losses[1], last, 0.0, 1e4, squared=squared)
        return (spec.weight * ratio).clamp(spec.weight_min, spec.weight_max)

    def _judge(self, images: Tensor, labels: Tensor, draw: int) -> Tensor:
        if not self.spec.augment:
            return self.judge(images, labels)
        count = self.discriminator.views
        views = [self._augment(images, draw * count + i) for i in range(count)]
        return self.judge(views if count > 1 else views[0], labels)

    def judge(self, images: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """The discriminator's logits of images, or of a list with a view for each of its networks.

        In micro batches the convolutional one computes its features in parts and its statistic of
        the batch on the whole, so that nothing changes but memory. The others normalise over the
        batch in every layer of their heads, and R1 needs second derivatives: they take the whole.
        """
        most = self.spec.micro_batch
        if most is not None and isinstance(self.discriminator, ConvDiscriminator):
            assert isinstance(images, Tensor)  # it has one view
            last = in_parts(self._last_map, most, images)
            return self.discriminator.classify(last, labels)
        return self.discriminator(images, labels)

    def _last_map(self, images: Tensor) -> Tensor:
        return self.discriminator.features(images)[-1]

    def _augment(self, images: Tensor, draw: int) -> Tensor:
        """DiffAugment; prior samples and real images share a draw, whoever holds which of them."""
        mine = distributed.local_rows(self.spec.prior_batch)
        if len(images) == mine.stop - mine.start:
            return diff_augment(images, draw, self.spec.prior_batch)
        return diff_augment(images, draw, len(images) * distributed.world_size())

    def _update_discriminator(
        self, step: int, real: Tensor, real_labels: Tensor, fake: Tensor, fake_labels: Tensor
    ) -> dict[str, Tensor | float]:
        spec, updates = self.spec, self.updates["discriminator"]
        self.discriminator.requires_grad_(True)
        with autocast(real.device, spec.precision):
            real_logits = self._judge(real, real_labels, 2 * step)
            fake_logits = self._judge(fake, fake_labels, 2 * step)
        loss = discriminator_loss(spec.adversarial, real_logits, fake_logits)
        total = loss
        if spec.r1 and step % spec.r1_every == 0:
            real = real.detach().requires_grad_(True)
            penalty = r1_penalty(self.discriminator(real, real_labels), real)
            total = loss + spec.r1 / 2 * spec.r1_every * penalty
        updates.backward(total * distributed.local_fraction(spec.prior_batch))
        updates.step()
        self.discriminator.requires_grad_(False)
        return {
            "loss_d": loss.detach() * self._per_pair(),
            "logit_real": real_logits.detach().mean() * self._per_pair(),
            "logit_fake": fake_logits.detach().mean() * self._per_pair(),
        }

    def _update_generator(self, loss: Tensor, step: int) -> dict[str, Tensor | float]:
        updates = self.updates["generator"]
        updates.backward(loss)
        norm = updates.step()
        self.ema.update(step)
        if self.averages:
            self.averages.update(step)
        return {"grad_norm": norm, "lr": self.optimizers["generator"].param_groups[0]["lr"]}
