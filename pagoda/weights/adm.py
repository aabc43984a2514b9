"""ADM's names, as Consistency Models and the official PaGoDA code write them.

An encoder entry is a residual block and perhaps attention; a decoder entry may end with a block
that samples up. PaGoDA appends the blocks of growth to the decoder's list. Channels of q, k and v
are in the order (3, head, d) of flash attention, the official code's default and also ours.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from pagoda.errors import PagodaError
from pagoda.networks.unet import UNetSpec
from pagoda.weights.converted import Found, Options, check_heads, multiples

_GROUPS = 32
_PARTS = {
    "in_norm": "in_layers.0", "in_conv": "in_layers.2", "emb": "emb_layers.1",
    "out_norm": "out_layers.0", "out_conv": "out_layers.3", "shortcut": "skip_connection",
    "norm": "norm", "qkv": "qkv", "proj": "proj_out",
}  # fmt: skip
_ENDS = {
    "trunk.time_in": "time_embed.0", "trunk.time_out": "time_embed.2", "trunk.label": "label_emb",
    "trunk.stem": "input_blocks.0.0", "head.0": "out.0", "head.2": "out.2",
}  # fmt: skip
_OURS = re.compile(
    r"(?:trunk\.(?P<kind>encoder|middle|decoder)|levels)\.(?P<i>\d+)\.(?:stages\.)?(?:(?P<j>\d+)\.)?"
    r"(?:(?P<part>block|attention)\.)?(?P<leaf>\w+)"
)


def is_adm(weights: dict[str, Tensor]) -> bool:
    """Whether these are the weights of an ADM U-Net."""
    return "input_blocks.0.0.weight" in weights and "time_embed.0.weight" in weights


def read_adm(path: Path, weights: dict[str, Tensor], options: Options) -> Found:
    """A U-Net or a grown generator, read from names and shapes.

    Raises:
        PagodaError: one line if they form a network that pagoda does not have.
    """
    check_heads(path, weights, options.head_channels)
    encoder, decoder = max(_entries(weights, "input")), 1 + max(_entries(weights, "output"))
    base = encoder + 1
    depth = 1 + sum(
        any(f"output_blocks.{i}.{j}.in_layers.0.weight" in weights for j in (1, 2))
        for i in range(base)
    )
    if decoder < base or base % depth:
        raise PagodaError(f"{path}: {encoder} encoder and {decoder} decoder entries form no U-Net")
    size = options.growth_blocks + 1
    if (decoder - base) % size:
        raise PagodaError(
            f"{path}: {decoder - base} decoder entries of growth are no multiple of {size}; "
            "--growth-blocks says how many follow each up-sampling one"
        )
    widths = [_width(path, weights, f"output_blocks.{i}.0") for i in range(base, decoder, size)]
    levels = tuple((width, options.growth_blocks) for width in widths)

    def theirs(ours: str) -> str:
        stem, _, end = ours.rpartition(".")
        if stem in _ENDS:
            return f"{_ENDS[stem]}.{end}"
        match = _OURS.fullmatch(stem)
        if match is None:
            return ""
        i, j, attends = int(match["i"]), int(match["j"] or 0), match["part"] == "attention"
        if match["kind"] == "encoder":
            place = f"input_blocks.{i + 1}.{int(attends)}"
        elif match["kind"] == "middle":
            place = f"middle_block.{2 * i + attends}"
        elif match["kind"] == "decoder":  # what samples up comes last
            last = 1 + (f"output_blocks.{i}.1.qkv.weight" in weights)
            place = f"output_blocks.{i}.{last if j else int(attends)}"
        else:
            place = f"output_blocks.{base + i * size + j}.0"
        return f"{place}.{_PARTS[match['leaf']]}.{end}"

    spec = _spec(path, weights, options, base, depth)
    return Found("adm", spec, levels, options.sigma_data, weights, theirs, _fit)


def _spec(
    path: Path, weights: dict[str, Tensor], options: Options, base: int, depth: int
) -> UNetSpec:
    channels = int(weights["input_blocks.0.0.weight"].shape[0])
    first = [1 + level * base // depth for level in range(depth)]
    mult = multiples(path, [_width(path, weights, f"input_blocks.{i}.0") for i in first], channels)
    if channels % _GROUPS:
        raise PagodaError(f"{path}: {channels} channels do not split into {_GROUPS} groups")
    if (labels := weights.get("label_emb.weight")) is None:
        raise PagodaError(f"{path}: no label_emb; only class-conditional networks can be imported")
    attention = tuple(
        options.resolution >> level
        for level, i in enumerate(first)
        if f"input_blocks.{i}.1.qkv.weight" in weights
    )
    return UNetSpec(
        resolution=options.resolution, channels=channels, channel_mult=mult,
        blocks=base // depth - 1, attention=attention, head_channels=options.head_channels,
        dropout=0.0, num_classes=int(labels.shape[0]), min_group=1,
    )  # fmt: skip


def _fit(ours: str, tensor: Tensor) -> Tensor:
    """Attention is a convolution over flattened pixels there."""
    return tensor[..., None] if ".attention." in ours and tensor.ndim == 3 else tensor


def _width(path: Path, weights: dict[str, Tensor], block: str) -> int:
    name = f"{block}.out_layers.3.weight"
    if name not in weights:
        raise PagodaError(f"{path}: no {name}, so no residual block there")
    return int(weights[name].shape[0])


def _entries(weights: dict[str, Tensor], part: str) -> set[int]:
    found = (re.match(rf"{part}_blocks\.(\d+)\.", name) for name in weights)
    return {-1} | {int(match[1]) for match in found if match}
