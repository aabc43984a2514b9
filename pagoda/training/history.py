"""Training curves as JSON lines, one file a stage."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO, Self


class History:
    """Appends rows to ``<path>``; each row is flushed, so a reader can follow a running stage.

    Args:
        path: the ``.jsonl`` file; its folder is made.
        keep_images: rows of an earlier, interrupted run are kept up to this many images seen.
    """

    def __init__(self, path: str | Path, keep_images: int = -1) -> None:
        self.path, self.keep_images = Path(path), keep_images
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        old = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [row for row in old if json.loads(row)["images"] <= self.keep_images]
        self._file = self.path.open("w")
        self._file.writelines(f"{row}\n" for row in kept)
        self._file.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, *, images: int, step: int, seconds: float, **values: float) -> None:
        """Append one row. ``seconds`` counts from the start of the stage."""
        assert self._file is not None, "History is a context manager"
        row = {"images": images, "step": step, "seconds": round(seconds, 3), **values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
