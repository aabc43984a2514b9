"""The one-step generator and its growth (PaGoDA, arXiv 2405.14822, sections 3.2 and 3.3)."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from pagoda.diffusion.edm import scalings
from pagoda.errors import PagodaError
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.layers import Head, ResBlock, Told, WeightEmbedding, at_least_float32
from pagoda.networks.unet import UNetSpec, UNetTrunk
from pagoda.weight_files import fitted, positive

TOLD = "told_weights"
"""Of a generator's card: the smallest and largest weight of the guidance that it is told."""


class GrowthLevel(nn.Module):
    """One doubling: an up-sampling residual block and ``blocks`` more (section 3.3).

    The embedding is added instead of FiLM, without attention or U-Net skips. The second
    convolutions start at zero, so at equal width a new level is nearest-neighbour up-sampling.
    """

    def __init__(
        self, in_channels: int, channels: int, embedding: int, blocks: int, min_group: int = 4
    ) -> None:
        super().__init__()
        self.channels, self.blocks = channels, blocks
        style: dict[str, Any] = {"film": False, "min_group": min_group}
        first = ResBlock(in_channels, channels, embedding, resample="up", **style)
        rest = [ResBlock(channels, channels, embedding, **style) for _ in range(blocks)]
        self.stages = nn.ModuleList([first, *rest])

    def forward(self, h: Tensor, emb: Tensor | Told) -> Tensor:
        """(n, c, r, r) -> (n, channels, 2r, 2r)."""
        for stage in self.stages:
            h = stage(h, emb)
        return h


class Generator(nn.Module):
    """G(z, y) = scale * head(levels(trunk(c_in(sigma_max) sigma_max z, sigma_max, y))).

    ``z`` is standard normal at the base resolution; the output has ``resolution`` pixels a side.

    Args:
        spec: U-Net of the base resolution.
        levels: (channels, blocks) a doubling.
        sigma_max: noise level whose latents the generator maps.
        sigma_data: standard deviation of the data, for c_in.
        output_scale: 1 returns the raw network; c_out(sigma_max), about 0.5, starts as the
            teacher's denoiser at sigma_max (up to c_skip z, whose size is below 0.004).
        guidance: smallest and largest weight of the guidance that the network is told; None: it is
            told none.
    """

    def __init__(
        self,
        spec: UNetSpec,
        levels: list[tuple[int, int]],
        *,
        sigma_max: float,
        sigma_data: float,
        output_scale: float,
        guidance: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.sigma_max, self.sigma_data = spec, sigma_max, sigma_data
        self.output_scale = output_scale
        self.trunk = UNetTrunk(spec)
        self.levels = nn.ModuleList()
        width = self.trunk.out_channels
        for channels, blocks in levels:
            self.levels.append(
                GrowthLevel(width, channels, self.trunk.embedding, blocks, spec.min_group)
            )
            width = channels
        self.head = Head(width, spec.min_group, spec.image_channels)
        self.guidance: tuple[float, float] | None = None
        if guidance is not None:
            self.take_weights(*guidance)

    def take_weights(self, low: float, high: float) -> None:
        """Let the network be told weights of guidance from ``low`` to ``high``.

        The embedding starts at zero: whatever the weight, the generator stays what it is.
        """
        self.guidance = (float(low), float(high))
        embedding = WeightEmbedding(self.spec.channels, self.trunk.embedding)
        self.weight_embedding = embedding.to(self.trunk.time_in.weight.device)

    @property
    def usual_weight(self) -> float:
        """The weight that is told where none is given: 1, which is none, or the nearest to it."""
        low, high = self.guidance or (1.0, 1.0)
        return max(low, min(1.0, high))

    @property
    def base_res(self) -> int:
        """Side of the latents."""
        return self.spec.resolution

    @property
    def resolution(self) -> int:
        """Side of the images, or of their codes."""
        return self.base_res << len(self.levels)

    def forward(
        self, z: Tensor, labels: Tensor | None, fine: Tensor | None = None, above: int = 0,
        omega: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """z (n, 3, b, b) ~ N(0, I), labels (n,) -> images (n, 3, r, r), nominally in [-1, 1].

        With ``fine`` (n,), levels above the resolution ``above`` see that class instead. ``omega``
        (n,) are the weights of the guidance; None: :attr:`usual_weight`.

        Raises:
            PagodaError: weights for a generator that is told none.
        """
        sigma = z.new_full(z.shape[:1], self.sigma_max)
        s = scalings(sigma, self.sigma_data)
        weights = self._weights(z, omega)
        emb = self.trunk.embed(s.c_noise, labels, more=weights)
        h = self.trunk(s.c_in[:, None, None, None] * self.sigma_max * z, emb)
        finer = emb if fine is None else self.trunk.embed(s.c_noise, fine, more=weights)
        for level in self.levels:
            h = level(h, finer if h.shape[-1] >= above else emb)
        return at_least_float32(self.head(h)) * self.output_scale

    def consistency(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """f(x, sigma) = c_skip x + c_out F(c_in x; c_noise), (n, 3, b, b) from the same shape.

        The network without its levels as a consistency function (Song et al. 2023, arXiv
        2303.01469), in EDM's form: the end of the path that x of noise level sigma (n,) is on.
        """
        s = scalings(sigma[:, None, None, None].to(x.dtype), self.sigma_data)
        emb = self.trunk.embed(s.c_noise.flatten(), labels)
        out = self.head(self.trunk(s.c_in * x, emb))
        return s.c_skip * x + s.c_out * out.to(x.dtype)

    def _weights(self, z: Tensor, omega: Tensor | None) -> Tensor | None:
        """The embedding (n, 4 channels) of weights of guidance."""
        if self.guidance is None:
            if omega is not None:
                raise PagodaError("the generator is told no weight of guidance; leave omega out")
            return None
        told = z.new_full(z.shape[:1], self.usual_weight) if omega is None else omega
        embedded: Tensor = self.weight_embedding(told)
        return embedded

    def card(self) -> dict[str, Any]:
        """JSON form, from which :func:`build_generator` rebuilds the network."""
        weights = {} if self.guidance is None else {TOLD: list(self.guidance)}
        return weights | {
            "unet": self.spec.to_card(),
            "levels": [[lv.channels, lv.blocks] for lv in self._levels()],
            "sigma_max": self.sigma_max,
            "sigma_data": self.sigma_data,
            "output_scale": self.output_scale,
        }

    def _levels(self) -> list[GrowthLevel]:
        return [level for level in self.levels if isinstance(level, GrowthLevel)]

    def last_block_weight(self) -> nn.Parameter:
        """theta_l of the adaptive weight: the last residual block's second convolution."""
        last = [m for m in self.modules() if isinstance(m, ResBlock)][-1]
        return last.out_conv.weight  # type: ignore[return-value]

    def freeze_base(self, trainable_blocks: int, lower_levels: bool = True) -> None:
        """Freeze the trunk but for its topmost decoder stages; last level and head stay trainable.

        Args:
            trainable_blocks: decoder stages, counted from the highest resolution, that train;
                all of them if there are fewer.
            lower_levels: levels below the last one train as well, as in the official code;
                StyleGAN-XL freezes all that an earlier stage has trained.
        """
        self.levels[:-1].requires_grad_(lower_levels)
        self.trunk.requires_grad_(False)
        if self.guidance is not None:
            self.weight_embedding.requires_grad_(False)
        decoder = list(self.trunk.decoder)
        for stage in decoder[max(0, len(decoder) - trainable_blocks) :]:
            stage.requires_grad_(True)

    def freeze_below_top(self) -> None:
        """Freeze all but the last level, the head and the blocks at half their resolution.

        The trainable set in the paper's words (section 3.3): of the previous generator only the
        blocks of its highest resolution train, which are those of the level below the last one
        or, in the first doubling, the decoder's at the base resolution.
        """
        top = self.spec.blocks + 1 if len(self.levels) == 1 else 0
        self.freeze_base(top, lower_levels=False)
        self.levels[-2:].requires_grad_(True)


def build_generator(card: dict[str, Any]) -> Generator:
    """A generator with fresh random weights from a card."""
    scalars = {key: positive(card, key) for key in ("sigma_max", "sigma_data", "output_scale")}
    levels = [(channels, blocks) for channels, blocks in card["levels"]]
    low_high = card.get(TOLD)
    if low_high is not None:
        low, high = low_high
        if not 0 <= low <= high < math.inf:
            raise PagodaError(f"{TOLD} of its card is {low_high}, expected two rising weights")
        low_high = (low, high)
    spec = UNetSpec.from_card(card["unet"])
    return Generator(spec, levels, guidance=low_high, **scalars)


def load_generator(weights: dict[str, Tensor], card: dict[str, Any]) -> Generator:
    """A generator from an artifact's weights and card, in eval mode."""
    return fitted(build_generator, weights, card)


def generator_from_teacher(
    teacher: Denoiser, *, sigma_max: float, output: str, dropout: float = 0.0
) -> Generator:
    """Stage 2 start: every teacher weight, used as a one-step map.

    Args:
        output: ``"raw"``, the network F as in the official code, or ``"denoiser"``, c_out F.
        dropout: of the generator; the teacher keeps its own.
    """
    c_out = scalings(torch.tensor(sigma_max, dtype=torch.float64), teacher.sigma_data).c_out.item()
    generator = Generator(
        dataclasses.replace(teacher.spec, dropout=dropout),
        [],
        sigma_max=sigma_max,
        sigma_data=teacher.sigma_data,
        output_scale=c_out if output == "denoiser" else 1.0,
    )
    generator.load_state_dict(teacher.net.state_dict())
    return generator


def grow(generator: Generator, *, channels: int, blocks: int) -> Generator:
    """Stage 3 start: the generator with one more :class:`GrowthLevel` of fresh blocks.

    All weights are taken over. The head is copied when the width stays the same: the new generator
    then equals nearest-neighbour up-sampling of the features followed by the old head. Otherwise
    the head starts at zero.
    """
    card = generator.card()
    grown = build_generator({**card, "levels": [*card["levels"], [channels, blocks]]})
    grown.trunk.load_state_dict(generator.trunk.state_dict())
    if generator.guidance is not None:
        grown.weight_embedding.load_state_dict(generator.weight_embedding.state_dict())
    for new, old in zip(grown.levels, generator.levels, strict=False):
        new.load_state_dict(old.state_dict())
    old_width = card["levels"][-1][0] if card["levels"] else generator.trunk.out_channels
    if old_width == channels:
        grown.head = copy.deepcopy(generator.head)
    return grown
