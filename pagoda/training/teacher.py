"""One step of stage 1: the diffusion teacher."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from pagoda import processes
from pagoda.diffusion.edm import sample_sigma
from pagoda.networks.denoiser import Denoiser
from pagoda.objectives.denoising import denoising_loss
from pagoda.objectives.edm_augment import NORMALS, UNIFORMS, draw_transforms, edm_augment
from pagoda.training.batches import ImageBatches
from pagoda.training.ema import EMA
from pagoda.training.optim import OptimSpec, autocast, reduce_gradients


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
        precision: ``"fp32"`` or ``"bf16"``.
        augment: probability of EDM's augmentations, 0 for none.
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
    ) -> None:
        self.denoiser, self.batches, self.batch = denoiser.train(), batches, batch
        self.p_mean, self.p_std, self.clip, self.precision = p_mean, p_std, clip, precision
        self.augment = augment
        self.optimizer = optim.build(denoiser.parameters())
        self.ema = EMA(denoiser, ema)
        self.modules: dict[str, nn.Module] = {"denoiser": denoiser, "ema": self.ema.model}
        self.optimizers = {"denoiser": self.optimizer}

    def __call__(self, step: int, progress: float) -> dict[str, Tensor | float]:
        """Draw a batch, take one optimiser step, update the average."""
        images, labels = self.batches.draw(self.batch)
        denoiser: Denoiser | partial[Tensor] = self.denoiser
        if self.augment:
            mine = processes.share(self.batch)
            uniforms, normals = torch.rand(self.batch, UNIFORMS), torch.randn(self.batch, NORMALS)
            transforms = draw_transforms(uniforms[mine], normals[mine], self.augment)
            images = edm_augment(images, transforms)
            denoiser = partial(self.denoiser, augment=transforms.labels.to(images))
        sigma, noise = self._noise(images)
        with autocast(images.device, self.precision):
            loss = denoising_loss(denoiser, images, labels, sigma, noise, self.denoiser.sigma_data)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * processes.portion(self.batch)).backward()
        reduce_gradients(self.denoiser.parameters())
        limit = self.clip if self.clip is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(self.denoiser.parameters(), limit)
        self.optimizer.step()
        self.ema.update(step)
        lr = self.optimizer.param_groups[0]["lr"]
        return {"loss": loss.detach(), "grad_norm": norm.detach(), "lr": lr}

    def rows(self) -> np.ndarray:
        """Indices of the training images of a step."""
        return self.batches.rows(self.batch)

    def _noise(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels and noise of this process's share; the whole batch is drawn everywhere."""
        mine, shape = processes.share(self.batch), (self.batch, *images.shape[1:])
        sigma = sample_sigma(self.batch, self.p_mean, self.p_std)[mine].to(images)
        noise = torch.empty(
            shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last
        ).normal_()
        processes.part_streams()
        return sigma, noise[mine]
