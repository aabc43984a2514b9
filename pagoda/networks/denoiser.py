"""The EDM denoiser D(x; sigma): a U-Net behind EDM's preconditioning."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor, nn

from pagoda.diffusion.edm import Scalings, scalings
from pagoda.networks.unet import UNet, UNetSpec
from pagoda.weight_files import fitted, positive


class Preconditioned(nn.Module):
    """A U-Net F that a denoiser scales the inputs and outputs of."""

    def __init__(self, spec: UNetSpec, sigma_data: float) -> None:
        super().__init__()
        self.spec, self.sigma_data = spec, sigma_data
        self.net = UNet(spec)

    def scalings(self, x: Tensor, sigma: Tensor) -> Scalings:
        """The coefficients at sigma (n,), as factors of images x."""
        return scalings(sigma[:, None, None, None].to(x.dtype), self.sigma_data)

    def card(self) -> dict[str, Any]:
        """JSON form, from which :meth:`from_card` rebuilds the network."""
        return {"unet": self.spec.to_card(), "sigma_data": self.sigma_data}

    @classmethod
    def from_card(cls, card: dict[str, Any]) -> Self:
        """The network with fresh random weights."""
        return cls(UNetSpec.from_card(card["unet"]), positive(card, "sigma_data"))


class Denoiser(Preconditioned):
    """D(x; s) = c_skip x + c_out F(c_in x; c_noise) (Karras et al. 2022, eq. 7)."""

    def forward(
        self, x: Tensor, sigma: Tensor, labels: Tensor | None, augment: Tensor | None = None
    ) -> Tensor:
        """x (n, 3, r, r), sigma (n,), labels (n,) -> (n, 3, r, r) in the dtype of x.

        ``augment`` (n, augment_labels) describes how the images were augmented, None: not at all.
        """
        s = self.scalings(x, sigma)
        out = self.net(s.c_in * x, s.c_noise.flatten(), labels, augment)
        return s.c_skip * x + s.c_out * out.to(x.dtype)


def load_denoiser(weights: dict[str, Tensor], card: dict[str, Any]) -> Denoiser:
    """A denoiser from an artifact's weights and card, in eval mode."""
    return fitted(Denoiser.from_card, weights, card)
