"""Several sample seeds of one generator: every value, and min, mean and sd over the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.scoring import LARGER_IS_BETTER


def over_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a protocol: its values by seed, min, max, mean, sd (ddof 1), and the best.

    Papers often report the best of three seeds. It is here under a name that says so,
    ``<protocol>_best_of_<seeds>``, beside the mean; it is biased, and more so the more seeds.

    Raises:
        PagodaError: if a protocol has one value only, or one that is NaN or infinite.
    """
    by_protocol: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_protocol.setdefault(row["protocol"], []).append(row)
    return [_summary(protocol, found) for protocol, found in by_protocol.items()]


def _summary(protocol: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    values = np.array([row["value"] for row in rows], np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise PagodaError(f"{protocol}: a summary over seeds needs 2 or more finite values")
    larger = rows[0]["metric"] in LARGER_IS_BETTER
    return {
        "metric": rows[0]["metric"],
        "protocol": protocol,
        "seeds": [row["seed"] for row in rows],
        "values": values.tolist(),
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)),
        f"{protocol}_best_of_{len(rows)}": float(values.max() if larger else values.min()),
    }
