"""Training curves as JSON lines, one file a stage."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pagoda.errors import PagodaError
from pagoda.outputs import new_file

HISTORY = "history.jsonl"
"""Copy of the training curves that belong to the checkpoints beside it."""


class History:
    """Appends rows to ``<path>``; each row is flushed, so a reader can follow a running stage.

    Args:
        path: the ``.jsonl`` file; its folder is made.
        keep_images: rows of this run, which was interrupted, are kept up to this many images seen.
        own: a second copy, beside the run's checkpoints, from which ``path`` is made again: other
            runs write to ``path`` too, and DVC deletes it before it runs the stage again.
    """

    def __init__(self, path: str | Path, keep_images: int = -1, own: Path | None = None) -> None:
        self.path, self.keep_images = Path(path), keep_images
        self._paths = [own, self.path] if own else [self.path]
        self._files: list[IO[str]] = []

    def __enter__(self) -> Self:
        kept = "".join(f"{row}\n" for row in _rows(self._paths[0], self.keep_images))
        for path in self._paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path) as partial:
                partial.write_text(kept, encoding="utf-8")
        self._files = [path.open("a", encoding="utf-8") for path in self._paths]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            file.close()

    def write(self, *, images: int, step: int, seconds: float, **values: float) -> None:
        """Append one row. ``seconds`` counts from the start of the stage.

        Raises:
            PagodaError: a value is not finite.
        """
        assert self._files, "History is a context manager"
        if bad := [name for name, value in values.items() if not math.isfinite(value)]:
            raise PagodaError(
                f"{self.path.stem}: {', '.join(bad)} is not finite at step {step}; lower the "
                "learning rate or use fp32, then run again"
            )
        row = {"images": images, "step": step, "seconds": round(seconds, 3), **values}
        for file in self._files:
            file.write(json.dumps(row) + "\n")
            file.flush()

    def sync(self) -> None:
        """Hand the rows to the disk, before the checkpoint that they belong to.

        Rows after a checkpoint are passed over, rows before it could not be made up.
        """
        os.fsync(self._files[0].fileno())


def read_rows(path: Path) -> list[str]:
    """Whole rows of a file, if it is there; a kill may have cut the last one short."""
    if not path.exists():
        return []
    return [row for row in path.read_text(encoding="utf-8").splitlines() if row.endswith("}")]


def _rows(path: Path, most_images: int) -> list[str]:
    return [row for row in read_rows(path) if json.loads(row)["images"] <= most_images]
