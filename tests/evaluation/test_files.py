"""Images out of folders, archives and arrays: same pixels, fixed order, one line of trouble."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagoda import artifacts
from pagoda.data.registry import Wanted, open_source
from pagoda.data.resize import cut_batch
from pagoda.errors import PagodaError
from pagoda.evaluation.files import open_images
from pagoda.evaluation.streaming import subset
from pagoda.pipeline.stages.score import Source
from tests.evaluation.pictures import as_png, pictures, write_folder, write_zip


def test_every_form_gives_the_same_pixels(tmp_path: Path) -> None:
    images = pictures(11)
    expected = images.transpose(0, 3, 1, 2)
    np.savez(tmp_path / "last.npz", arr_0=images)
    np.savez_compressed(tmp_path / "first.npz", images=expected)
    forms = [
        write_zip(tmp_path / "flat.zip", images), tmp_path / "last.npz", tmp_path / "first.npz",
    ]  # fmt: skip
    for path in forms:
        opened = open_images(path)
        assert len(opened) == 11 and opened.resolution == (24, 24)
        assert np.array_equal(opened.read(np.arange(11)), expected)
        assert np.array_equal(opened.read(np.array([2, 3, 9])), expected[[2, 3, 9]])
        assert np.array_equal(opened.read(np.array([0, 7])), expected[[0, 7]])  # back again
    opened = open_images(write_folder(tmp_path / "folder", images))
    order = [*range(0, 11, 2), *range(1, 11, 2)]  # sorted by path: part0, then part1
    assert np.array_equal(opened.read(np.arange(11)), expected[order])


def test_grey_arrays_get_three_channels(tmp_path: Path) -> None:
    grey = pictures(4)[..., 0]
    np.savez(tmp_path / "grey.npz", x_test=grey, x_train=grey[:2])
    opened = open_images(tmp_path / "grey.npz", split="test")
    assert np.array_equal(opened.read(np.arange(4)), np.repeat(grey[:, None], 3, 1))
    assert len(open_images(tmp_path / "grey.npz", split="train")) == 2


def test_a_split_is_a_folder_anywhere_on_the_way(tmp_path: Path) -> None:
    images = pictures(6)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for i, name in enumerate(("val/a/1.png", "val/b/2.png", "train/a/3.png", "train/b/4.png",
                                  "__MACOSX/train/5.png", "train/a/.hidden.png")):  # fmt: skip
            archive.writestr(f"top/{name}", as_png(images[i]))
    assert len(open_images(tmp_path / "set.zip")) == 4
    val = open_images(tmp_path / "set.zip", split="val")
    assert np.array_equal(val.read(np.arange(2)), images[:2].transpose(0, 3, 1, 2))
    with pytest.raises(PagodaError, match="holds no images"):
        open_images(tmp_path / "set.zip", split="test")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_what_is_scored_is_what_the_pipeline_takes(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hidden copies, other files and pipes are passed over and told; links are followed."""
    images = pictures(6)
    root = tmp_path / "view"
    write_folder(tmp_path / "store", images[:2])
    write_folder(root / "dog", images[2:])
    write_folder(root / ".ipynb_checkpoints", images[:1])
    (root / "dog" / "notes.txt").write_text("no image")
    if kind == "folder":
        os.symlink("../store", root / "cat")
        os.mkfifo(root / "dog" / "pipe.png")
    else:
        os.rename(tmp_path / "store", root / "cat")
        shutil.make_archive(str(root), kind, root)
    path = root if kind == "folder" else root.with_suffix(f".{kind}")
    found = Source(path).open()
    order = [0, 1, 2, 4, 3, 5]
    assert np.array_equal(found.read(np.arange(6)), images[order].transpose(0, 3, 1, 2))
    pipe = ", pipes and devices 1" if kind == "folder" else ""
    said = f"{path}: {2 + bool(pipe)} files passed over: .txt 1, hidden 1{pipe}\n"
    assert capsys.readouterr().err == said
    taken = open_source(kind, Wanted("train", str(path), num_classes=1, test_share=0.5))
    assert set(taken.names) < set(open_images(path).names)  # type: ignore[attr-defined]
    assert f"{path}: {taken.passed_over}\n" == said


def test_cutting_is_the_pipelines(tmp_path: Path) -> None:
    images = pictures(3, 24)
    path = write_zip(tmp_path / "large.zip", images)
    cut = open_images(path, crop="adm", side=8)
    assert cut.resolution == (8, 8)
    expected = cut_batch(images.transpose(0, 3, 1, 2), 8, "adm")
    assert np.array_equal(cut.read(np.arange(3)), expected)
    cards = [cut.card(), open_images(path, crop="box", side=8).card(), open_images(path).card()]
    assert len({card["crop"] for card in cards}) == 3 and len({str(card) for card in cards}) == 3
    assert len({card["files"] for card in cards}) == 1


def test_content_decides_the_card(tmp_path: Path) -> None:
    """Of files of equal names and sizes, and of arrays; not what holds them, or was read first."""
    images = pictures(4)

    def cards(name: str) -> tuple[list[object], list[object]]:
        folder = tmp_path / name
        folder.mkdir()
        for i, pixels in enumerate(images):
            Image.fromarray(pixels).save(folder / f"{i}.bmp")
        archives = [shutil.make_archive(str(folder), kind, folder) for kind in ("zip", "tar")]
        paths = [str(folder), *archives]
        nchw = images.transpose(0, 3, 1, 2)
        for i, array in enumerate((images, nchw, np.asfortranarray(images))):
            np.savez(tmp_path / f"{name}{i}.npz", arr_0=array)
        np.savez_compressed(tmp_path / f"{name}3.npz", samples=images)
        arrays = [open_images(tmp_path / f"{name}{i}.npz") for i in range(4)]
        files = [open_images(Path(path)) for path in paths]
        for opened in (files[0], arrays[0]):
            opened.read(np.array([1, 2]))
        return [opened.card() for opened in files], [opened.card() for opened in arrays]

    before = cards("a")
    images[2, 0, 0, 0] ^= 1
    after = cards("b")
    for first, second in zip(before, after, strict=True):
        assert all(card == first[0] for card in first)
        assert all(card == second[0] != first[0] for card in second)


def test_a_file_that_cannot_be_read_is_named_by_the_card(tmp_path: Path) -> None:
    opened = open_images(write_folder(tmp_path / "set", pictures(3)))
    (tmp_path / "set" / "part1" / "00001.png").unlink()
    with pytest.raises(PagodaError, match=r"^part1/00001\.png of .*set cannot be read"):
        opened.card()


def test_a_subset_is_fixed_by_its_seed() -> None:
    rows = subset(1000, 100, seed=3)
    assert len(set(rows.tolist())) == 100 and (np.diff(rows) > 0).all()
    assert np.array_equal(rows, subset(1000, 100, seed=3))
    assert not np.array_equal(rows, subset(1000, 100, seed=4))
    assert np.array_equal(subset(5, None), np.arange(5))


def test_a_subset_has_as_many_images_of_every_class() -> None:
    """Where a class has too few, all of it, and the others share the rest."""
    labels = np.random.default_rng(0).integers(0, 10, 2000)
    for most in (1024, 1000, 7):
        counts = np.bincount(labels[subset(2000, most, labels=labels)], minlength=10)
        assert counts.sum() == most and np.ptp(counts) <= 1
    few = np.repeat([3, 5], [2, 98])
    assert np.bincount(few[subset(100, 50, labels=few)])[[3, 5]].tolist() == [2, 48]
    assert np.array_equal(subset(100, None, labels=few), np.arange(100))
    assert len(subset(0, 5, labels=np.empty(0, int))) == 0
    drawn = [subset(2000, 100, seed, labels) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def _mixed(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "mixed.zip", "w") as archive:
        archive.writestr("a.png", as_png(pictures(1, 24)[0]))
        archive.writestr("b.png", as_png(pictures(1, 16)[0]))
    return folder / "mixed.zip"


def _npz(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "file.npz", **arrays)  # type: ignore[arg-type]
    return folder / "file.npz"


def _truncated(folder: Path) -> Path:
    path = write_zip(folder / "short.zip", pictures(3))
    path.write_bytes(path.read_bytes()[:-40])
    return path


def _broken(folder: Path) -> Path:
    (folder / "broken").mkdir()
    (folder / "broken" / "a.png").write_bytes(as_png(pictures(1)[0])[:60])
    return folder / "broken"


def _no_image(folder: Path) -> Path:
    (folder / "texts").mkdir()
    (folder / "texts" / "a.png").write_text("no image", encoding="utf-8")
    return folder / "texts"


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _pickle(folder: Path) -> Path:
    (folder / "stats.pkl").write_bytes(b"\x80\x04")
    return folder / "stats.pkl"


def _read_all(path: Path) -> np.ndarray:
    opened = open_images(path)
    return opened.read(np.arange(len(opened)))


def _one(folder: Path) -> Path:
    (folder / "alone.png").write_bytes(as_png(pictures(1)[0]))
    return folder / "alone.png"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"crop": "admm", "side": 8}, r"^--crop admm; it must be one of adm, "),
        ({"crop": "adm", "side": 0}, r"^--size 0; it must be 1 or more"),
        ({"crop": "adm"}, "--crop and --size go together"),
        ({"split": "vall"}, r"holds no images below a folder vall, which --split names"),
    ],
)
def test_a_slip_in_an_option_is_no_fault_of_the_images(
    tmp_path: Path, options: dict[str, Any], wanted: str
) -> None:
    _one(tmp_path)
    with pytest.raises(PagodaError, match=wanted):
        open_images(tmp_path, **options)


def _array(folder: Path) -> Path:
    np.save(folder / "x.npy", pictures(2))
    return folder / "x.npy"


def _artifacts(folder: Path) -> Path:
    with artifacts.create(folder / "kept/first", "measurement", config={}) as out:
        artifacts.write_json(out / "rows.json", [])
    return folder / "kept"


def test_a_class_folder_may_hold_a_manifest_of_something_else(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "set", pictures(4))
    (images / "part0/manifest.json").write_text('{"files": ["a.png"]}')
    assert len(open_images(images)) == 4


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda f: f / "nowhere", "there is no .*nowhere"),
        (_one, "is one image; name the folder"),
        (lambda f: Path("diffusers:sd"), r"^diffusers:sd makes images of captions: .*--captions"),
        (_empty, "holds no images"),
        (_mixed, "b.png is 16x16, a.png is 24x24.*--crop and --size"),
        (_truncated, "ends early"),
        (_broken, "a.png does not decode"),
        (_no_image, r"a.png does not decode \(cannot identify image file\); mend or remove it"),
        (_pickle, "may be a pickle"),
        (_array, r"x\.npy is no folder, zip or tar archive or \.npz file of images"),
        (_artifacts, r"holds artifacts: first \(measurement\); name one, like .*/kept/first"),
        (lambda f: _npz(f, y=np.zeros(3)), "has no arr_0 or images or samples; it has y"),
        (lambda f: _npz(f, arr_0=pictures(2).astype(float)), "float64 .*images must be uint8"),
        (lambda f: _npz(f, arr_0=pictures(2)[..., :2]), "24, 2\\); images must be"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, make: object, wanted: str) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(PagodaError, match=wanted) as raised:
        _read_all(path)
    assert "\n" not in str(raised.value)
