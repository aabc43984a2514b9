"""Text in files, a line an image or a prompt."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from pagoda.errors import PagodaError
from pagoda.outputs import check_file, new_file
from pagoda.pipeline.stages.progress import log_line
from pagoda.rows import read_text


def read_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file, without the spaces around them; empty ones stay.

    Raises:
        PagodaError: one line; it is missing, cannot be read or is not UTF-8.
    """
    return [line.strip() for line in read_text(file).splitlines()]


def write_lines(lines: Iterable[str], out: Path | None) -> None:
    """Lines to a new file, or shown, as they come: there may be more than memory holds.

    Raises:
        PagodaError: one line: something is in the way, or the place cannot be written to.
    """
    ended = (f"{line}\n" for line in lines)
    if out is None:
        sys.stdout.writelines(ended)
        return
    check_file(out)
    if out.exists():
        raise PagodaError(f"{out} is there; choose another place")
    with new_file(out) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.writelines(ended)
    log_line(f"written: {out}")
