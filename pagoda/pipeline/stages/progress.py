"""Progress of long work: a bar with images/s and time left, or sparse lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pagoda import distributed

if TYPE_CHECKING:
    from rich.progress import Progress

_LINE_EVERY_S = 20.0


def log_line(line: str) -> None:
    """One line on stderr, from the main process."""
    if distributed.is_main_process():
        sys.stderr.write(line + "\n")


class Bar:
    """Counts images; :func:`track` makes one."""

    def __init__(self, total: int, description: str, progress: Progress | None) -> None:
        self.total, self.done, self.description = total, 0, description
        self._progress = progress
        self._task = progress.add_task(description, total=total) if progress else None
        self._start = self._line = time.monotonic()

    def advance(self, images: int) -> None:
        """Count ``images`` more."""
        self.done += images
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, images)
        elif time.monotonic() - self._line > _LINE_EVERY_S:
            self._line = time.monotonic()
            if not distributed.is_main_process():
                return
            rate = self.done / max(self._line - self._start, 1e-9)
            left = (self.total - self.done) / max(rate, 1e-9)
            line = f"{self.done}/{self.total} images, {rate:.0f} images/s, {left:.0f} s left"
            sys.stderr.write(f"{self.description}: {line}\n")


@contextmanager
def track(total_images: int, description: str) -> Iterator[Bar]:
    """Show progress over ``total_images`` images on stderr, from the first process."""
    if distributed.is_main_process() and sys.stderr.isatty():
        with _bar() as progress:
            yield Bar(total_images, description, progress)
    else:
        yield Bar(total_images, description, None)


def _bar() -> Progress:
    """A bar with images/s and time left."""
    from rich.console import Console  # its import is a tenth of the time of a cold `pagoda sample`
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.0f} images/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"),
               Rate(), TimeRemainingColumn())  # fmt: skip
    return Progress(*columns, console=Console(stderr=True))
