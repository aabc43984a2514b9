"""What tests of stages share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.stages.photographs import write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of photographs, a folder a split and a class."""
    return write_photos(tmp_path / "photos")


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with nothing in it."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
