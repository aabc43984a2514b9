"""A network of three colours and 15 weights: small enough to record what others do with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SIGMA_DATA = 0.5
DOUBLE = torch.float64


class Toy(nn.Module):
    """F(x, c) = tanh(A x + b c + d), pixel by pixel, in the forms that objectives want it in."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.mix, self.level, self.bias = (nn.Parameter(w.clone()) for w in weights)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """EDM's denoiser, or consistency function: c_skip x + c_out F(c_in x, ln(sigma) / 4)."""
        s = sigma[:, None, None, None]
        total = (s**2 + SIGMA_DATA**2).sqrt()
        out = self.raw(x / total, sigma.log() / 4)
        return SIGMA_DATA**2 / total**2 * x + s * SIGMA_DATA / total * out

    def raw(self, x: Tensor, level: Tensor) -> Tensor:
        """x (n, 3, r, r), level (n,) -> (n, 3, r, r)."""
        mixed = torch.einsum("cd,ndhw->nchw", self.mix, x)
        shift = self.level * level[:, None] + self.bias
        return (mixed + shift[:, :, None, None]).tanh()

    def velocity(self, z: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """An average velocity u(z, r, t)."""
        return self.raw(z, t) * (1 + r * t)[:, None, None, None]

    def logits(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """A discriminator's, (n,)."""
        return 3 * self.raw(x, sigma.log() / 4).mean((1, 2, 3))


def weights(seed: int) -> list[Tensor]:
    """Of a :class:`Toy`."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=DOUBLE) for shape in ((3, 3), (3,), (3,))]
