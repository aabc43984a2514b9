"""The class-conditional ADM U-Net that EDM and Consistency Models use at 64x64."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.errors import PagodaError
from pagoda.networks.captions import CaptionTable, CrossAttention
from pagoda.networks.layers import Attention, Head, ResBlock, Told, timestep_embedding
from pagoda.weight_files import positive, whole

NO_CLASS = -1
"""The label of an image whose class is not told."""


@dataclass(frozen=True)
class UNetSpec:
    """Architecture of a U-Net, as stored in a model's card.

    Attributes:
        resolution: side of the images it sees.
        channels: width at the highest resolution.
        channel_mult: width multiplier a level, highest resolution first.
        blocks: residual blocks a level in the encoder; one more in the decoder.
        attention: resolutions with self-attention.
        head_channels: channels a head of attention.
        dropout: dropout in residual blocks.
        num_classes: rows of the label embedding, or of the table of captions.
        time_scale: the sinusoidal embedding sees time_scale * c_noise; ADM uses 1000.
        augment_labels: numbers that describe an augmented image to the network; 0 for none.
        min_group: fewest channels a group of the normalisations: EDM's 4, or 1 as ADM.
        image_channels: channels of what it sees and makes: 3 of images, others of an autoencoder's
            codes.
        captions: tokens of a caption, width of each and of a caption's pooled embedding, where
            labels are captions; empty where they are classes.
    """

    resolution: int
    channels: int
    channel_mult: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    head_channels: int
    dropout: float
    num_classes: int
    time_scale: float = 1000.0
    augment_labels: int = 0
    min_group: int = 4
    image_channels: int = 3
    captions: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what it sees and makes."""
        return self.image_channels, self.resolution, self.resolution

    @staticmethod
    def from_card(tree: dict[str, Any]) -> UNetSpec:
        """Rebuild a spec from its JSON form.

        Raises:
            PagodaError: for a number that no U-Net has. Other trees raise whatever they do.
        """
        keys = "channel_mult", "attention", *(["captions"] if "captions" in tree else [])
        lists: dict[str, Any] = {key: tuple(tree[key]) for key in keys}
        spec = UNetSpec(**{**tree, **lists})
        card = spec.to_card()
        counts = "resolution", "channels", "blocks", "head_channels", "num_classes", "min_group"
        whole(asdict(spec), *counts, "image_channels")
        whole(card, "augment_labels", least=0)
        if spec.captions:
            names = "tokens", "width", "pooled width"
            sizes: dict[str, int] = dict(zip(names, spec.captions, strict=True))
            whole(sizes, *sizes)
        if not 0 <= spec.dropout < 1:
            raise PagodaError(f"dropout of its card is {spec.dropout!r}, expected a fraction")
        positive(card, "time_scale")
        halvings = len(spec.channel_mult) - 1
        if spec.resolution % (1 << halvings):
            raise PagodaError(f"resolution {spec.resolution} cannot be halved {halvings} times")
        return spec

    def to_card(self) -> dict[str, Any]:
        """JSON form of the spec; it says nothing of the channels of images, nor of no captions."""
        card = asdict(self)
        if self.image_channels == 3:
            del card["image_channels"]
        if not self.captions:
            del card["captions"]
        return card


class _Stage(nn.Module):
    """A residual block and, where the level has it, attention: to pixels, then to a caption."""

    def __init__(
        self, block: ResBlock, attention: Attention | None = None,
        caption: CrossAttention | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.block = block
        self.attention = attention
        self.caption = caption

    def forward(self, x: Tensor, emb: Tensor | Told) -> Tensor:
        x = self.block(x, emb)
        x = x if self.attention is None else self.attention(x)
        if self.caption is None or not isinstance(emb, Told):
            return x
        return self.caption(x, emb)


class UNetTrunk(nn.Module):
    """The U-Net without its head: (x, c_noise, labels) -> features at full resolution."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = 4 * spec.channels
        self.time_in = nn.Linear(spec.channels, self.embedding)
        self.time_out = nn.Linear(self.embedding, self.embedding)
        self.label = self._labels()
        if spec.augment_labels:
            self.augment = nn.Linear(spec.augment_labels, spec.channels, bias=False)
            nn.init.zeros_(self.augment.weight)
        self.stem = nn.Conv2d(spec.image_channels, spec.channels, 3, padding=1)
        widths = [spec.channels * m for m in spec.channel_mult]
        self.encoder, skips = self._encoder(widths)
        self.middle = nn.ModuleList([
            self._stage(widths[-1], widths[-1], attention=True),
            self._stage(widths[-1], widths[-1]),
        ])  # fmt: skip
        self.decoder = self._decoder(widths, skips)
        self.out_channels = widths[0]

    def _labels(self) -> nn.Embedding | CaptionTable:
        spec = self.spec
        if not spec.captions:
            return nn.Embedding(spec.num_classes, self.embedding)
        length, tokens, pooled = spec.captions
        return CaptionTable(spec.num_classes, (length, tokens, pooled), self.embedding)

    def _stage(self, a: int, b: int, resample: str = "none", attention: bool = False) -> _Stage:
        spec = self.spec
        block = ResBlock(
            a, b, self.embedding, resample=resample, dropout=spec.dropout, min_group=spec.min_group
        )
        if not attention:
            return _Stage(block)
        caption = None
        if spec.captions:
            caption = CrossAttention(b, spec.head_channels, spec.captions[1], spec.min_group)
        return _Stage(block, Attention(b, spec.head_channels, spec.min_group), caption)

    def _encoder(self, widths: list[int]) -> tuple[nn.ModuleList, list[int]]:
        stages, skips, current = [], [widths[0]], widths[0]
        for level, width in enumerate(widths):
            attention = self.spec.resolution >> level in self.spec.attention
            for _ in range(self.spec.blocks):
                stages.append(self._stage(current, width, attention=attention))
                current = width
                skips.append(current)
            if level + 1 < len(widths):
                stages.append(self._stage(current, current, "down"))
                skips.append(current)
        return nn.ModuleList(stages), skips

    def _decoder(self, widths: list[int], skips: list[int]) -> nn.ModuleList:
        """Per level blocks + 1 stages that each take a skip; all but the top end with an up."""
        stages, current, skips = [], widths[-1], list(skips)
        for level in reversed(range(len(widths))):
            attention = self.spec.resolution >> level in self.spec.attention
            for i in range(self.spec.blocks + 1):
                parts = [self._stage(current + skips.pop(), widths[level], attention=attention)]
                current = widths[level]
                if level and i == self.spec.blocks:
                    parts.append(self._stage(current, current, "up"))
                stages.append(nn.ModuleList(parts))
        return nn.ModuleList(stages)

    def embed(
        self, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None = None,
        more: Tensor | None = None,
    ) -> Tensor | Told:  # fmt: skip
        """(n,), (n,) and (n, augment_labels) -> (n, 4 channels), activated for the blocks.

        Where labels are captions, their tokens are beside it. A label of :data:`NO_CLASS`, or no
        labels, says nothing of the class: a zero embedding, as EDM's label dropout has it. Without
        ``augment`` the images are not augmented, which labels of zero say too.
        ``more`` (n, 4 channels) is added as the class is.
        """
        wave = timestep_embedding(self.spec.time_scale * c_noise, self.spec.channels)
        if augment is not None:
            wave = wave + self.augment(augment)
        emb = self.time_out(F.silu(self.time_in(wave.to(self.time_in.weight.dtype))))
        if labels is not None:
            known = (labels != NO_CLASS)[:, None]
            emb = emb + self.label(labels.clamp(min=0)) * known
        if more is not None:
            emb = emb + more
        emb = F.silu(emb)
        table = self.label
        return table.told(emb, labels, NO_CLASS) if isinstance(table, CaptionTable) else emb

    def innermost(self, x: Tensor, emb: Tensor | Told) -> Tensor:
        """x (n, 3, r, r), emb from :meth:`embed` -> features at the lowest resolution."""
        h = self.stem(x)
        for stage in (*self.encoder, *self.middle):
            h = stage(h, emb)
        return h

    def forward(self, x: Tensor, emb: Tensor | Told) -> Tensor:
        """x (n, 3, r, r), emb from :meth:`embed` -> (n, out_channels, r, r)."""
        h = self.stem(x)
        skips = [h]
        for stage in self.encoder:
            h = stage(h, emb)
            skips.append(h)
        for stage in self.middle:
            h = stage(h, emb)
        for parts in self.decoder:
            h = torch.cat([h, skips.pop()], dim=1)
            for stage in parts:  # type: ignore[attr-defined]
                h = stage(h, emb)
        return h


class UNet(nn.Module):
    """Trunk and head: F(x, c_noise, labels) of EDM's preconditioning."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.trunk = UNetTrunk(spec)
        self.head = Head(self.trunk.out_channels, spec.min_group, spec.image_channels)

    def forward(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None = None
    ) -> Tensor:
        """x (n, 3, r, r), c_noise (n,), labels (n,) -> (n, 3, r, r)."""
        return self.head(self.trunk(x, self.trunk.embed(c_noise, labels, augment)))
