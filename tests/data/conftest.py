"""What tests of data share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.animals import write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The animals as a folder: train and test, a folder a class."""
    return write_folder(tmp_path / "animals")
