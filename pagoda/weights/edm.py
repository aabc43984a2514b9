"""NVIDIA's EDM networks (DhariwalUNet behind EDMPrecond) from what a pickle holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pagoda.errors import PagodaError
from pagoda.networks.unet import UNetSpec
from pagoda.weights.converted import Found, check_heads, multiples
from pagoda.weights.pickles import PERSISTENT, Held, Record

_HEAD_CHANNELS = 64  # fixed in DhariwalUNet
_PARTS = {
    "block.in_norm": "norm0", "block.in_conv": "conv0", "block.emb": "affine",
    "block.out_norm": "norm1", "block.out_conv": "conv1", "block.shortcut": "skip",
    "attention.norm": "norm2", "attention.qkv": "qkv", "attention.proj": "proj",
}  # fmt: skip
_ENDS = {
    "trunk.time_in": "map_layer0", "trunk.time_out": "map_layer1", "trunk.label": "map_label",
    "trunk.augment": "map_augment", "head.0": "out_norm", "head.2": "out_conv",
}  # fmt: skip


def read_edm(path: Path, tree: Any) -> Found:
    """The EMA network of a pickle of EDM.

    Raises:
        PagodaError: one line if the file holds another network.
    """
    snapshot = tree if isinstance(tree, dict) else {"ema": tree}
    outer, state = _object(path, snapshot.get("ema"))
    inner, model = outer, dict[str, Any]()
    if outer == "EDMPrecond":
        inner, model = _object(path, state["_modules"].get("model"))
    if inner != "DhariwalUNet" or state["img_channels"] != 3:
        raise PagodaError(_stranger(path, inner))
    weights = {}
    for name, tensor in _flatten(path, model, "").items():
        if not name.endswith(".resample_filter"):
            weights[name] = tensor
        elif tuple(tensor.shape) != (1, 1, 2, 2) or not bool((tensor == 0.25).all()):
            raise PagodaError(
                f"{path}: {name} is no mean of 2x2, which pagoda's networks resample by"
            )
    check_heads(path, weights, _HEAD_CHANNELS)
    spec = _spec(path, state["img_resolution"], weights, state["label_dim"])
    weights.setdefault("map_label.weight", torch.zeros(4 * spec.channels, 1))
    places = _places(weights)

    def theirs(ours: str) -> str:
        stem, _, end = ours.rpartition(".")
        return f"{places.get(stem, '')}.{end}"

    return Found("edm", spec, (), float(state["sigma_data"]), weights, theirs, _fit)


def _object(path: Path, record: Any) -> tuple[str, dict[str, Any]]:
    """Class name and state of a module."""
    if isinstance(record, Record):
        if record.name == PERSISTENT and record.args and isinstance(record.args[0], dict):
            return str(record.args[0].get("class_name")), dict(record.args[0].get("state") or {})
        if isinstance(record.state, dict):
            return record.name.rpartition(".")[2], record.state
    raise PagodaError(f"{path}: no network under 'ema', which EDM's snapshots have")


def _stranger(path: Path, name: str) -> str:
    if name in ("Precond", "UNet"):
        return (f"{path} holds an EDM2 network, whose magnitude-preserving layers pagoda does not "
                "have; EDM's ADM network (--arch=adm) can be imported")  # fmt: skip
    return f"{path} holds a {name}; of EDM's networks the ADM one (DhariwalUNet) can be imported"


def _flatten(path: Path, state: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """Parameters and buffers of a module's state by their dotted names, in the module's order."""
    found = {}
    for group in ("_parameters", "_buffers"):
        for name, value in state.get(group, {}).items():
            if isinstance(value, Held):
                found[prefix + name] = value.tensor
    for name, child in state.get("_modules", {}).items():
        if child is not None:
            found |= _flatten(path, _object(path, child)[1], f"{prefix}{name}.")
    return found


def _places(weights: dict[str, Tensor]) -> dict[str, str]:
    """Our stem of a weight's name to the file's; the order of the blocks says where each goes."""
    places, encoder, decoder, middle = dict(_ENDS), 0, 0, 0
    for block in dict.fromkeys(".".join(n.split(".")[:2]) for n in weights):
        part, _, name = block.partition(".")
        if part == "enc" and name.endswith("_conv"):
            places["trunk.stem"] = block
            continue
        if part == "enc":
            ours, encoder = f"trunk.encoder.{encoder}", encoder + 1
        elif part == "dec" and re.search(r"_in\d$", name):
            ours, middle = f"trunk.middle.{middle}", middle + 1
        elif part == "dec" and name.endswith("_up"):
            ours = f"trunk.decoder.{decoder - 1}.1"  # it ends the entry before it
        elif part == "dec":
            ours, decoder = f"trunk.decoder.{decoder}.0", decoder + 1
        else:
            continue
        places |= {f"{ours}.{mine}": f"{block}.{leaf}" for mine, leaf in _PARTS.items()}
    return places


def _spec(path: Path, resolution: int, weights: dict[str, Tensor], classes: int) -> UNetSpec:
    pattern = re.compile(r"enc\.(\d+)x\d+_block(\d+)\.conv1\.weight")
    blocks = [(int(m[1]), int(m[2]), len(w)) for n, w in weights.items() if (m := pattern.match(n))]
    widths = {side: width for side, _, width in blocks}
    channels = int(weights["map_layer0.weight"].shape[1])
    augment = weights.get("map_augment.weight")
    return UNetSpec(
        resolution=resolution, channels=channels,
        channel_mult=multiples(path, list(widths.values()), channels),
        blocks=1 + max(index for _, index, _ in blocks),
        attention=tuple(s for s in widths if f"enc.{s}x{s}_block0.qkv.weight" in weights),
        head_channels=_HEAD_CHANNELS, dropout=0.0, num_classes=max(1, classes), time_scale=1.0,
        augment_labels=0 if augment is None else int(augment.shape[1]), min_group=4,
    )  # fmt: skip


def _fit(ours: str, tensor: Tensor) -> Tensor:
    if ours.startswith("trunk.label."):
        return tensor.T  # EDM multiplies by one-hot labels
    if ".qkv." in ours:  # (head, d, 3), ours (3, head, d)
        split = tensor.reshape(-1, _HEAD_CHANNELS, 3, *tensor.shape[1:])
        return split.movedim(2, 0).reshape(tensor.shape)
    return tensor
