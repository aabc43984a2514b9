"""Measured values, and files of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda import artifacts, outputs
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
        PagodaError: if it cannot be written, or a value is not finite.
    """
    check_out(path)
    artifacts.write_json(path, tree)


def check_out(path: Path) -> None:
    """Fail before hours of work: results take the place of nothing, or of older results.

    Raises:
        PagodaError: one line: what is in the way, or that the folder is not the user's.
    """
    outputs.check_file(path)
    if path.exists() and path.stat().st_size and not _is_results(path):
        raise PagodaError(f"{path} holds something else than results, so it stays; choose another")


def _is_results(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8"))["rows"], list)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
