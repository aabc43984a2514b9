"""A source is one file: nothing else is edited, and the pipeline and scoring take it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pagoda import artifacts, sources
from pagoda.config import parse
from pagoda.data.registry import names
from pagoda.errors import PagodaError
from pagoda.evaluation.files import open_images
from pagoda.stages import downsample
from tests.tiny import override, smoke_tree

STRIPES = '''
"""Stripes of ten brightnesses; a file says how many pixels wide they are."""

from pathlib import Path

import numpy as np

from pagoda.data.base import Arrays, ImageSource
from pagoda.data.registry import Source


def pictures(path, _=None):
    width = int(Path(path).read_text())
    rows = np.arange(40) % 10 * 25
    pixels = np.where(np.arange(16) // width % 2, rows[:, None], 255).astype(np.uint8)
    return Arrays(str(path), np.repeat(pixels[:, None], 16, 1), "stripes")


def opened(wanted):
    names = [str(i) for i in range(10)]
    return ImageSource(pictures(wanted.path), wanted, names, np.arange(40) % 10)


SOURCE = Source(opened, needs="path", endings=(".stripes",), unlabelled=pictures)
'''


@pytest.fixture
def stripes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of such a source, which lies in a folder that the package of sources also has."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stripes.py").write_text(STRIPES)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "mine")])
    (tmp_path / "set.stripes").write_text("2")
    return tmp_path / "set.stripes"


def test_a_new_source_is_cut_and_scored(stripes: Path) -> None:
    assert "stripes" in names()
    tree = override(smoke_tree(), {"data.source": "stripes", "data.path": str(stripes),
                                   "data.train_images": 40, "data.test_images": 20})  # fmt: skip
    config = parse(tree)
    downsample.run(config, 8)
    folder = Path("runs") / config.name / "data" / "8"
    made = artifacts.open_artifact(folder, "images")
    grey = np.where(np.arange(8) % 2, np.arange(40)[:, None] % 10 * 25, 255)
    wanted = np.broadcast_to(grey[:, None, None], (40, 3, 8, 8))
    assert np.array_equal(made.array("train_images"), wanted)
    assert made.card()["source"] == "stripes"
    for path in (stripes, Path(f"stripes:{stripes}")):
        scored = open_images(path)
        assert scored.read(np.arange(40)).shape == (40, 3, 16, 16)
    stored = open_images(folder, "test")
    assert np.array_equal(stored.read(np.arange(20)), wanted[:20])


def test_what_it_needs_is_checked(stripes: Path) -> None:
    tree = override(smoke_tree(), {"data.source": "stripes", "data.path": None})
    with pytest.raises(PagodaError, match=r"data\.path = None; it must be the path of a stripes"):
        parse(tree)
    with pytest.raises(PagodaError, match=r"data\.source = 'ftp'; it must be one of .* stripes, "):
        parse(override(smoke_tree(), {"data.source": "ftp"}))


def test_an_artifact_is_scored_by_its_split(stripes: Path) -> None:
    tree = override(smoke_tree(), {"data.train_images": 10, "data.test_images": 70})
    config = parse(tree)
    downsample.run(config, 8)
    folder = Path("runs") / config.name / "data" / "8"
    with pytest.raises(PagodaError, match="--split says which"):
        open_images(folder)
    array = artifacts.open_artifact(folder, "images").array("test_images")
    assert np.array_equal(open_images(folder, "test").read(np.arange(70)), array)
    with pytest.raises(PagodaError, match=r"data\.test_images must say how many"):
        open_images(Path("embedded:"))
