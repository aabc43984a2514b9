"""What a network is told of a caption: a row of a table of frozen embeddings, and attention to it.

A label is the number of a caption. Its pooled embedding stands where that of a class would; blocks
with attention also see its tokens. Both come from a text encoder that is not trained further, so
the table is a buffer: it is part of a model's weights, and no gradient reaches it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.artifacts import Artifact
from pagoda.errors import PagodaError
from pagoda.networks.layers import GroupNorm, Told, zero

CAPTIONS = "captions"
"""Of a model told captions: the card's entry, and the stem of the file, of what reads them."""
CAPTIONS_FILE = f"{CAPTIONS}.safetensors"
ENCODER = "encoder."
"""What the names of the text encoder's weights in that file begin with."""
SCORER = "scorer."
"""And those of the CLIP that scores samples."""
_TABLE = "tokens", "pooled", "there"


@dataclass(frozen=True)
class CaptionStates:
    """Captions as a text encoder has them.

    Attributes:
        tokens: (n, l, d) embedding of each token.
        pooled: (n, p) embedding of each caption.
        there: (n, l) whether there is such a token; the others are padding.
        cut: for each caption that was too long, a line that says where it was cut.
    """

    tokens: Tensor
    pooled: Tensor
    there: Tensor
    cut: tuple[str, ...] = field(default=(), compare=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Tokens of a caption, width of each, width of the pooled embedding."""
        return self.tokens.shape[1], self.tokens.shape[2], self.pooled.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """By name, as files have them."""
        return {name: getattr(self, name).contiguous() for name in _TABLE}


def states_of(images: Artifact) -> CaptionStates | None:
    """The table of the captions of images; None: they have classes."""
    if CAPTIONS not in images.card():
        return None
    kept = images.weights(CAPTIONS_FILE)
    tokens, pooled, there = (kept[name] for name in _TABLE)
    return CaptionStates(tokens, pooled, there)


@dataclass(frozen=True)
class CaptionsInTurn:
    """Captions of held-out images, which samples of a model get in turn.

    Attributes:
        rows: (m,) numbers of captions.
        classes: (captions,) the class of images with such a caption.
    """

    rows: np.ndarray
    classes: np.ndarray


def held_out(model: Artifact) -> CaptionsInTurn | None:
    """The captions of held-out images beside a model; None: it has classes.

    Raises:
        PagodaError: one line: they are missing.
    """
    if CAPTIONS not in model.card():
        return None
    if CAPTIONS_FILE not in model.manifest["files"]:
        raise PagodaError(f"{model.path} is told captions and lacks {CAPTIONS_FILE}")
    kept = model.weights(CAPTIONS_FILE)
    return CaptionsInTurn(kept["held_out"].numpy(), kept["class_of"].numpy())


class CaptionTable(nn.Module):
    """Rows of frozen embeddings, and the layer that makes a class's embedding of the pooled one.

    Args:
        captions: number of rows.
        shape: of :class:`CaptionStates`.
        width: of what stands in place of a class's embedding.
    """

    tokens: Tensor
    pooled: Tensor
    there: Tensor

    def __init__(self, captions: int, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        length, tokens, pooled = shape
        self.project = nn.Linear(pooled, width)
        self.register_buffer("tokens", torch.zeros(captions, length, tokens))
        self.register_buffer("pooled", torch.zeros(captions, pooled))
        self.register_buffer("there", torch.zeros(captions, length, dtype=torch.bool))

    def fill(self, states: CaptionStates) -> None:
        """Put captions into the rows, as many as there are; the number of rows may change.

        Raises:
            PagodaError: their embeddings have other widths or lengths than the table's.
        """
        own = *self.tokens.shape[1:], self.pooled.shape[1]
        if states.shape != own:
            raise PagodaError(
                f"captions of {states.shape[0]} tokens, widths {states.shape[1:]}, for a network "
                f"that knows {own[0]} tokens, widths {own[1:]}; encode them by its own text encoder"
            )
        for name in ("tokens", "pooled", "there"):
            old: Tensor = getattr(self, name)
            setattr(self, name, getattr(states, name).detach().clone().to(old))

    def forward(self, labels: Tensor) -> Tensor:
        """Rows (n,) -> (n, width)."""
        return self.project(self.pooled[labels])

    def told(self, vector: Tensor, labels: Tensor | None, none: int) -> Told:
        """What the blocks are told: a vector (n, width), and the tokens of captions.

        Args:
            vector: activated embedding of noise level and caption.
            labels: (n,) rows, ``none`` where no caption is told; None: nowhere.
            none: the label of no caption.
        """
        if labels is None:
            labels = torch.full(vector.shape[:1], none, device=vector.device)
        rows = labels.clamp(min=0)
        return Told(vector, self.tokens[rows], self.there[rows], labels != none)


class CaptionLabels(nn.Module):
    """What a discriminator has in place of the embedding of classes: a layer on the pooled one.

    Args:
        table: of the network that is told these captions.
        width: of the embedding.
    """

    pooled: Tensor

    def __init__(self, table: CaptionTable, width: int) -> None:
        super().__init__()
        self.register_buffer("pooled", table.pooled.detach().clone(), persistent=False)
        self.project = nn.Linear(self.pooled.shape[1], width)
        nn.init.normal_(self.project.weight, std=(width * self.pooled.shape[1]) ** -0.5)

    def forward(self, labels: Tensor) -> Tensor:
        """Rows (n,) -> (n, width)."""
        return self.project(self.pooled[labels])


class CrossAttention(nn.Module):
    """Residual multi-head attention of pixels to the tokens of a caption; nothing without one.

    h = x + proj(softmax(q k^T / sqrt(d)) v), q of norm(x), k and v of the tokens. The projection
    starts at zero: the network is then the one that knows the pooled embedding alone.

    Args:
        channels: of the pixels.
        head_channels: channels a head.
        tokens: width of a token.
        min_group: fewest channels a group of the normalisation.
    """

    def __init__(
        self, channels: int, head_channels: int, tokens: int, min_group: int = 4
    ) -> None:  # fmt: skip
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.norm = GroupNorm(channels, min_group)
        self.q = nn.Conv2d(channels, channels, 1)
        self.kv = nn.Linear(tokens, 2 * channels)
        self.proj = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        n, c, h, w = x.shape
        q = self.q(self.norm(x)).reshape(n, self.heads, c // self.heads, h * w).mT
        kv = self.kv(told.tokens.to(self.kv.weight.dtype)).to(q.dtype)
        k, v = kv.reshape(n, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        # A row without a token would divide by zero; what it sees is left out below.
        seen = (told.there | ~told.known[:, None])[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out = self.proj(out.mT.reshape(n, c, h, w))
        return x + out * told.known[:, None, None, None]
