"""Autoencoders as the library diffusers saves them: ``config.json`` beside safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from pagoda.errors import PagodaError, denied
from pagoda.networks.autoencoder import CLASSES, card_of, diffusers_autoencoder
from pagoda.tensors import read_tensors
from pagoda.weight_files import misfit

_FILE = "diffusion_pytorch_model.safetensors"


def read_diffusers(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and card, as :func:`pagoda.networks.autoencoder.load_autoencoder` takes them.

    Nothing in the folder is run: the class is one of :data:`CLASSES` by its name, the
    configuration is JSON, the weights are safetensors; a pickle beside them is not read.

    Raises:
        PagodaError: one line: no such folder, another class, a configuration or weights that do
            not fit it.
    """
    try:
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except PermissionError as error:
        raise denied(error) from error
    except (OSError, ValueError, TypeError) as error:
        raise PagodaError(
            f"{folder} is no autoencoder: it has neither an artifact's manifest nor a config.json "
            f"of diffusers ({type(error).__name__}); autoencoder.imported names a folder with one"
        ) from error
    name = config.get("_class_name")
    if name not in CLASSES:
        raise PagodaError(f"{folder} holds {name!r}; autoencoders are {', '.join(CLASSES)}")
    try:
        made = diffusers_autoencoder(name, config)
    except PagodaError as error:
        raise PagodaError(f"{folder}: {error}") from error
    if not (folder / _FILE).is_file():
        raise PagodaError(f"{folder} lacks {_FILE}; save the autoencoder as safetensors")
    weights = {f"network.network.{k}": v for k, v in read_tensors(folder / _FILE).items()}
    if why := misfit(made, weights):
        raise PagodaError(f"{folder / _FILE}: {why}")
    return weights, card_of(made)
