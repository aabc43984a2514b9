"""Training curves read back from ``history/<stage>.jsonl``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagoda.errors import PagodaError

_NOT_CURVES = {"images", "step", "seconds", "final"}


@dataclass(frozen=True)
class History:
    """One stage's rows, in the order they were written.

    Attributes:
        stage: ``teacher``, ``invert``, ``distill``, ``grow-16``, …
        rows: each with ``images`` (seen so far), ``step``, ``seconds`` (since the stage began,
            resumed parts included) and the stage's statistics.
    """

    stage: str
    rows: tuple[dict[str, Any], ...]

    @property
    def images(self) -> int:
        """Images seen at the last row."""
        return int(self.rows[-1]["images"]) if self.rows else 0

    @property
    def steps(self) -> int:
        """Steps done at the last row."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def seconds(self) -> float:
        """Wall time of the stage's work at the last row."""
        return float(self.rows[-1]["seconds"]) if self.rows else 0.0

    @property
    def images_per_second(self) -> float | None:
        """Mean rate over the stage; None before any time has passed."""
        return self.images / self.seconds if self.seconds > 0 else None

    def names(self) -> list[str]:
        """Names of the curves, in order of first appearance."""
        seen: dict[str, None] = {}
        for row in self.rows:
            seen |= dict.fromkeys(k for k, v in row.items() if _is_curve(k, v))
        return list(seen)

    def curve(self, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(images seen, value) of the rows that carry ``key``, both (n,)."""
        rows = [r for r in self.rows if _is_curve(key, r.get(key))]
        images = np.array([r["images"] for r in rows], np.float64)
        return images, np.array([r[key] for r in rows], np.float64)


def read_history(path: Path, stage: str, *, running: bool = False) -> History:
    """Read a history file.

    Args:
        path: the ``.jsonl`` file.
        stage: name of the stage.
        running: the stage may still be writing: a missing file is an empty history, and an
            unfinished last line is left for the next reading.

    Raises:
        PagodaError: one line for a missing or damaged file.
    """
    if not path.is_file():
        if running:
            return History(stage, ())
        raise PagodaError(f"{path} is missing; 'dvc repro' makes it")
    lines = path.read_text(encoding="utf-8").split("\n")
    if running:
        lines = lines[:-1]
    return History(stage, tuple(_row(path, n, line) for n, line in enumerate(lines, 1) if line))


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        complete = all(key in row for key in ("images", "step", "seconds"))
        bad = [k for k, v in dict(row).items() if isinstance(v, float) and not math.isfinite(v)]
    except (ValueError, TypeError) as error:
        raise PagodaError(
            f"{path} line {number} is not a JSON object; delete the file and run 'dvc repro'"
        ) from error
    if bad:
        raise PagodaError(
            f"{path} line {number}: {', '.join(bad)} is not finite; train the stage again"
        )
    if not complete:
        raise PagodaError(
            f"{path} line {number} lacks images, step or seconds; delete the file and run "
            f"'dvc repro'"
        )
    return dict(row)


def _is_curve(key: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and key not in _NOT_CURVES
