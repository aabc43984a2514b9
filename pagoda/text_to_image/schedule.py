"""The noise levels of a network trained in discrete steps, as EDM counts them.

Such a network saw x_t = sqrt(abar_t) x + sqrt(1 - abar_t) e for t = 0, 1, ..., T - 1. Divided by
sqrt(abar_t) that is x + sigma_t e with sigma_t = sqrt((1 - abar_t) / abar_t), EDM's form (Karras et
al. 2022, appendix B.2). Between whole t, log sigma is linear in t, as in k-diffusion.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pagoda.errors import PagodaError

_ROUNDING = 1e-6  # of a level in float32, relative
USUAL_SIGMA_MAX = 80.0
"""Where sampling and inversion end unless told otherwise: EDM's largest level (table 1), where
images are 1/80 of the noise. IF's steps go on to 20,291, eight steps later."""


@dataclass(frozen=True)
class NoiseSchedule:
    """sigma <-> t.

    Attributes:
        levels: (T,) float64, sigma_t of t = 0, 1, ..., rising and finite.
    """

    levels: Tensor

    @classmethod
    def of(cls, alphas_cumprod: Tensor) -> NoiseSchedule:
        """From abar_t (T,).

        Steps at the end whose signal is exactly zero (infinite sigma) are left out: no EDM form
        reaches them.

        Raises:
            PagodaError: these fall nowhere to no signal, or not in order.
        """
        abar = alphas_cumprod.double().cpu()
        levels = ((1 - abar) / abar).sqrt()
        levels = levels[: int((abar > 0).sum())]
        rising = len(levels) > 1 and bool((levels.diff() > 0).all()) and bool(levels[0] > 0)
        if not rising or not bool(levels.isfinite().all()):
            raise PagodaError("its noise schedule is no falling signal between 1 and 0")
        return cls(levels)

    @property
    def sigma_min(self) -> float:
        """The smallest level that the network knows, at t = 0."""
        return float(self.levels[0])

    @property
    def sigma_max(self) -> float:
        """The largest."""
        return float(self.levels[-1])

    @property
    def usual_max(self) -> float:
        """The largest level, or :data:`USUAL_SIGMA_MAX` if that is less."""
        return min(self.sigma_max, USUAL_SIGMA_MAX)

    def sigma(self, times: Tensor) -> Tensor:
        """Levels of times t in [0, T - 1], float64.

        Raises:
            PagodaError: a time is outside.
        """
        t, last = times.double(), len(self.levels) - 1
        if bool(((t < 0) | (t > last)).any()):
            raise PagodaError(f"there is no time {t.tolist()}; the network knows 0 to {last}")
        below = t.floor().long().clamp(max=last - 1)
        logs = self.levels.log().to(t.device)
        return torch.lerp(logs[below], logs[below + 1], t - below).exp()

    def time(self, sigma: Tensor) -> Tensor:
        """Times t of levels, float64: the inverse of :meth:`sigma`.

        Raises:
            PagodaError: a level is outside.
        """
        self.check(sigma)
        logs, at = self.levels.log().to(sigma.device), sigma.double().log()
        above = torch.searchsorted(logs, at).clamp(1, len(logs) - 1)
        t = above - 1 + (at - logs[above - 1]) / (logs[above] - logs[above - 1])
        return t.clamp(0, len(logs) - 1)

    def check(self, sigma: Tensor | float) -> None:
        """Refuse levels that the network was never trained on.

        Raises:
            PagodaError: one is below :attr:`sigma_min` or above :attr:`sigma_max`.
        """
        low, high = (float(s) for s in torch.as_tensor(sigma, dtype=torch.float64).aminmax())
        least, most = self.sigma_min * (1 - _ROUNDING), self.sigma_max * (1 + _ROUNDING)
        if not (least <= low and high <= most):
            wrong = high if least <= low else low
            raise PagodaError(
                f"the noise level sigma = {wrong:g} is outside what this network was trained on, "
                f"{self.sigma_min:.4g} to {self.sigma_max:.6g}; ask for levels in this range"
            )
