"""Building blocks of the ADM U-Net (Dhariwal and Nichol 2021, arXiv 2105.05233, appendix A)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pagoda import distributed


def at_least_float32(x: Tensor) -> Tensor:
    """``x``, in float32 if its type is narrower; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the rows of all processes, its statistics in float32 or wider.

    ``torch.nn.SyncBatchNorm`` is for GPUs alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (n, c, h, w), n this process's rows."""
        if not self.training or distributed.world_size() == 1:
            return super().forward(x)
        total, values = distributed.all_reduce_with_gradient, at_least_float32(x)
        n = total(values.new_full((), values.numel() / values.shape[1]))
        mean = total(values.sum((0, 2, 3))) / n
        centred = values - mean[:, None, None]
        variance = total(centred.square().sum((0, 2, 3))) / n
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(variance.detach() * n / (n - 1), self.momentum)
        self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


@dataclass(frozen=True)
class Told:
    """What the blocks of a network are told, where that is more than one vector an image.

    Attributes:
        vector: (n, e), activated: noise level, class or caption, weight of the guidance.
        tokens: (n, l, d) of the captions.
        there: (n, l) whether there is such a token.
        known: (n,) whether an image has a caption.
    """

    vector: Tensor
    tokens: Tensor
    there: Tensor
    known: Tensor

    def __add__(self, more: Tensor) -> Told:
        """The same with more in its vector."""
        return replace(self, vector=self.vector + more)


class Frozen(nn.Module):
    """A module with a network that never trains: it moves along, but is no part of the state and
    of the parameters, so that checkpoints need not hold it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._frozen = [network.eval().requires_grad_(False)]  # torch does not look into lists

    @property
    def frozen(self) -> Any:
        """The network."""
        return self._frozen[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.frozen._apply(fn)
        return super()._apply(fn, recurse)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch normalisation, in eval mode, into the convolution registered before it.

    Exact up to rounding where layers are registered in the order that they compute in. An
    activation that timm keeps in the normalisation stays in its place.
    """
    before: tuple[str, nn.Conv2d] | None = None
    for name, layer in list(network.named_children()):
        if before is not None and isinstance(layer, nn.BatchNorm2d):
            setattr(network, before[0], fuse_conv_bn_eval(before[1], layer))
            setattr(network, name, getattr(layer, "act", nn.Identity()))
        before = (name, layer) if isinstance(layer, nn.Conv2d) else None
        fold_batch_norms(layer)


class GroupNorm(nn.GroupNorm):
    """Group normalisation that computes in float32 under autocast, in float64 on such inputs.

    As many groups as divide the channels, at most 32 and of at least ``min_group`` channels each:
    4 in EDM; 1 in ADM, Consistency Models and PaGoDA, which differs below 128 channels. On CPUs
    bfloat16 group normalisation is both less exact and slower than the float32 kernel.
    """

    def __init__(self, channels: int, min_group: int = 4) -> None:
        most = max(1, min(32, channels // min_group))
        groups = next(g for g in range(most, 0, -1) if channels % g == 0)
        super().__init__(groups, channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape and dtype."""
        wide = at_least_float32(x)
        return F.group_norm(wide, self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)


def zero(module: nn.Module) -> nn.Module:
    """Set all parameters of ``module`` to zero and return it."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ResBlock(nn.Module):
    """Residual block with an embedding; the second convolution starts at zero.

    h = conv(resample(silu(norm(x)))); FiLM: h = norm(h) (1 + a) + b, or h = norm(h + a) without
    FiLM; y = shortcut(resample(x)) + conv(dropout(silu(h))).

    Args:
        resample: ``"none"``, ``"up"`` (nearest, 2x) or ``"down"`` (2x2 mean), in both branches.
        film: scale and shift the second normalisation; otherwise the embedding is added.
        min_group: fewest channels a group of the normalisations.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        *,
        resample: str = "none",
        film: bool = True,
        dropout: float = 0.0,
        min_group: int = 4,
    ) -> None:
        super().__init__()
        self.film, self.resample, self.dropout = film, resample, dropout
        self.in_norm = GroupNorm(in_channels, min_group)
        self.in_conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.emb = nn.Linear(embedding, out_channels * (2 if film else 1))
        self.out_norm = GroupNorm(out_channels, min_group)
        self.out_conv = zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor | Told) -> Tensor:
        """x (n, c, h, w), emb (n, e), already activated -> (n, c', h', w')."""
        h = self.in_conv(self._resample(F.silu(self.in_norm(x))))
        vector = emb.vector if isinstance(emb, Told) else emb
        e = self.emb(vector).to(h.dtype)[:, :, None, None]
        if self.film:
            scale, shift = e.chunk(2, dim=1)
            h = torch.addcmul(shift, self.out_norm(h), scale + 1)
        else:
            h = self.out_norm(h + e)
        h = F.dropout(F.silu(h), self.dropout, self.training)
        return self.shortcut(self._resample(x)) + self.out_conv(h)

    def _resample(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.avg_pool2d(x, 2) if self.resample == "down" else x


class Attention(nn.Module):
    """Residual multi-head self-attention over pixels; the projection starts at zero."""

    def __init__(self, channels: int, head_channels: int, min_group: int = 4) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.norm = GroupNorm(channels, min_group)
        self.qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).unbind(1)
        out = F.scaled_dot_product_attention(q.mT, k.mT, v.mT)
        return x + self.proj(out.mT.reshape(n, c, h, w))


class Head(nn.Sequential):
    """norm -> SiLU -> 3x3 convolution to an image's channels, which starts at zero."""

    def __init__(self, channels: int, min_group: int = 4, image_channels: int = 3) -> None:
        to_image = zero(nn.Conv2d(channels, image_channels, 3, padding=1))
        super().__init__(GroupNorm(channels, min_group), nn.SiLU(), to_image)


class MeanLogit(nn.Sequential):
    """One logit an image, of the mean of its features over positions."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, h: Tensor) -> Tensor:
        """(n, width, r, r) -> (n,)."""
        logits: Tensor = super().forward(h.mean((2, 3)))
        return logits[:, 0]


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """(n,) -> (n, dim): cosines, then sines, of t / max_period^(i / (dim / 2))."""
    half, t = dim // 2, at_least_float32(t)
    index = torch.arange(half, dtype=t.dtype, device=t.device)
    angle = t[:, None] * torch.exp(-math.log(max_period) * index / half)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class WeightEmbedding(nn.Module):
    """The weight of guidance: omega -> W2 silu(W1 wave(100 omega)), as a time step is embedded.

    The factor 100 is PaGoDA's (arXiv 2405.14822, appendix A.2).

    Args:
        wave: width of the sinusoidal embedding.
        out: width of what is made.
        asleep: W2 starts at zero, so that a network that gets it stays what it was.
    """

    def __init__(self, wave: int, out: int, *, asleep: bool = True) -> None:
        super().__init__()
        self.wave = wave
        self.weight_in = nn.Linear(wave, out)
        last = nn.Linear(out, out)
        self.weight_out = zero(last) if asleep else last

    def forward(self, omega: Tensor) -> Tensor:
        """(n,) -> (n, out)."""
        waves = timestep_embedding(100 * omega, self.wave).to(self.weight_in.weight.dtype)
        out: Tensor = self.weight_out(F.silu(self.weight_in(waves)))
        return out
