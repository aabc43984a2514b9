"""Cutting that was stopped, or lies ready: nothing half done is left, nothing is done twice."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagoda import artifacts
from pagoda.data import cutting
from pagoda.data.base import NamedFiles
from pagoda.data.resize import cut
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import downsample
from tests.disk import small_disk
from tests.pipeline.stages.photographs import configured, of_files, written

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_failure_keeps_the_artifact_that_was_there(photos: Path) -> None:
    before = written(of_files(photos), 16)
    (photos / "train" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(PagodaError, match="does not decode"):
        downsample.run(of_files(photos), 16)
    after = artifacts.open_artifact(before.path, "images")
    assert after.fingerprint == before.fingerprint


def test_no_space_is_one_line_before_any_work() -> None:
    """The operating system refuses the file: here by the limit on the size of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(PagodaError, match=r"cannot write runs/.*: File too large"):
            downsample.run(configured(), 32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("encoded", [False, True])
def test_a_full_disk_is_one_line_and_leaves_no_artifact(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: bool
) -> None:
    """On a file system of 300 kB; freeing space and the same command end as if it never filled."""
    small = tmp_path / "small"
    small.mkdir()
    with small_disk(small, "300k"):
        monkeypatch.chdir(small)
        config = of_files(photos, encode_from=16 if encoded else None)
        ballast = small / "ballast"
        ballast.write_bytes(b"x" * 280_000)
        with pytest.raises(PagodaError, match=r"cannot write runs/.*No space left") as error:
            downsample.run(config, 32)
        assert "\n" not in str(error.value) and not list(Path("runs").rglob("*.*"))
        ballast.unlink()
        again = written(config, 32).fingerprint
        monkeypatch.chdir(tmp_path)
        assert written(config, 32).fingerprint == again


INTERRUPTED = """
import json, os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from pagoda.config import parse
from pagoda.data import cutting
from pagoda.pipeline.stages import downsample

class Pool(ProcessPoolExecutor):  # Ctrl-C reaches every process, one of them just starting
    def submit(self, *args):
        future = super().submit(*args)
        os.killpg(0, signal.SIGINT)
        return future

if __name__ == "__main__":
    cutting.ProcessPoolExecutor = Pool
    cutting._DECODED_ALONE, cutting.cores = 4, lambda: 2
    cutting.Cutting._block = lambda self: 1
    try:
        downsample.run(parse(json.load(open(sys.argv[1]))), 16)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_ctrl_c_stops_every_process_quietly_and_leaves_nothing(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "tree.json").write_text(json.dumps(dataclasses.asdict(of_files(photos))))
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    command = [sys.executable, str(tmp_path / "interrupted.py"), str(tmp_path / "tree.json")]
    done = subprocess.run(
        command, capture_output=True, text=True, start_new_session=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]


def scratch_of(resolution: int) -> list[Path]:
    return [p for p in Path(".scratch").rglob("*") if p.parent.name == f"smoke-{resolution}"
            and p.is_dir()]  # fmt: skip


def test_one_pass_serves_every_resolution(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first stage nothing is decoded, unless files have other contents of equal sizes."""
    alone = {r: written(of_files(photos), r).array("train_images").copy() for r in (8, 16, 32)}
    for name in ("runs", ".scratch"):
        shutil.rmtree(name)
    written(of_files(photos), 8)
    assert not scratch_of(8) and len(scratch_of(16)) == len(scratch_of(32)) == 1
    with monkeypatch.context() as blind:
        blind.setattr(NamedFiles, "content", None)
        assert np.array_equal(written(of_files(photos), 16).array("train_images"), alone[16])
        assert not scratch_of(16)
    for file in photos.rglob("*.png"):
        file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(PagodaError, match=r"train image 0 .* does not decode"):
        written(of_files(photos), 32)


KILLED = """
import json, os, signal, sys
from pagoda.config import parse
from pagoda.data import cutting
from pagoda.pipeline.stages import downsample

_, tree, after, where = sys.argv
calls = 0

def dying(name):
    method = getattr(cutting.Target, name)
    def call(*args):
        global calls
        calls += 1
        if where == "before" and calls == int(after):
            os.kill(os.getpid(), signal.SIGKILL)
        method(*args)
        if where == "after" and calls == int(after):
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(cutting.Target, name, call)

cutting.Cutting._block = lambda self: 3
for name in ("note", "append", "write"):
    dying(name)
downsample.run(parse(json.load(open(tree))), 16)
"""


@pytest.mark.parametrize(("after", "where"), [(4, "before"), (11, "after"), (26, "after")])
def test_killed_runs_go_on_to_the_same_bytes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, where: str
) -> None:
    config = of_files(photos, encode_from=32)
    (tmp_path / "tree.json").write_text(json.dumps(dataclasses.asdict(config)))
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "killed.py"), str(tmp_path / "tree.json"),
               str(after), where]  # fmt: skip
    assert subprocess.run(command, check=False).returncode == -9
    assert not Path("runs").exists() and scratch_of(16)
    for folder in scratch_of(32):  # what a half-written append leaves
        for file in folder.glob("*.webp"):
            with file.open("ab") as stream:
                stream.write(b"half a file")
    monkeypatch.setattr(cutting.Cutting, "_block", lambda self: 3)
    filled: list[int] = []
    fill = cutting.Cutting.fill

    def counted(self: cutting.Cutting, start: int, stop: int, lacking: list[int]) -> Any:
        filled.append(stop - start)
        return fill(self, start, stop, lacking)

    monkeypatch.setattr(cutting.Cutting, "fill", counted)
    went_on = [written(config, r).fingerprint for r in (16, 32)]
    assert sum(filled) < 26 or after < 11  # what was done was not done again
    for name in ("runs", ".scratch"):
        shutil.rmtree(name)
    assert [written(config, r).fingerprint for r in (16, 32)] == went_on


def test_damaged_scratch_is_noticed(photos: Path) -> None:
    config = of_files(photos, encode_from=32)
    whole = [written(config, r).fingerprint for r in (16, 32)]
    shutil.rmtree("runs")
    written(config, 8)
    for r, name in ((16, "train_images.npy"), (32, "train_images.webp")):
        file = scratch_of(r)[0] / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert [written(config, r).fingerprint for r in (16, 32)] == whole


def test_other_parameters_never_meet_old_scratch(photos: Path) -> None:
    written(of_files(photos), 8)
    before = scratch_of(16)
    box = written(of_files(photos, recipe="box"), 16)
    assert box.card()["recipe"] == "box" and not before[0].exists()
    with Image.open(photos / "train" / "cat" / "0.png") as image:
        assert np.array_equal(
            box.array("train_images")[0], cut(image, 16, "box").transpose(2, 0, 1)
        )
