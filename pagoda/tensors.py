"""Files of tensors as safetensors writes and reads them: numbers, no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from pagoda.errors import PagodaError, denied, first_line


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None
) -> None:
    """Write tensors, and facts beside them, readable to whom other new files are."""
    path.touch()
    mode = path.stat().st_mode  # what the umask leaves; safetensors sets 0600
    safetensors.torch.save_file(dict(tensors), path, None if facts is None else dict(facts))
    path.chmod(mode)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Raises:
        PagodaError: one line if it is none of safetensors, or may not be read.
    """
    try:
        path.open("rb").close()  # safetensors calls what may not be read not found
        return safetensors.torch.load_file(path)
    except PermissionError as error:
        raise denied(error) from error
    except Exception as error:  # safetensors raises its own private types
        why = first_line(error)
        raise PagodaError(f"{path} is no sound safetensors file ({why}); get it again") from error
