"""The downsample stage end to end, on the embedded set and on files."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagoda.config import Config
from pagoda.data import cutting
from pagoda.data.embedded import CLASSES, SEED, render
from pagoda.data.resize import cut
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.pipeline import doctor
from pagoda.pipeline.stages import downsample
from tests.pipeline.stages.photographs import TREE, configured, of_files, written

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_embedded_set_end_to_end(resolution: int) -> None:
    result = written(configured(), resolution)
    factor = 32 // resolution
    for split, count in (("train", 60), ("test", 20)):
        images, labels = result.array(f"{split}_images"), result.array(f"{split}_labels")
        assert images.shape == (count, 3, resolution, resolution) and images.dtype == np.uint8
        assert np.array_equal(labels, np.arange(count) % 10) and labels.dtype == np.int64
        drawn, _ = render(np.arange(count), resolution=32, seed=SEED, split=split, variety=0.7)
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


@pytest.mark.longer
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


def test_names_of_any_bytes_are_kept_a_line_each(tmp_path: Path) -> None:
    names = [b"caf\xe9.png", b"caf\\xe9.png", b"a b.png", b"a\nb.png", b"a\\nb.png", b"a\x0bb.png"]
    for folder in (b"c\xe9t", b"dog"):
        (tmp_path / "photos" / os.fsdecode(folder)).mkdir(parents=True)
        for name in names:
            path = tmp_path / "photos" / os.fsdecode(folder) / os.fsdecode(name)
            Image.new("RGB", (9, 9)).save(path)
    result = written(of_files(tmp_path / "photos", test_share=0.3), 8)
    lines = "".join((result.path / f"{split}_names.txt").read_text("utf-8")
                    for split in ("train", "test")).splitlines()  # fmt: skip
    kept = [line.encode().decode("unicode_escape").encode("latin-1") for line in lines]
    assert sorted(kept) == sorted(f + b"/" + n for f in (b"c\xe9t", b"dog") for n in names)
    assert result.card()["classes"] == [r"c\xe9t", "dog"]


def test_what_is_passed_over_is_told(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (photos / "LICENSE").write_text("free")
    (photos / "train" / "cat" / "scan.psd").write_bytes(b"")
    (photos / "train" / "loose.png").write_bytes(b"")
    said = "3 files passed over: .psd 1, images outside the layout 1, no ending 1"
    written(of_files(photos), 16)
    assert f"{photos}: {said}\n" in capfd.readouterr().err
    assert doctor._data(of_files(photos)).state == f"folder: 18 training and 8 test images; {said}"


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


def test_stage_runs_without_torch(tmp_path: Path) -> None:
    tree = copy.deepcopy(TREE)
    tree["data"] |= {"train_images": 20, "test_images": 10}
    (tmp_path / "tree.json").write_text(json.dumps(tree))
    code = (
        "import json, sys; from pagoda.config import parse;"
        "from pagoda.pipeline.stages import downsample;"
        f"downsample.run(parse(json.load(open({str(tmp_path / 'tree.json')!r}))), 8);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'matplotlib', 'mlflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
