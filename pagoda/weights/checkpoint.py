"""State dicts of PyTorch, ``.pt``, read as numbers and nothing else."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pagoda.errors import PagodaError


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pt`` file by name.

    Raises:
        PagodaError: one line if the file holds code, or anything but named tensors.
    """
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise PagodaError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # whatever a crafted file makes torch raise
        lines = str(error).splitlines() or [type(error).__name__]
        why = next((line.strip() for line in lines if "GLOBAL" in line), lines[0].strip())
        raise PagodaError(f"{path}: torch refuses to read it as weights: {why}") from error
    if not isinstance(tree, dict) or not tree:
        raise PagodaError(f"{path} holds a {type(tree).__name__}, expected tensors by name")
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise PagodaError(
                f"{path}: {name!r} is a {type(value).__name__}, expected tensors by name"
            )
    return tree
