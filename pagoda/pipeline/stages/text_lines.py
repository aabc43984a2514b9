"""Text that a user gives as a file, a line an image or a prompt."""

from __future__ import annotations

from pathlib import Path

from pagoda.rows import read_text


def read_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file, without the spaces around them; empty ones stay.

    Raises:
        PagodaError: one line; it is missing, cannot be read or is not UTF-8.
    """
    return [line.strip() for line in read_text(file).splitlines()]
