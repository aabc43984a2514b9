"""ADM's names, as Consistency Models and the official PaGoDA code write them.

An encoder entry is a residual block and perhaps attention; a decoder entry may end with a block
that samples up. PaGoDA appends the blocks of growth to the decoder's list. Channels of q, k and v
are in the order (3, head, d) of flash attention, the official code's default and also ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from torch import Tensor

from pagoda.errors import PagodaError
from pagoda.networks.unet import UNetSpec
from pagoda.weights.converted import Found, Options, check_heads

_GROUPS = 32
_RES = {
    "in_layers.0": "in_norm",
    "in_layers.2": "in_conv",
    "emb_layers.1": "emb",
    "out_layers.0": "out_norm",
    "out_layers.3": "out_conv",
    "skip_connection": "shortcut",
}
_ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "proj"}
_ENDS = {
    "time_embed.0": "trunk.time_in",
    "time_embed.2": "trunk.time_out",
    "label_emb": "trunk.label",
    "input_blocks.0.0": "trunk.stem",
    "out.0": "head.0",
    "out.2": "head.2",
}


def is_adm(weights: dict[str, Tensor]) -> bool:
    """Whether these are the weights of an ADM U-Net."""
    return "input_blocks.0.0.weight" in weights and "time_embed.0.weight" in weights


def convert_adm(path: Path, weights: dict[str, Tensor], options: Options) -> Found:
    """Weights of a U-Net or of a grown generator under our names.

    Raises:
        PagodaError: one line if they form a network that pagoda does not have.
    """
    check_heads(path, weights, options.head_channels)
    layout = _Layout(path, weights, options)
    taken, names, unused = {}, {}, []
    for name, tensor in weights.items():
        ours = layout.rename(name)
        if ours is None:
            unused.append(name)
            continue
        names[ours] = name
        flat = ".attention." in ours and tensor.ndim == 3  # convolution over flattened pixels
        taken[ours] = tensor[..., None] if flat else tensor
    return Found("adm", layout.spec, layout.levels, options.sigma_data, taken, names, tuple(unused))


class _Layout:
    """Which entry of the two lists is what, read from names and shapes."""

    def __init__(self, path: Path, weights: dict[str, Tensor], options: Options) -> None:
        self.path, self.weights, self.options = path, weights, options
        self.encoder = max(_entries(weights, "input_blocks"), default=0)
        decoder = 1 + max(_entries(weights, "output_blocks"), default=-1)
        self.base = self.encoder + 1
        depth = 1 + sum(
            any(self._has(f"output_blocks.{i}.{j}.in_layers.0.weight") for j in (1, 2))
            for i in range(self.base)
        )
        if decoder < self.base or self.base % depth:
            self._refuse(f"{self.encoder} encoder and {decoder} decoder entries form no U-Net")
        self.blocks = self.base // depth - 1
        self.spec = self._spec(depth)
        self.levels = self._levels(decoder - self.base)

    def _spec(self, depth: int) -> UNetSpec:
        channels = int(self.weights["input_blocks.0.0.weight"].shape[0])
        first = [1 + level * self.base // depth for level in range(depth)]
        widths = [self._width(f"input_blocks.{i}.0") for i in first]
        if widths[0] != channels or any(width % channels for width in widths):
            self._refuse(f"widths {widths} on {channels} channels; the first must be equal to it "
                         "and all multiples of it")  # fmt: skip
        if channels % _GROUPS:
            self._refuse(f"{channels} channels do not split into {_GROUPS} groups")
        labels = self.weights.get("label_emb.weight")
        if labels is None:
            self._refuse("no label_emb; only class-conditional networks can be imported")
        attention = tuple(
            self.options.resolution >> level
            for level, i in enumerate(first)
            if self._has(f"input_blocks.{i}.1.qkv.weight")
        )
        return UNetSpec(
            resolution=self.options.resolution,
            channels=channels,
            channel_mult=tuple(width // channels for width in widths),
            blocks=self.blocks,
            attention=attention,
            head_channels=self.options.head_channels,
            dropout=0.0,
            num_classes=int(labels.shape[0]),
            min_group=1,
        )

    def _levels(self, extra: int) -> tuple[tuple[int, int], ...]:
        size = self.options.growth_blocks + 1
        if extra % size:
            self._refuse(f"{extra} decoder entries of growth are no multiple of {size}; "
                         "--growth-blocks says how many follow each up-sampling one")  # fmt: skip
        starts = range(self.base, self.base + extra, size)
        return tuple(
            (self._width(f"output_blocks.{i}.0"), self.options.growth_blocks) for i in starts
        )

    def rename(self, name: str) -> str | None:
        """Our name of a weight, None where there is no place for it."""
        stem, _, end = name.rpartition(".")
        if stem in _ENDS:
            return f"{_ENDS[stem]}.{end}"
        for prefix, ours in self._parts(stem):
            table = _ATTENTION if ours.endswith("attention") else _RES
            part = table.get(stem.removeprefix(prefix + "."))
            return None if part is None else f"{ours}.{part}.{end}"
        return None

    def _parts(self, stem: str) -> Iterator[tuple[str, str]]:
        """The prefix of a block's names and our block, at most one."""
        match = re.match(
            r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.|middle_block\.([012])\.", stem
        )
        if match is None:
            return
        prefix, (kind, entry, part, middle) = match[0][:-1], match.groups()
        attention = self._has(f"{prefix}.qkv.weight")
        if middle is not None:
            place = f"trunk.middle.{int(middle) // 2}"
        elif kind == "input_blocks":
            place = f"trunk.encoder.{int(entry) - 1}"
        elif int(entry) < self.base:
            up = part != "0" and not attention
            place = f"trunk.decoder.{entry}.{int(up)}"
        else:
            level, stage = divmod(int(entry) - self.base, self.options.growth_blocks + 1)
            yield prefix, f"levels.{level}.stages.{stage}"
            return
        yield prefix, f"{place}.{'attention' if attention else 'block'}"

    def _has(self, name: str) -> bool:
        return name in self.weights

    def _width(self, block: str) -> int:
        name = f"{block}.out_layers.3.weight"
        if name not in self.weights:
            self._refuse(f"no {name}, so no residual block there")
        return int(self.weights[name].shape[0])

    def _refuse(self, why: str) -> NoReturn:
        raise PagodaError(f"{self.path}: {why}")


def _entries(weights: dict[str, Tensor], prefix: str) -> set[int]:
    found = (re.match(rf"{prefix}\.(\d+)\.", name) for name in weights)
    return {int(match[1]) for match in found if match}
