"""One step of stage 1: the diffusion teacher."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from pagoda import distributed
from pagoda.diffusion.edm import sample_sigma
from pagoda.losses.denoising import denoising_loss
from pagoda.losses.edm_augment import NORMALS, UNIFORMS, draw_transforms, edm_augment
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.unet import NO_CLASS
from pagoda.training import sharding
from pagoda.training.batches import ImageBatches, share_of_noise
from pagoda.training.ema import EMA, PowerAverages
from pagoda.training.micro_batch import slices
from pagoda.training.optim import OptimSpec, Updates, autocast


class TeacherStep:
    """EDM denoising on random batches.

    Args:
        denoiser: network to train, on the batches' device.
        batches: images and labels.
        batch: images a step.
        optim: optimiser.
        p_mean: mean of ln sigma.
        p_std: standard deviation of ln sigma.
        clip: largest gradient norm, or None.
        ema: decay of the weight average.
        precision: ``"fp32"``, ``"bf16"`` or, on a GPU, ``"fp16"``.
        augment: probability of EDM's augmentations, 0 for none.
        micro_batch: images a call of the network; None for this process's share of the batch.
        averages: further averages of the weights.
        label_dropout: probability that an image's class is not told, so that the network learns
            the unconditional denoiser too (classifier-free guidance, Ho and Salimans 2022).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        batches: ImageBatches,
        *,
        batch: int,
        optim: OptimSpec,
        p_mean: float,
        p_std: float,
        clip: float | None,
        ema: float,
        precision: str,
        augment: float = 0.0,
        micro_batch: int | None = None,
        averages: PowerAverages | None = None,
        label_dropout: float = 0.0,
    ) -> None:
        self.label_dropout = label_dropout
        self.denoiser, self.batches, self.batch = denoiser.train(), batches, batch
        self.p_mean, self.p_std, self.precision = p_mean, p_std, precision
        self.augment, self.micro_batch, self.averages = augment, micro_batch, averages
        self.ema = EMA(denoiser, ema)
        kept = averages.models.values() if averages else ()
        sharding.check(precision, [batch], micro_batch)
        sharding.shard(batches.device, denoiser, self.ema.model, *kept)
        self.optimizer = optim.build(denoiser.parameters())
        self.updates = Updates(self.optimizer, denoiser.parameters(), precision, clip)
        self.modules: dict[str, nn.Module] = {
            "denoiser": denoiser,
            "ema": self.ema.model,
            "updates": self.updates,
            **(averages.modules if averages else {}),
        }
        self.optimizers = {"denoiser": self.optimizer}

    def __call__(self, step: int, progress: float) -> dict[str, Tensor | float]:
        """Draw a batch, take one optimiser step, update the average."""
        images, labels = self.batches.draw(self.batch)
        described = None
        if self.augment:
            mine = distributed.local_rows(self.batch)
            uniforms, normals = torch.rand(self.batch, UNIFORMS), torch.randn(self.batch, NORMALS)
            transforms = draw_transforms(uniforms[mine], normals[mine], self.augment)
            images, described = edm_augment(images, transforms), transforms.labels.to(images)
        if self.label_dropout:
            dropped = (
                torch.rand(self.batch)[distributed.local_rows(self.batch)] < self.label_dropout
            )
            labels = labels.masked_fill(dropped.to(labels.device), NO_CLASS)
        sigma, noise = self._noise(images)
        total = torch.zeros((), device=images.device)
        for part in slices(len(images), self.micro_batch):
            row = images[part], labels[part], sigma[part], noise[part]
            loss = self._loss(*row, described if described is None else described[part])
            self.updates.backward(loss * (len(row[0]) / self.batch))
            total = total + loss.detach() * (len(row[0]) / len(images))
        norm = self.updates.step()
        self.ema.update(step)
        if self.averages:
            self.averages.update(step)
        return {"loss": total, "grad_norm": norm, "lr": self.optimizer.param_groups[0]["lr"]}

    def _loss(
        self, images: Tensor, labels: Tensor, sigma: Tensor, noise: Tensor, augment: Tensor | None
    ) -> Tensor:
        denoiser: Denoiser | partial[Tensor] = self.denoiser
        if augment is not None:
            denoiser = partial(self.denoiser, augment=augment)
        with autocast(images.device, self.precision):
            return denoising_loss(denoiser, images, labels, sigma, noise, self.denoiser.sigma_data)

    def rows(self) -> np.ndarray:
        """Indices of the training images of a step."""
        return self.batches.rows(self.batch)

    def prefetch(self, seed: int) -> None:
        """Start to read the batch of the step that begins with this seed."""
        self.batches.prefetch(self.batch, seed)

    def _noise(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels and noise of this process's share; the whole batch is drawn everywhere."""
        mine = distributed.local_rows(self.batch)
        sigma = sample_sigma(self.batch, self.p_mean, self.p_std)[mine].to(images)
        noise = share_of_noise(images, self.batch)
        distributed.part_streams()
        return sigma, noise
