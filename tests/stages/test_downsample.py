"""The downsample stage end to end, on the embedded set and on files."""

from __future__ import annotations

import copy
import dataclasses
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pagoda import artifacts
from pagoda.config import Config, parse
from pagoda.data import cutting
from pagoda.data.embedded import CLASSES, SEED, render
from pagoda.data.resize import cut
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.stages import downsample
from pagoda.stages.paths import Paths
from tests.disk import small_disk

TREE = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())


def configured(**data: Any) -> Config:
    tree = copy.deepcopy(TREE)
    tree["data"] |= {
        "source": "embedded", "path": None, "hub": None, "render_res": 32, "train_images": 60,
        "test_images": 20, "num_classes": 10, "recipe": "box", "pad_to": None,
        "test_share": None, "exif": False, "encode_from": None,
    } | data  # fmt: skip
    return parse(tree)


def written(config: Config, resolution: int) -> artifacts.Artifact:
    downsample.run(config, resolution)
    expect = {"name": config.name, "resolution": resolution}
    return artifacts.open_artifact(Paths(config).data(resolution), "images", expect)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of photographs of all sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(20, 90, 2)
                pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


def of_files(photos: Path, **data: Any) -> Config:
    settings = {"source": "folder", "path": str(photos), "num_classes": 2, "recipe": "adm",
                "train_images": None, "test_images": None}  # fmt: skip
    return configured(**(settings | data))


@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_embedded_set_end_to_end(resolution: int) -> None:
    result = written(configured(), resolution)
    factor = 32 // resolution
    for split, count in (("train", 60), ("test", 20)):
        images, labels = result.array(f"{split}_images"), result.array(f"{split}_labels")
        assert images.shape == (count, 3, resolution, resolution) and images.dtype == np.uint8
        assert np.array_equal(labels, np.arange(count) % 10) and labels.dtype == np.int64
        drawn, _ = render(np.arange(count), resolution=32, seed=SEED, split=split)
        boxed = drawn.reshape(count, 3, resolution, factor, resolution, factor).mean((3, 5))
        assert np.abs(images - boxed).max() <= 1  # Pillow rounds after each axis
    card = result.card()
    assert card["classes"] == list(CLASSES) and card["n"] == {"train": 60, "test": 20}
    assert (card["recipe"], card["pad_to"], card["resolution"]) == ("box", None, resolution)
    assert card["source"] == "embedded" and len(set(card["source_fingerprint"].values())) == 2


def test_equal_runs_give_equal_bytes_and_content_changes_the_fingerprint() -> None:
    first = written(configured(), 8).fingerprint
    assert written(configured(), 8).fingerprint == first
    assert written(configured(train_images=61), 8).fingerprint != first


def test_files_are_cut_from_their_originals(photos: Path) -> None:
    result = written(of_files(photos), 16)
    assert result.card()["classes"] == ["cat", "dog"]
    assert result.card()["n"] == {"train": 18, "test": 8}
    images, labels = result.array("train_images"), result.array("train_labels")
    assert labels.tolist() == [0, 1] * 9
    for row, label in enumerate(labels):
        with Image.open(photos / "train" / ("cat", "dog")[label] / f"{row // 2}.png") as image:
            assert np.array_equal(images[row], cut(image, 16, "adm").transpose(2, 0, 1))


def test_several_processes_write_the_same_bytes(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = written(of_files(photos), 16).fingerprint
    monkeypatch.setattr(cutting, "_DECODED_ALONE", 4)
    monkeypatch.setattr(cutting.Cutting, "_block", lambda self: 5)
    monkeypatch.setattr(cutting, "cores", lambda: 2)
    assert written(of_files(photos), 16).fingerprint == alone
    (photos / "train" / "dog" / "6.png").write_bytes(b"no image")
    with pytest.raises(PagodaError, match=r"train image 13 of .*dog/6\.png\) does not decode"):
        downsample.run(of_files(photos), 16)


def test_padding_reaches_the_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"x_train": rng.integers(1, 256, (30, 28, 28), dtype=np.uint8)}
    arrays |= {"x_test": arrays["x_train"][:10], "y_train": np.arange(30) % 10}
    np.savez(tmp_path / "grey.npz", y_test=np.arange(10), **arrays)
    source = {"source": "npz", "path": str(tmp_path / "grey.npz"), "train_images": None}
    config = configured(**source, test_images=10, pad_to=32)
    images = written(config, 32).array("train_images")
    assert np.array_equal(images[:, 2, 2:30, 2:30], arrays["x_train"])
    assert not images[:, :, :2].any() and not images[:, :, :, 30:].any()


def test_enlarged_images_are_counted_and_a_set_of_them_is_refused(photos: Path) -> None:
    sides = {
        split: [min(Image.open(file).size) for file in (photos / folder).rglob("*.png")]
        for split, folder in (("train", "train"), ("test", "val"))
    }
    expected = {split: sum(side < 32 for side in sides[split]) for split in sides}
    assert 0 < expected["train"] < 18
    assert written(of_files(photos), 32).card()["enlarged"] == expected
    assert written(of_files(photos, pad_to=32), 32).card()["enlarged"] == {"train": 0, "test": 0}
    with pytest.raises(PagodaError, match=r"every train image of .* is smaller than 128x128"):
        downsample.run(of_files(photos), 128)
    assert not list(Path("runs").rglob("128"))


@pytest.mark.parametrize("damage", ["image", "class", "path", "classes", "count"])
def test_bad_data_is_one_line_and_leaves_nothing(
    photos: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def break_image() -> Config:
        (photos / "val" / "cat" / "2.png").write_bytes(b"no image")
        return of_files(photos)

    def empty_class() -> Config:
        for file in (photos / "train" / "cat").iterdir():
            file.unlink()
        return of_files(photos)

    cases: dict[str, tuple[Callable[[], Config], str]] = {
        "image": (break_image, r"test image 4 of .*val/cat/2\.png\) does not decode"),
        "class": (empty_class, "class cat has no train images"),
        "path": (lambda: of_files(photos / "none"), "there is no such folder"),
        "classes": (lambda: of_files(photos, num_classes=3), r"set data\.num_classes=2"),
        "count": (lambda: of_files(photos, train_images=19), r"data\.train_images = 19; lower"),
    }
    make, message = cases[damage]
    with pytest.raises(PagodaError, match=message) as error:
        downsample.run(make(), 16)
    assert "\n" not in str(error.value)
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]
    assert "Traceback" not in capfd.readouterr().err


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


INTERRUPTED = """
import json, os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from pagoda.config import parse
from pagoda.data import cutting
from pagoda.stages import downsample

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


def test_stage_runs_without_torch(tmp_path: Path) -> None:
    tree = copy.deepcopy(TREE)
    tree["data"] |= {"train_images": 20, "test_images": 10}
    (tmp_path / "tree.json").write_text(json.dumps(tree))
    code = (
        "import json, sys; from pagoda.config import parse; from pagoda.stages import downsample;"
        f"downsample.run(parse(json.load(open({str(tmp_path / 'tree.json')!r}))), 8);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'matplotlib', 'mlflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def scratch_of(resolution: int) -> list[Path]:
    return [p for p in Path(".scratch").rglob("*") if p.parent.name == f"smoke-{resolution}"
            and p.is_dir()]  # fmt: skip


def test_one_pass_serves_every_resolution(photos: Path) -> None:
    """The files are worthless after the first stage; the others still have their images."""
    alone = {r: written(of_files(photos), r).array("train_images").copy() for r in (8, 16, 32)}
    for name in ("runs", ".scratch"):
        shutil.rmtree(name)
    written(of_files(photos), 8)
    assert not scratch_of(8) and len(scratch_of(16)) == len(scratch_of(32)) == 1
    for file in photos.rglob("*.png"):
        file.write_bytes(b"x" * file.stat().st_size)
    for r in (16, 32):
        assert np.array_equal(written(of_files(photos), r).array("train_images"), alone[r])
        assert not scratch_of(r)


KILLED = """
import json, os, signal, sys
from pagoda.config import parse
from pagoda.data import cutting
from pagoda.stages import downsample

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


def test_encoded_and_sharded_stores_hold_the_same_images(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = written(of_files(photos), 16)
    images = raw.array("train_images").copy()
    assert (raw.path / "train_names.txt").read_text().split()[:2] == [
        "train/cat/0.png", "train/dog/0.png",
    ]  # fmt: skip
    monkeypatch.setattr(cutting, "SHARD_BYTES", 5 * 3 * 16 * 16)
    monkeypatch.setattr(cutting.Cutting, "_block", lambda self: 7)  # blocks lie across shards
    shutil.rmtree("runs")
    sharded = written(of_files(photos), 16)
    assert (sharded.path / "train_images-00003-of-00004.npy").is_file()
    encoded = written(of_files(photos, encode_from=16), 16)
    assert encoded.card()["storage"] == "webp"
    rows = np.array([17, 0, 5, 5, 9])
    for artifact in (raw, sharded, encoded):
        if artifact is not raw:
            store = open_images(artifact, "train")
            assert store.shape == images.shape
            assert np.array_equal(store[rows], images[rows])
            assert np.array_equal(store[3:12], images[3:12])


def test_a_set_without_splits_goes_through(photos: Path) -> None:
    config = of_files(photos / "train", test_share=0.3)
    card = written(config, 16).card()
    assert card["n"] == {"train": 12, "test": 6} and card["classes"] == ["cat", "dog"]


def test_an_image_too_narrow_for_the_recipe_is_named(photos: Path) -> None:
    Image.new("RGB", (60000, 1)).save(photos / "train" / "cat" / "0.png")
    with pytest.raises(PagodaError, match=r"train image 0 .*cat/0\.png\) is 60000x1: too narrow"):
        downsample.run(of_files(photos, render_res=128, recipe="adm"), 128)


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
