"""Inception v3 as FID defines it, with clean-fid's networks, weights and resizers.

=================== ================================= ==========================================
mode                network                           resize to 299
=================== ================================= ==========================================
clean               TorchScript of the 2015 graph     Pillow bicubic a channel, float, clipped
legacy_tensorflow   TorchScript of the 2015 graph     TensorFlow 1 bilinear inside the network
legacy_pytorch      the weights ported by pytorch-fid torch bilinear, no antialiasing
=================== ================================= ==========================================

The ADM evaluator and EDM resize inside the network: ``legacy_tensorflow`` is their mode. Each mode
is a protocol of its own.

Spatial features, for sFID: the first 7 channels of ``mixed_6/conv`` (``Mixed_6d.branch1x1`` in
torchvision's names), rows x columns x channels, 17 * 17 * 7 = 2023 (ADM's evaluator). Logits: the
1008 of the graph without the bias of the last layer, as ADM and torch-fidelity take them for the
Inception Score. Both are there if the file of weights has the layers; the extractor says so.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pagoda.artifacts import digest, sha256
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import (
    Extractor,
    Family,
    Features,
    Forward,
    sizes,
)
from pagoda.evaluation.features.resize import one_by_one, tensorflow_bilinear
from pagoda.weight_files import WeightFile, find_weights, read_state

MODES = ("clean", "legacy_tensorflow", "legacy_pytorch")
_SIDE, _SPATIAL_CHANNELS = 299, 7
_CLEANFID_PLACE = Path("/tmp")  # where clean-fid itself downloads to and looks
TORCHSCRIPT = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""SHA-256 of NVIDIA's file, as k-diffusion and others pin it: TorchScript runs when it is read."""
_PYTORCH_SPATIAL = (2, 6)  # block, part of it: Mixed_6d


def weight_file(mode: str) -> WeightFile:
    """The published weights of a mode."""
    from cleanfid.downloads_helper import inception_url
    from cleanfid.inception_pytorch import FID_WEIGHTS_URL

    if mode == "legacy_pytorch":
        name = FID_WEIGHTS_URL.rsplit("/", 1)[1]
        return WeightFile("Inception weights", name, FID_WEIGHTS_URL)
    name = inception_url.rsplit("/", 1)[1]
    places = (_CLEANFID_PLACE, Path())
    return WeightFile("Inception weights", name, inception_url, places, TORCHSCRIPT)


def open_inception(
    mode: str,
    device: torch.device,
    batch: int,
    weights: Path | None = None,
    download: bool = False,
) -> Extractor:
    """Inception in one of :data:`MODES`; arguments as of :func:`.base.open_extractor`.

    Without ``weights`` they are looked for where clean-fid does.

    Raises:
        PagodaError: for an unknown mode, or weights that are missing or damaged.
    """
    _check(mode)
    path = find_weights(weight_file(mode), weights, download)
    try:
        if mode == "legacy_pytorch":
            forward, has_spatial = _ported(path, device)
        else:
            forward, has_spatial = _torchscript(path, mode, device)
        dim, spatial_dim, classes = sizes(forward, has_spatial)
    except (RuntimeError, AttributeError, KeyError, AssertionError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[-1]
        raise PagodaError(f"{path} holds no Inception that clean-fid can run ({why})") from error
    card = {"mode": mode, "weights": sha256(path), "resize": mode, "side": _SIDE}
    name = f"inception_{mode}"
    fingerprint = digest([name, card])
    return Extractor(
        name, "inception", dim, spatial_dim, classes, card, fingerprint, forward, batch
    )


def _check(mode: str) -> None:
    if mode not in MODES:
        raise PagodaError(f"Inception has no mode {mode!r}; it is one of {', '.join(MODES)}")


def _untrained(name: str) -> tuple[Callable[[], nn.Module], int]:
    """torchvision's network, which has the convolutions of the one that FID is made with."""
    from torchvision.models import inception_v3

    return partial(inception_v3, weights=None, aux_logits=False, init_weights=False), _SIDE


def _torchscript(path: Path, mode: str, device: torch.device) -> tuple[Forward, bool]:
    from cleanfid.inception_torchscript import InceptionV3W

    inside = mode == "legacy_tensorflow"
    with _under(path, weight_file(mode).name) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of TorchScript's future
        network = InceptionV3W(str(folder), download=False, resize_inside=inside)
    network = network.to(device).eval()
    has_spatial = _has(network.layers, "mixed_6", "conv")
    weight = network.base.output.weight if _has(network.base, "output") else None

    def forward(images: np.ndarray, spatial: bool) -> Features[Tensor]:
        resized = images if inside else resize(images, mode)
        x = torch.from_numpy(resized).to(device, torch.float32)
        # Without this TorchScript fuses kernels after its first calls: other bits from then on.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            if not spatial:
                pooled, maps = network(x), None
            elif inside:
                _, maps = _layers(network.layers, _scaled(tensorflow_bilinear(x, _SIDE)), False)
                pooled = network(x)
            else:
                pooled, maps = _layers(network.layers, _scaled(x), True)
        return Features(pooled, maps, None if weight is None else pooled @ weight.T)

    return forward, has_spatial


def _layers(layers: Any, x: Tensor, to_the_end: bool) -> tuple[Tensor, Tensor]:
    """Run the network's layers one by one: pooled features (n, 2048) and the spatial map."""
    maps = None
    for name, layer in layers.named_children():
        if name == "mixed_6":
            maps = _flat(layer.conv(x))
            if not to_the_end:
                break
        x = layer(x)
    assert maps is not None  # the caller has looked
    return x.flatten(1), maps


def _scaled(x: Tensor) -> Tensor:
    return (x - 128) / 128


def _ported(path: Path, device: torch.device) -> tuple[Forward, bool]:
    from cleanfid.inception_pytorch import InceptionV3

    state = read_state(path)
    if whole := [name for name, v in state.items() if v.ndim and not v.is_floating_point()]:
        raise PagodaError(f"{path}: {whole[0]} holds whole numbers, so these are no weights")
    with _handed_over(state), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's old names for its arguments
        network = InceptionV3(output_blocks=[3], resize_input=False).to(device).eval()
    weight = state["fc.weight"].to(device)
    block, part = _PYTORCH_SPATIAL
    kept: list[Tensor] = []
    network.blocks[block][part].branch1x1.register_forward_hook(lambda *a: kept.append(a[2]))

    def forward(images: np.ndarray, spatial: bool) -> Features[Tensor]:
        kept.clear()
        x = torch.from_numpy(resize(images, "legacy_pytorch")).to(device, torch.float32)
        pooled = network(x / 255)[0].flatten(1)
        return Features(pooled, _flat(kept.pop()) if spatial else None, pooled @ weight.T)

    return forward, True


def resize(images: np.ndarray, mode: str) -> np.ndarray:
    """clean-fid's resizer of a mode: uint8 (n, 3, h, w) -> float32 (n, 3, 299, 299), 0..255."""
    from cleanfid.resize import build_resizer

    with warnings.catch_warnings():  # clean-fid silences all warnings of the process
        return one_by_one(build_resizer(mode), images).astype(np.float32, copy=False)


def _flat(maps: Tensor) -> Tensor:
    """(n, channels, h, w) -> (n, h * w * 7), channels last as in TensorFlow."""
    return maps[:, :_SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)


def _has(module: Any, *names: str) -> bool:
    for name in names:
        children = dict(module.named_children())
        if name not in children:
            return False
        module = children[name]
    return True


@contextmanager
def _under(path: Path, name: str) -> Iterator[Path]:
    """A folder in which ``path`` goes by ``name``, the only one clean-fid opens."""
    if path.name == name:
        yield path.parent
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).symlink_to(path.resolve())
        yield Path(folder)


@contextmanager
def _handed_over(state: Mapping[str, Tensor]) -> Iterator[None]:
    """clean-fid gets these weights; by itself it has ``torch.hub`` unpickle them, code and all."""
    from cleanfid import inception_pytorch as theirs

    before = theirs.load_state_dict_from_url
    theirs.load_state_dict_from_url = lambda *_, **__: state
    try:
        yield
    finally:
        theirs.load_state_dict_from_url = before


FAMILY = Family(
    f"inception[:{'|'.join(MODES)}]",
    lambda asked: open_inception(
        asked.name or MODES[0], asked.device, asked.batch, asked.weights, asked.download
    ),
    lambda name: _check(name or MODES[0]),
    untrained=_untrained,
)
