"""A user's own feature network: a TorchScript file, or a function by its name.

The network takes uint8 RGB images (n, 3, h, w) of any size, as a tensor, and does its own
resizing and normalisation. It returns features (n, d), or a pair of features and class logits.
A function may be a module, too: ``module:function`` names anything that can be called. A network
that depends on other images of its batch is refused.

Both are programs, which run: a function is Python, and TorchScript reads and writes files if it
wants to. Name only what you would run yourself.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pagoda.artifacts import digest, sha256
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor, Family, Features, Forward, sizes


def open_custom(where: str, device: torch.device, batch: int) -> Extractor:
    """A network by ``FILE`` (TorchScript) or ``module:function``.

    The fingerprint is over the file; for a function, over its module's file and a module's weights.

    Raises:
        PagodaError: if it cannot be loaded or does not do what this module says.
    """
    if re.fullmatch(r"[\w.]+:\w+", where):
        network, stem, facts = _function(where)
    else:
        network, stem, facts = _torchscript(Path(where))
    if isinstance(network, torch.nn.Module):
        network = network.to(device).eval()
    forward = _forward(network, where, device)
    dim, _, classes = sizes(forward, False)
    _check_rows_are_independent(forward, where)
    name = f"custom_{re.sub(r'[^A-Za-z0-9]+', '_', stem)}"
    card = {"network": where, **facts}
    fingerprint = digest([name, facts])
    return Extractor(name, "custom", dim, None, classes, card, fingerprint, forward, batch)


def _torchscript(path: Path) -> tuple[Any, str, dict[str, str]]:
    if not path.is_file():
        raise PagodaError(
            f"there is no {path}; a custom extractor is a TorchScript file or module:function"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of TorchScript's future
            network = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise PagodaError(f"{path} is no TorchScript file; save it with torch.jit.save") from error
    return network, path.stem, {"weights": sha256(path)}


def _function(where: str) -> tuple[Any, str, dict[str, str]]:
    module_name, name = where.split(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a file beside the user's data, as python itself does
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, name)
    except (ImportError, AttributeError) as error:
        raise PagodaError(f"cannot import {where}: {error}") from error
    if not callable(function):
        raise PagodaError(f"{where} cannot be called; name a function or a torch module")
    source = getattr(module, "__file__", None)
    facts = {"source": sha256(Path(source)) if source else module_name}
    if isinstance(function, torch.nn.Module):
        facts["weights"] = _weights_digest(function)
    return function, f"{module_name.split('.')[-1]}_{name}", facts


def _weights_digest(network: torch.nn.Module) -> str:
    state = network.state_dict()
    return digest({k: digest(v.detach().cpu().numpy().tobytes().hex()) for k, v in state.items()})


def _forward(network: Any, where: str, device: torch.device) -> Forward:
    def forward(images: np.ndarray, spatial: bool) -> Features[torch.Tensor]:
        try:
            out = network(torch.from_numpy(images).to(device))
        except (RuntimeError, TypeError, ValueError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise PagodaError(
                f"{where} fails on uint8 images of shape {images.shape}: {why}"
            ) from error
        features, logits = out if isinstance(out, tuple) and len(out) == 2 else (out, None)
        for rows in (features, logits):
            if rows is not None and not isinstance(rows, torch.Tensor):
                raise PagodaError(f"{where} returns {type(rows).__name__}; it must return a tensor")
        return Features(features, None, logits)

    return forward


def _check_rows_are_independent(forward: Forward, where: str) -> None:
    """Batch normalisation left in training mode and the like would make numbers meaningless."""
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    other = images.copy()
    other[1:] = 255 - other[1:]
    with torch.inference_mode():
        first, second = (forward(batch, False).pooled[0] for batch in (images, other))
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-5):
        raise PagodaError(
            f"{where}: an image's features depend on the others of its batch; put the network in "
            "eval mode, and use no randomness"
        )


FAMILY = Family(
    "custom:FILE or custom:module:function",
    lambda asked: open_custom(asked.name, asked.device, asked.batch),
)
