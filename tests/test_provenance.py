"""What a user names as a model: the advice fits what is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import pagoda
from pagoda import hub
from pagoda.errors import PagodaError
from pagoda.pipeline.stages.edit_inputs import open_teacher
from pagoda.pipeline.stages.export import Request
from pagoda.pipeline.stages.export import run as export
from tests.tiny_run import GEN, TEACHER


@pytest.fixture
def run(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny_run)
    return tiny_run


def damage(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("open_it", [pagoda.load, lambda f: hub.push(f, "owner/name")])
def test_only_what_a_run_made_is_to_be_deleted(
    run: Path, tmp_path: Path, open_it: Callable[[Path], object]
) -> None:
    """'dvc repro' makes a run's model again, and no other one's: a damaged one says both."""
    own, given = tmp_path / "own", tmp_path / "given"
    shutil.copytree(GEN, own)
    export(Request(GEN, given))
    for folder in (own, given):
        damage(folder)
    remedies = r"damaged .*if a run made its folder, delete .*'dvc repro'; else get it, or export"
    for folder in (own, given):
        with pytest.raises(PagodaError, match=remedies):
            open_it(folder)
    (given / "manifest.json").write_text("[]", encoding="utf-8")
    with pytest.raises(PagodaError, match=remedies):
        open_it(given)


@pytest.mark.parametrize("open_it", [pagoda.load, lambda f: hub.push(Path(f), "owner/name")])
def test_what_is_there_instead(tmp_path: Path, open_it: Callable[[str], object]) -> None:
    with pytest.raises(PagodaError, match=r"there is no .*nowhere; give the folder of a generator"):
        open_it(str(tmp_path / "nowhere"))
    with pytest.raises(PagodaError, match=r"^diffusers:sd is a pipeline .*which only 'pagoda samp"):
        open_it("diffusers:sd")
    (tmp_path / "model_index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(PagodaError, match=rf"name it as diffusers:{tmp_path}"):
        open_it(str(tmp_path))


@pytest.mark.usefixtures("run")
def test_a_generator_is_named_as_a_teacher() -> None:
    generator = pagoda.load(GEN)
    assert isinstance(generator, pagoda.models.Generator)
    with pytest.raises(PagodaError, match=r"16 is a generator; --teacher names the teacher"):
        open_teacher(generator, GEN, Path(GEN))
    assert open_teacher(generator, GEN, Path(TEACHER)) is not None


def test_names_that_are_not_known_any_more(run: Path, tmp_path: Path) -> None:
    shutil.copytree(GEN, tmp_path / "alone")
    with pytest.raises(PagodaError, match=r"knows 0 to 9, but not by name: its run is"):
        pagoda.load(tmp_path / "alone").numbers("ring")
    assert pagoda.load(GEN).numbers("ring") == [3]
