"""Outputs never take the place of what is not theirs, and a crash in between loses nothing."""

from __future__ import annotations

import os
import platform
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pagoda import artifacts, outputs
from pagoda.errors import PagodaError
from pagoda.evaluation.results import check_out, write_results
from pagoda.networks.denoiser import load_denoiser
from pagoda.pipeline.cli import app
from tests.disk import small_disk
from tests.weights.released import unpack

Make = Callable[[Path], None]


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def photos(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("years")


def other_kind(path: Path) -> None:
    with artifacts.create(path, "features", config={}) as out:
        artifacts.save_model(out, torch.nn.Linear(1, 1), {})


def own_with_notes(path: Path) -> None:
    own(path)
    (path / "notes.txt").write_text("mine")


def own(path: Path) -> None:
    with artifacts.create(path, "teacher", config={}) as out:
        artifacts.save_model(out, torch.nn.Linear(1, 1), {})


def looks_like_one(path: Path) -> None:
    photos(path)
    (path / "manifest.json").write_text('{"name": "my web page"}')


def linked(path: Path) -> None:
    own(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (photos, "is no teacher or generator artifact"),
        (other_kind, "is an artifact of kind features, not teacher or generator"),
        (own_with_notes, "holds notes.txt, which pagoda did not write"),
        (looks_like_one, "manifest.json that pagoda cannot read"),
        (linked, "is a symbolic link"),
        (lambda path: path.write_text("a file"), "is no folder"),
        (lambda path: os.mkfifo(path), "is no folder"),
    ],
)
def test_an_import_replaces_nothing_of_others(there: Make, said: str, tmp_path: Path) -> None:
    """The file is not even read: it does not exist."""
    there(tmp_path / "out")
    before, mode = content(tmp_path), (tmp_path / "out").lstat().st_mode
    done = CliRunner().invoke(app, ["import", "none.pkl", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, PagodaError) and said in str(done.exception)
    assert "\n" not in str(done.exception)
    assert content(tmp_path) == before and (tmp_path / "out").lstat().st_mode == mode


@pytest.mark.parametrize("out", [".", "..", "../here", "sub/.."])
def test_the_working_folder_stays(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    unpack("edm.pkl", here)
    monkeypatch.chdir(here)
    before = content(tmp_path)
    done = CliRunner().invoke(app, ["import", "edm.pkl", "--out", out])
    assert isinstance(done.exception, PagodaError) and "is the working folder" in str(
        done.exception
    )
    assert content(tmp_path) == before and sorted(os.listdir(here)) == ["edm.pkl", "sub"]


def test_an_import_replaces_an_import_and_an_empty_folder(tmp_path: Path) -> None:
    file, out = unpack("edm.pkl", tmp_path), tmp_path / "out"
    out.mkdir()
    for _ in range(2):
        done = CliRunner().invoke(app, ["import", str(file), "--out", str(out)])
        assert done.exit_code == 0
        artifacts.open_artifact(out, "teacher").network(load_denoiser)
        assert sorted(os.listdir(tmp_path)) == ["edm.pkl", "out"]


def test_a_folder_that_comes_while_the_work_is_done_stays(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with (  # noqa: PT012
        pytest.raises(PagodaError, match="is no teacher artifact"),
        artifacts.create(path, "teacher", config={}) as out,
    ):
        artifacts.save_model(out, torch.nn.Linear(1, 1), {})
        photos(path)
    assert os.listdir(tmp_path) == ["out"] and content(path) == {"thesis.txt": b"years"}


def test_what_was_moved_aside_comes_back(tmp_path: Path) -> None:
    """A kill after the old folder was moved aside, before the new one was moved in."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = tmp_path / "out"
    own(path)
    before = content(path)
    aside = tmp_path / f".out.old-{platform.node()}-{dead.pid}"
    path.rename(aside)
    with pytest.raises(RuntimeError), artifacts.create(path, "teacher", config={}):
        raise RuntimeError("and the next run fails, too")
    assert content(path) == before and os.listdir(tmp_path) == ["out"]
    own(aside)  # a kill later: the new one is in place, the old one not yet removed
    own(path)
    assert os.listdir(tmp_path) == ["out"]


def test_a_disk_of_its_own_is_not_moved(tmp_path: Path) -> None:
    """Containers have their outputs there: the place to choose is inside it."""
    disk = tmp_path / "out"
    disk.mkdir()
    with small_disk(disk, "300k"):
        with (
            pytest.raises(PagodaError, match=r"out, a disk of its own .*; name a new folder"),
            outputs.new_folder(disk, outputs.only()) as partial,
        ):
            (partial / "a.txt").write_text("x")
        with outputs.new_folder(disk / "new", outputs.only()) as partial:
            (partial / "a.txt").write_text("x")
        with (
            pytest.raises(PagodaError, match=r"cannot write \S+full: No space left on device"),
            outputs.new_folder(disk / "full", outputs.only()) as partial,
        ):
            np.zeros(10**6).tofile(partial / "a.npy")
        assert content(disk) == {"new/a.txt": b"x"}


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    own(path)
    before, rename = content(path), Path.rename

    def full(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError(28, os.strerror(28))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(PagodaError, match="No space left"):
        own(path)
    assert content(path) == before and os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("form", ["folder", "link", "fifo", "device"])
def test_results_take_the_place_of_no_folder_link_or_device(form: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    if form == "folder":
        path.mkdir()
    elif form == "link":
        (tmp_path / "target").write_text("kept")
        path.symlink_to(tmp_path / "target")
    elif form == "fifo":
        os.mkfifo(path)
    else:
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("making a device is not permitted")
    before = path.lstat()
    for act in (check_out, lambda p: write_results(p, {"rows": []})):
        with pytest.raises(PagodaError, match="so nothing is written there") as raised:
            act(path)
        assert "\n" not in str(raised.value)
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)


def test_results_replace_results_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "out.json"
    write_results(path, {"rows": [1]})
    write_results(path, {"rows": [2]})
    assert "2" in path.read_text() and os.listdir(path.parent) == ["out.json"]
    for text in ("my notes", '{"rows": "none"}', "[]"):
        path.write_text(text)
        with pytest.raises(PagodaError, match="holds something else than results, so it stays"):
            write_results(path, {"rows": []})
        assert path.read_text() == text
    with pytest.raises(PagodaError, match="a value is NaN or infinite"):
        write_results(tmp_path / "new.json", {"rows": [float("nan")]})
    assert not (tmp_path / "new.json").exists()


def test_a_folder_of_known_files_is_replaced(tmp_path: Path) -> None:
    known, path = outputs.only("a.txt", "tables/*.csv"), tmp_path / "out"
    for text in ("old", "new"):
        with outputs.new_folder(path, known) as partial:
            (partial / "a.txt").write_text(text)
            (partial / "tables").mkdir()
            (partial / "tables" / f"{text}.csv").touch()
    assert sorted(content(path)) == ["a.txt", "tables/new.csv"]
    (path / "tables" / "mine.xlsx").touch()
    with pytest.raises(PagodaError, match=r"holds tables/mine\.xlsx"):
        outputs.check_folder(path, known)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_weights_are_readable_to_whom_their_neighbours_are(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        own(tmp_path / "out")
    finally:
        os.umask(before)
    modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "out").iterdir()}
    assert set(modes.values()) == {0o666 & ~mask} and "model.safetensors" in modes
