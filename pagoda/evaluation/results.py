"""Measured values, and files of them."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.errors import PagodaError


@dataclass(frozen=True)
class Value:
    """A measured value.

    Attributes:
        metric, protocol: its names.
        value: the number.
        reference_n: number of reference images, None if unknown.
        sd: standard deviation over the subsets or splits that the value is a mean over (ddof 0);
            None where it is no such mean.
    """

    metric: str
    protocol: str
    value: float
    reference_n: int | None
    sd: float | None = None


def write_results(path: Path, tree: dict[str, Any]) -> None:
    """Write JSON, the whole file or none.

    Raises:
        PagodaError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(tree, indent=1, sort_keys=True, allow_nan=False) + "\n")
        partial.replace(path)
    except OSError as error:
        raise PagodaError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def check_out(path: Path) -> None:
    """Fail before hours of work: the nearest folder that is there must be one to write to.

    Raises:
        PagodaError: if it is not.
    """
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir() or not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise PagodaError(f"cannot write {path}; --out names a file in a folder that is yours")
