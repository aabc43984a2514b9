"""Ctrl-C and SIGTERM as a question that a loop asks, so that neither cuts what it does in half."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def orderly_stop() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag while a block runs; only in the main thread.

    Yields:
        A function that says whether one of them came.

    Raises:
        ValueError: called in another thread, where Python sets no handlers.
    """
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    old = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in signals}
    try:
        yield lambda: bool(caught)
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
