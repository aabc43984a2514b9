"""Files of measured values, and several sample seeds of one generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pagoda import artifacts, outputs
from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import larger_is_better
from pagoda.rows import Row


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


def over_seeds(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry a protocol: its values by seed, min, max, mean, sd (ddof 1), and the best.

    Papers often report the best of three seeds. It is here under a name that says so,
    ``<protocol>_best_of_<seeds>``, beside the mean; it is biased, and more so the more seeds.

    Raises:
        PagodaError: if a protocol has one value only, or one that is NaN or infinite.
    """
    by_protocol: dict[str, list[Row]] = {}
    for row in rows:
        by_protocol.setdefault(row.protocol, []).append(row)
    found = []
    for protocol, own in by_protocol.items():
        values = np.array([row.value for row in own], np.float64)
        if len(values) < 2 or not np.isfinite(values).all():
            raise PagodaError(f"{protocol}: a summary over seeds needs 2 or more finite values")
        best = values.max() if own[0].metric in larger_is_better() else values.min()
        found.append({
            "metric": own[0].metric,
            "protocol": protocol,
            "seeds": [row.seed for row in own],
            "values": values.tolist(),
            "min": float(values.min()),
            "max": float(values.max()),
            "mean": float(values.mean()),
            "sd": float(values.std(ddof=1)),
            f"{protocol}_best_of_{len(own)}": float(best),
        })  # fmt: skip
    return found
