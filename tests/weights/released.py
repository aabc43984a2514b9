"""Files that the reference code wrote, as users have them on disk."""

from __future__ import annotations

import lzma
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"


def unpack(name: str, folder: Path) -> Path:
    """Put one of them into ``folder``."""
    file = folder / name
    file.write_bytes(lzma.decompress((FIXTURES / f"{name}.xz").read_bytes()))
    return file
