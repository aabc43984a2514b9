"""A network of diffusers as a denoiser D(x; sigma) of EDM's form, LCM as a consistency function.

The network sees c_in x with c_in = 1 / sqrt(1 + sigma^2), which is x_t of the schedule, and the
time t(sigma). What it gives, F, is one of (Salimans and Ho 2022, arXiv 2202.00512, section 4)

    epsilon:       D = x - sigma F
    v_prediction:  D = x / (1 + sigma^2) - sigma F / sqrt(1 + sigma^2)
    sample:        D = F.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.diffusion.solver import Denoiser
from pagoda.errors import PagodaError
from pagoda.text_to_image.schedule import NoiseSchedule

PREDICTIONS = "epsilon", "v_prediction", "sample"


class DiscreteDenoiser(nn.Module):
    """D(x; sigma, text) of a ``UNet2DConditionModel``.

    Attributes:
        empty: (1, l, d), what stands for no text; None until somebody sets it.
    """

    def __init__(self, unet: Any, schedule: NoiseSchedule, prediction: str) -> None:
        super().__init__()
        self.unet = unet
        self.config = unet.config
        self.schedule, self.prediction = schedule, prediction
        self.empty: Tensor | None = None
        self.channels = int(self.config.in_channels)
        if prediction not in PREDICTIONS:
            known = ", ".join(PREDICTIONS)
            raise PagodaError(f"its network predicts {prediction!r}; known: {known}")
        if (out := self.config.out_channels) not in (self.channels, 2 * self.channels):
            raise PagodaError(
                f"its U-Net takes {self.channels} channels and gives {out}; as many are an image, "
                "twice as many an image and a learned variance"
            )

    def forward(
        self, x: Tensor, sigma: Tensor, text: Tensor | None, weight: Tensor | None = None
    ) -> Tensor:
        """x (n, c, h, w), sigma (n,), text (n, l, d) -> (n, c, h, w).

        Args:
            x: images or latents with noise of level sigma.
            sigma: of each.
            text: what the text encoder makes of the prompts; None: :attr:`empty`.
            weight: (n,) of guidance, for a network that has an input for it; 1 is none.

        Raises:
            PagodaError: a level that the network does not know, or no ``empty`` where it is needed.
        """
        t = self.schedule.time(sigma)
        s = sigma[:, None, None, None].to(x.dtype)
        c_in = (1 + s**2).rsqrt()
        told: dict[str, Tensor] = {}
        if weight is not None:
            size = int(self.config.time_cond_proj_dim)
            told["timestep_cond"] = guidance_embedding(weight, size).to(x.dtype)
        text = self._no_text(len(x)) if text is None else text
        out = self.unet(c_in * x, t, encoder_hidden_states=text, return_dict=False, **told)[0]
        out = out[:, : self.channels]  # what follows is a learned variance, which no ODE needs
        if self.prediction == "epsilon":
            return x - s * out
        return out if self.prediction == "sample" else c_in**2 * x - s * c_in * out

    def _no_text(self, n: int) -> Tensor:
        if self.empty is None:
            raise PagodaError(
                "guidance needs what the text encoder makes of the empty prompt, and there is no "
                "text encoder; set 'empty', (1, l, d), or leave guidance at 1, which is none"
            )
        return self.empty.expand(n, -1, -1)


def dynamic_threshold(images: Tensor, fraction: float, most: float) -> Tensor:
    """Imagen's dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487, section 2.3).

    Each image is clamped to [-s, s] and divided by s, the ``fraction`` quantile of its absolute
    values, at least 1 and at most ``most``: with ``most`` 1 it is clamped to [-1, 1].
    """
    s = torch.quantile(images.flatten(1).abs(), fraction, dim=1).clamp(1, most)
    s = s[:, None, None, None]
    return images.clamp(-s, s) / s


@dataclass(frozen=True)
class Limits:
    """What becomes of the denoiser's images before a step, after guidance.

    Attributes:
        fraction, most: of :func:`dynamic_threshold`; None: none.
        clip: most that an absolute value may be, where there is no threshold; None: any.
    """

    fraction: float | None = None
    most: float = 1.0
    clip: float | None = None

    @classmethod
    def of(cls, scheduler: Any) -> Limits:
        """Those of a scheduler of diffusers."""
        config = scheduler.config
        if config.get("thresholding"):
            return cls(config["dynamic_thresholding_ratio"], config["sample_max_value"])
        if config.get("clip_sample"):
            return cls(clip=float(config.get("clip_sample_range", 1.0)))
        return cls()

    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w) within these limits."""
        if self.fraction is not None:
            return dynamic_threshold(images, self.fraction, self.most)
        return images if self.clip is None else images.clamp(-self.clip, self.clip)

    def apply(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser within these limits."""
        return lambda x, sigma, text: self(denoiser(x, sigma, text))


def guidance_embedding(weight: Tensor, size: int) -> Tensor:
    """(n,) weights of guidance -> (n, size) sines and cosines of 1000 (w - 1).

    LCM (Luo et al. 2023, arXiv 2310.04378, section 4.3) counts w - 1, so that 0 is none; here 1 is.
    Frequencies fall from 1 to 1e-4 geometrically.
    """
    half = size // 2
    at = torch.arange(half, dtype=torch.float32, device=weight.device) / max(half - 1, 1)
    angle = 1000 * (weight.float() - 1)[:, None] * torch.exp(-math.log(10000) * at)
    return F.pad(torch.cat([angle.sin(), angle.cos()], 1), (0, size % 2))


@dataclass(frozen=True)
class Consistency:
    """LCM's map from any noise level to the image, and the times that it was trained at.

    f(x, sigma) = c_out D(x; sigma) + c_skip c_in x with c_skip = sd^2 / (a^2 + sd^2) and c_out =
    a / sqrt(a^2 + sd^2), a = ``scaling`` t(sigma), sd = 0.5 (Luo et al. 2023, eq. 9): the image
    itself at t = 0.

    Attributes:
        denoiser: the network.
        limits: of its images.
        scaling: of times.
        trained: number of its times; they are evenly spaced and end at the last.
    """

    denoiser: DiscreteDenoiser
    limits: Limits
    scaling: float
    trained: int

    def __call__(self, x: Tensor, sigma: Tensor, text: Tensor, weight: float) -> Tensor:
        """x (n, c, h, w) with noise of level sigma (n,) -> (n, c, h, w) without."""
        a = (self.scaling * self.denoiser.schedule.time(sigma))[:, None, None, None].to(x.dtype)
        c_skip, c_out = 0.25 / (a**2 + 0.25), a * (a**2 + 0.25).rsqrt()
        c_in = (1 + sigma[:, None, None, None].to(x.dtype) ** 2).rsqrt()
        clean = self.limits(self.denoiser(x, sigma, text, x.new_full((len(x),), weight)))
        return c_out * clean + c_skip * c_in * x

    def times(self, steps: int) -> Tensor:
        """The times of sampling in ``steps`` steps, falling from the last.

        Raises:
            PagodaError: more steps than it was trained at, or none.
        """
        if not 1 <= steps <= self.trained:
            raise PagodaError(f"steps = {steps}; this model takes 1 to {self.trained} of them")
        every = len(self.denoiser.schedule.levels) // self.trained
        chosen = (torch.arange(steps, dtype=torch.float64) * (self.trained / steps)).long()
        return (self.trained - chosen) * every - 1

    def sample(
        self, x: Tensor, levels: Tensor, text: Tensor, weight: float,
        noise: Callable[[int], Tensor],
    ) -> Tensor:  # fmt: skip
        """Multistep consistency sampling (Song et al. 2023, arXiv 2303.01469, algorithm 1).

        x <- f(x, s) + s' e for levels s and the next, s'; the last is without noise.

        Args:
            x: (n, c, h, w) at the first level.
            levels: (k,) falling.
            text: (n, l, d).
            weight: of guidance, an input of the network; 1 is none.
            noise: the standard normal e (n, c, h, w) of step 1, 2, ...
        """
        for k, level in enumerate(levels.tolist()):
            x = x if k == 0 else x + level * noise(k)
            x = self(x, x.new_full((len(x),), level), text, weight)
        return x
