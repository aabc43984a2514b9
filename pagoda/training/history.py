"""Training curves as JSON lines, one file a stage."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self


class History:
    """Appends rows to ``<path>``; each row is flushed, so a reader can follow a running stage.

    Args:
        path: the ``.jsonl`` file; its folder is made.
        keep_images: rows of an earlier, interrupted run are kept up to this many images seen.
        backup: where :meth:`back_up` copies the rows; DVC deletes a stage's outputs, and ``path``
            with them, before it runs the stage again.
    """

    def __init__(self, path: str | Path, keep_images: int = -1, backup: Path | None = None) -> None:
        self.path, self.keep_images, self.backup = Path(path), keep_images, backup
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        source = self.path if self.path.exists() or self.backup is None else self.backup
        kept = _rows(source, self.keep_images) if source.exists() else []
        with _replaced(self.path) as partial:
            partial.write_text("".join(f"{row}\n" for row in kept))
        self._file = self.path.open("a")
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

    def back_up(self) -> None:
        """Copy the rows written so far to where the checkpoint that they belong to will be.

        Before the checkpoint: rows after it are passed over, rows before it could not be made up.
        """
        if self.backup is not None:
            self.backup.parent.mkdir(parents=True, exist_ok=True)
            with _replaced(self.backup) as partial:
                shutil.copyfile(self.path, partial)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of ``path`` when it is whole."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def _rows(path: Path, most_images: int) -> list[str]:
    """Whole rows up to ``most_images`` images; a kill may have cut the last line short."""
    rows = [row for row in path.read_text().splitlines() if row.endswith("}")]
    return [row for row in rows if json.loads(row)["images"] <= most_images]
