"""Files of measured values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pagoda import artifacts, outputs
from pagoda.errors import PagodaError


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
