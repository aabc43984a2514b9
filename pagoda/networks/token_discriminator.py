"""A logit for every token of frozen features (PaGoDA, figure 15, on StyleGAN-T's discriminator).

The structure is that of Sauer et al. 2023 (arXiv 2301.09515, section 3.2), with PaGoDA's weight of
the guidance in the path of the image and in that of the text. What the image is compared with is a
caption: tokens whose embeddings are learned, of which a class is one, or a row of the table that
the generator is told, tokens and pooled embedding as the text encoder has them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from pagoda.networks.backbones import Backbone
from pagoda.networks.captions import CaptionTable
from pagoda.networks.discriminators import Discriminator
from pagoda.networks.layers import GroupNorm, WeightEmbedding

_WIDTH = 64  # channels in which a token of the image meets the caption
_KERNEL = 9  # tokens that the residual convolution sees
_LONGEST = 128  # tokens of a caption
_PAD = -1


class TableTokens(nn.Module):
    """Captions by their row of a table: W t_i + V p, of tokens t and of the pooled embedding p.

    The table is a copy and frozen. Entries of the embeddings have a mean square of 1 or so, and W
    and V start with the variance that leaves it.

    Args:
        table: of the network that is told these captions.
        width: of an embedding.
    """

    tokens: Tensor
    pooled: Tensor
    there: Tensor

    def __init__(self, table: CaptionTable, width: int) -> None:
        super().__init__()
        for name in ("tokens", "pooled", "there"):
            kept = getattr(table, name).detach().clone()
            self.register_buffer(name, kept, persistent=False)
        self.token = nn.Linear(self.tokens.shape[2], width, bias=False)
        self.whole = nn.Linear(self.pooled.shape[1], width, bias=False)
        for layer in (self.token, self.whole):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def forward(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (n,) -> embeddings (n, l, width), and which are there (n, l)."""
        h = self.token(self.tokens[labels]) + self.whole(self.pooled[labels])[:, None]
        return h, self.there[labels]


class CaptionPath(nn.Module):
    """Tokens of a caption -> one vector: embeddings, the weight, transformer blocks, their mean.

    Args:
        tokens: size of the vocabulary, or number of classes.
        blocks: transformer blocks.
        weighted: whether it is told the weight of the guidance.
        table: captions are rows of it, and no embedding is learned.
    """

    def __init__(
        self, tokens: int, blocks: int, *, weighted: bool, table: CaptionTable | None = None
    ) -> None:
        super().__init__()
        self.token: nn.Embedding | TableTokens
        if table is None:
            self.token = nn.Embedding(tokens, _WIDTH)
        else:
            self.token = TableTokens(table, _WIDTH)
        length = _LONGEST if table is None else table.tokens.shape[1]
        self.position = nn.Parameter(torch.randn(length, _WIDTH) * 0.02)
        self.weight = WeightEmbedding(_WIDTH, _WIDTH, asleep=False) if weighted else None
        self.blocks = nn.ModuleList([
            nn.TransformerEncoderLayer(_WIDTH, 4, 4 * _WIDTH, dropout=0.0, activation="gelu",
                                       batch_first=True, norm_first=True)
            for _ in range(blocks)
        ])  # fmt: skip
        self.out = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, caption: Tensor, omega: Tensor | None) -> Tensor:
        """Captions and weights (n,) -> (n, 64).

        Without a table captions are tokens (n,) or (n, l), -1 where one has ended.
        """
        if isinstance(self.token, TableTokens):
            h, there = self.token(caption)
        else:
            ids = caption[:, None] if caption.ndim == 1 else caption
            h, there = self.token(ids.clamp(min=0)), ids != _PAD
        h = h + self.position[: h.shape[1]]
        if self.weight is not None:
            assert omega is not None
            h = h + self.weight(omega)[:, None]
        for block in self.blocks:
            h = block(h, src_key_padding_mask=~there)
        shares = there / there.sum(1, keepdim=True).clamp(min=1)
        return self.out((h * shares[..., None].to(h)).sum(1))


class TokenHead(nn.Module):
    """Logits of the tokens of one feature map, by projection on a vector of the caption.

    a = lrelu(norm(conv1(m + mean(m)))) + weight(omega),
    b = (a + lrelu(norm(conv9(a)))) / sqrt(2),   l_t = <conv1(b)_t, c> / sqrt(64).

    Convolutions are along the tokens, conv9 with circular padding, all with spectral norm. As in
    StyleGAN-T, but that normalisation is over groups of channels of an image, not over parts of a
    batch, and that the mean of the tokens stands for DINO's class token, which not every network
    has.

    Args:
        channels: of the map.
        tokens: fewest that the map has; the kernel of conv9 is no longer.
        weighted: whether it is told the weight of the guidance.
    """

    def __init__(self, channels: int, tokens: int, *, weighted: bool) -> None:
        super().__init__()
        kernel = min(_KERNEL, tokens - 1 + tokens % 2)
        self.first = spectral_norm(nn.Conv1d(channels, channels, 1))
        self.first_norm = GroupNorm(channels)
        self.weight = WeightEmbedding(_WIDTH, channels, asleep=False) if weighted else None
        self.near = spectral_norm(
            nn.Conv1d(channels, channels, kernel, padding=kernel // 2, padding_mode="circular")
        )
        self.near_norm = GroupNorm(channels)
        self.last = spectral_norm(nn.Conv1d(channels, _WIDTH, 1))

    def forward(self, m: Tensor, caption: Tensor, omega: Tensor | None) -> Tensor:
        """Map (n, c, h, w), caption (n, 64), weights (n,) -> logits (n, h w)."""
        t = m.flatten(2)
        t = t + t.mean(2, keepdim=True)
        a = F.leaky_relu(self.first_norm(self.first(t)), 0.2)
        if self.weight is not None:
            assert omega is not None
            a = a + self.weight(omega)[:, :, None]
        b = (a + F.leaky_relu(self.near_norm(self.near(a)), 0.2)) / math.sqrt(2)
        projected = self.last(b).float()
        return torch.einsum("nct,nc->nt", projected, caption.float()) / math.sqrt(_WIDTH)


class TokenDiscriminator(Discriminator):
    """One head on each of four maps of frozen networks; a hinge on every logit is the paper's loss.

    Args:
        backbones: timm models: ``vit_small_patch16_224.dino`` is the paper's,
            ``tf_efficientnet_lite0`` needs no network.
        weights: as :class:`pagoda.networks.backbones.Backbone` takes them.
        tokens: size of the captions' vocabulary, or number of classes.
        side: that smaller images are resized to.
        blocks: transformer blocks over the tokens of the caption.
        weighted: whether image and caption are told the weight of the guidance: D(x, c, omega).
        table: labels are rows of it, the captions that the generator is told.
    """

    def __init__(
        self, backbones: list[str], weights: str, tokens: int, side: int, *, blocks: int = 1,
        weighted: bool = False, table: CaptionTable | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.networks = nn.ModuleList([Backbone(name, weights, side) for name in backbones])
        self.caption = CaptionPath(tokens, blocks, weighted=weighted, table=table)
        with torch.no_grad():
            maps = self.features(torch.zeros(1, 3, side, side))
        self.heads = nn.ModuleList([
            TokenHead(m.shape[1], m.shape[2] * m.shape[3], weighted=weighted) for m in maps
        ])  # fmt: skip

    def features(self, x: Tensor) -> list[Tensor]:
        """The maps of all networks, four a network, highest resolution first."""
        return [m for network in self.networks for m in network(x)]

    def forward(self, x: Tensor, labels: Tensor, omega: Tensor | None = None) -> Tensor:
        """x (n, 3, r, r) in [-1, 1], labels (n,) or captions (n, l), omega (n,) -> (n, logits).

        Every token of every map has a logit; all of an image have one weight in the loss's mean.
        """
        caption = self.caption(labels, omega)
        pairs = zip(self.heads, self.features(x), strict=True)
        return torch.cat([head(m.to(x.dtype), caption, omega) for head, m in pairs], dim=1)
