"""Autoencoders between images and the codes that a latent-space pipeline models instead.

The convolutional one has the shape of TAESD (a tiny autoencoder for Stable Diffusion's codes):
convolutions and nearest-neighbour up-sampling, no normalisation, no attention. Classes of the
library diffusers do as well, by their names, opened without a network connection.

An artifact's card holds mean and deviation of each channel of the codes over training images.
:class:`Autoencoder` takes them off, so that whatever models the codes sees numbers of mean 0 and
deviation :data:`DEVIATION`, that of images in [-1, 1]: noise schedule and learning rates stay.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.artifacts import Artifact
from pagoda.errors import PagodaError
from pagoda.extras import package
from pagoda.weight_files import fitted, of_the_card, whole

DEVIATION = 0.5
"""Standard deviation of normalised codes: EDM's sigma_data."""

CLAMP = 3.0
"""Latents are squashed into (-3, 3) before they are decoded, as TAESD does: 3 tanh(z / 3)."""

BESIDE = "autoencoder"
"""Of a model of codes: the card's entry, and the stem of the file, of the autoencoder."""
BESIDE_FILE = f"{BESIDE}.safetensors"

CONV, DIFFUSERS = "conv", "diffusers"
CLASSES = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")
"""Autoencoders of diffusers that are known by name."""


@dataclass(frozen=True)
class AutoencoderSpec:
    """Architecture of the convolutional autoencoder, as stored in a model's card.

    Attributes:
        factor: pixels a side of a position of the codes, a power of two.
        latent_channels: channels of the codes.
        channels: width of all hidden layers.
        blocks: residual blocks a resolution.
        kl: the encoder gives mean and log variance, and latents are not squashed.
    """

    factor: int
    latent_channels: int
    channels: int
    blocks: int
    kl: bool = False


class _Block(nn.Module):
    """ReLU(x + conv(ReLU(conv(ReLU(conv(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        parts = [_conv(channels, channels), nn.ReLU(), _conv(channels, channels), nn.ReLU(),
                 _conv(channels, channels)]  # fmt: skip
        self.body = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def _conv(a: int, b: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(a, b, 3, padding=1, **options)


class _Squash(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return CLAMP * torch.tanh(z / CLAMP)


class ConvAutoencoder(nn.Module):
    """TAESD's shape at any factor: images in [-1, 1] <-> latents as they come.

    Inside, images are in [0, 1] and grey starts at 0. At factor 8, 4 latent channels, width 64 and
    3 blocks it has TAESD's 1,222,532 + 1,222,531 parameters.
    """

    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        self.spec, width = spec, spec.channels
        halvings = spec.factor.bit_length() - 1
        out = spec.latent_channels * (2 if spec.kl else 1)
        down: list[nn.Module] = [_conv(3, width), _Block(width)]
        up: list[nn.Module] = [nn.Identity() if spec.kl else _Squash()]
        up += [_conv(spec.latent_channels, width), nn.ReLU()]
        for _ in range(halvings):
            down.append(_conv(width, width, stride=2, bias=False))
            down += [_Block(width) for _ in range(spec.blocks)]
            up += [_Block(width) for _ in range(spec.blocks)]
            up += [nn.Upsample(scale_factor=2, mode="nearest"), _conv(width, width, bias=False)]
        self.encoder = nn.Sequential(*down, _conv(width, out))
        self.decoder = nn.Sequential(*up, _Block(width), _conv(width, 3))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents of images (n, 3, r, r), and their log variance where the encoder gives one."""
        z = self.encoder((x + 1) / 2)
        if not self.spec.kl:
            return z, None
        mean, log_variance = z.chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def images(self, z: Tensor) -> Tensor:
        """Latents (n, c, r / f, r / f) -> images (n, 3, r, r), nominally in [-1, 1]."""
        return self.decoder(z) * 2 - 1


class DiffusersAutoencoder(nn.Module):
    """An autoencoder of the library diffusers, by the name of its class and its configuration.

    Attributes:
        factor: pixels a side of a position of the codes.
        latent_channels: channels of the codes.
    """

    def __init__(self, name: str, config: dict[str, Any]) -> None:
        super().__init__()
        self.network = _class_of(name).from_config(config)
        known = self.network.config
        self.factor = {
            "AutoencoderKL": lambda: 2 ** (len(known.block_out_channels) - 1),
            "AutoencoderTiny": lambda: 2 ** (len(known.encoder_block_out_channels) - 1),
            "AutoencoderDC": lambda: self.network.spatial_compression_ratio,
        }[name]()
        self.latent_channels = int(known.latent_channels)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents of images (n, 3, r, r), and their log variance where the encoder gives one."""
        made = self.network.encode(x)
        if hasattr(made, "latent_dist"):
            return made.latent_dist.mean, made.latent_dist.logvar
        return (made.latents if hasattr(made, "latents") else made.latent), None

    def images(self, z: Tensor) -> Tensor:
        """Latents (n, c, r / f, r / f) -> images (n, 3, r, r), nominally in [-1, 1]."""
        return self.network.decode(z).sample


def _class_of(name: str) -> Any:
    if name not in CLASSES:
        raise PagodaError(f"autoencoder class {name!r}; it must be one of {', '.join(CLASSES)}")
    return getattr(package("diffusers", "diffusers", f"{name} needs"), name)


class Autoencoder(nn.Module):
    """Images <-> normalised codes: 0.5 (z - mean) / std a channel, of deviation 0.5.

    Args:
        network: what has ``moments`` and ``images``.
        factor: pixels a side of a position of the codes.
        channels: of the codes.
        mean, std: of the latents, a number a channel; None: 0 and :data:`DEVIATION`, so that codes
            are the latents themselves.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: Any, factor: int, channels: int, mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network, self.factor, self.channels = network, factor, channels
        for name, given, usual in (("mean", mean, 0.0), ("std", std, DEVIATION)):
            numbers = torch.tensor([usual] * channels if given is None else list(given))
            self.register_buffer(name, numbers.view(1, channels, 1, 1), persistent=False)

    def encode(self, x: Tensor) -> Tensor:
        """Images (n, 3, r, r) in [-1, 1] -> codes (n, c, r / f, r / f).

        Raises:
            PagodaError: their side is no multiple of the factor.
        """
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            raise PagodaError(
                f"images of {x.shape[-1]} pixels a side have no codes: the autoencoder takes "
                f"multiples of {self.factor}"
            )
        z = self.network.moments(x)[0]
        return (z - self.mean) / self.std * DEVIATION

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (n, c, r / f, r / f) -> images (n, 3, r, r), nominally in [-1, 1]."""
        return self.network.images(codes / DEVIATION * self.std + self.mean)

    @property
    def decoder(self) -> nn.Module:
        """The part that decodes."""
        return getattr(self.network, "network", self.network).decoder

    def forward(self, x: Tensor) -> Tensor:
        """Images -> what comes back of them."""
        return self.decode(self.encode(x))


def conv_autoencoder(spec: AutoencoderSpec) -> Autoencoder:
    """The convolutional autoencoder with fresh weights."""
    return Autoencoder(ConvAutoencoder(spec), spec.factor, spec.latent_channels)


def diffusers_autoencoder(name: str, config: dict[str, Any]) -> Autoencoder:
    """One of :data:`CLASSES` with fresh weights.

    Raises:
        PagodaError: another class, no package diffusers, or a configuration that it does not take.
    """
    made = _class_of(name)  # says what is missing
    try:
        network = DiffusersAutoencoder(made.__name__, config)
    except PagodaError:
        raise
    except Exception as error:  # whatever a foreign configuration makes diffusers raise
        why = f"{type(error).__name__} {error}".splitlines()[0]
        raise PagodaError(f"the configuration is none of {name}: {why}") from error
    return Autoencoder(network, network.factor, network.latent_channels)


def card_of(autoencoder: Autoencoder) -> dict[str, Any]:
    """JSON form, from which :func:`build_autoencoder` rebuilds the network."""
    network = autoencoder.network
    sizes = {"factor": autoencoder.factor, "latent_channels": autoencoder.channels}
    if isinstance(network, ConvAutoencoder):
        return sizes | {"kind": CONV, "architecture": asdict(network.spec)}
    inner = network.network
    known = inspect.signature(type(inner).__init__).parameters
    config = {k: v for k, v in inner.config.items() if k in known}
    return sizes | {"kind": DIFFUSERS, "class": type(inner).__name__, "architecture": config}


def build_autoencoder(card: dict[str, Any]) -> Autoencoder:
    """An autoencoder with fresh weights from a card, and the card's mean and deviation."""
    if card["kind"] == DIFFUSERS:
        made = diffusers_autoencoder(card["class"], card["architecture"])
    else:
        spec = AutoencoderSpec(**card["architecture"])
        whole(asdict(spec), "factor", "latent_channels", "channels", "blocks")
        made = conv_autoencoder(spec)
    if (made.factor, made.channels) != (card["factor"], card["latent_channels"]):
        raise PagodaError(
            f"its card says factor {card['factor']} and {card['latent_channels']} channels, its "
            f"network has {made.factor} and {made.channels}"
        )
    mean, std = card.get("mean"), card.get("std")
    if mean is not None and std is not None:
        if len(mean) != made.channels or len(std) != made.channels or not min(std) > 0:
            raise PagodaError("mean and std of its card are not a positive number a channel")
        return Autoencoder(made.network, made.factor, made.channels, mean, std)
    return made


def load_autoencoder(weights: dict[str, Tensor], card: dict[str, Any]) -> Autoencoder:
    """An autoencoder from an artifact's weights and card, in eval mode, frozen."""
    return fitted(build_autoencoder, weights, card).requires_grad_(False)


def autoencoder_beside(
    model: Artifact, device: torch.device | str = "cpu"
) -> Autoencoder | None:  # fmt: skip
    """The autoencoder, on a device, whose codes a model makes; None if it makes images.

    Raises:
        PagodaError: one line: its weights are missing or do not fit its card.
    """
    card = model.card().get(BESIDE)
    if card is None:
        return None
    if BESIDE_FILE not in model.manifest["files"]:
        raise PagodaError(f"{model.path} models codes of an autoencoder and lacks {BESIDE_FILE}")
    weights = model.weights(BESIDE_FILE)
    with of_the_card(model.path / BESIDE_FILE, "autoencoder"):
        return load_autoencoder(weights, card).to(device)


class PatchDiscriminator(nn.Sequential):
    """Logits of "real" a patch: three convolutions, two of them halving (Isola et al. 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * channels, 1, 3, padding=1),
        )  # fmt: skip


class Decoded(nn.Module):
    """A generator of codes with the decoder behind it: latents and classes in, images out."""

    autoencoder: Autoencoder

    def __init__(self, generator: nn.Module, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.generator, self.autoencoder = generator, autoencoder

    @property
    def spec(self) -> Any:
        """The generator's U-Net."""
        return self.generator.spec

    def forward(self, *inputs: Any) -> Tensor:
        """As of the generator, but images (n, 3, r, r) in [-1, 1]."""
        return self.autoencoder.decode(self.generator(*inputs))
