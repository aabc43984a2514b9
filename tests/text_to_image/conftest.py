"""Pipelines that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """By name the folder of each tiny pipeline, and diffusers' own object."""
    from tests.text_to_image import pipelines as tiny

    folder = tmp_path_factory.mktemp("pipelines")
    made = {"sd": tiny.stable_diffusion, "lcm": tiny.consistency, "if": tiny.deepfloyd}
    return {name: (folder / name, make(folder / name)) for name, make in made.items()}
