"""Which folders are classes, which are splits, and who says the labels; doubt is refused."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagoda.errors import PagodaError
from tests.data.animals import opened, tarred, zipped


def write(root: Path, *folders: str, count: int = 6) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (4, 4), (i, len(folder), 0)).save(root / folder / f"{i}.png")
    return root


def both(kind: str, path: Path, **how: Any) -> tuple[list[str], dict[str, list[str]]]:
    """Names of both splits, and those of each class."""
    sources = [opened(kind, path, split=split, **how) for split in ("train", "test")]
    assert sources[0].classes == sources[1].classes
    found: dict[str, list[str]] = {name: [] for name in sources[0].classes}
    for source in sources:
        for name, label in zip(source.names, source.labels, strict=True):
            found[source.classes[label]].append(name)
    return sorted(name for names in found.values() for name in names), found


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_one_folder_around_everything_is_passed_over_whatever_files_lie_beside(
    tmp_path: Path, kind: str
) -> None:
    root = write(tmp_path / "set", "pets/cat", "pets/dog")
    for name in ("LICENSE", "README.md", "__MACOSX", ".DS_Store"):
        (root / name).write_text("not an image")
    path = {"folder": lambda: root, "zip": lambda: zipped(root), "tar": lambda: tarred(root)}[kind]
    names, found = both(kind, path(), num_classes=2, test_share=0.25)
    assert names == [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(6)]
    assert all(name.startswith(label) for label, names in found.items() for name in names)
    said = opened(kind, path(), num_classes=2, test_share=0.25).passed_over
    assert said == "4 files passed over: hidden 2, .md 1, no ending 1"


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    root = write(tmp_path / "set", "boat", "bus", "car", "train")
    names, found = both("folder", root, num_classes=4, test_share=0.25)
    assert len(names) == 24 and list(found) == ["boat", "bus", "car", "train"]
    assert all(len(names) == 6 for names in found.values())
    with pytest.raises(PagodaError, match=r"4 classes.*if boat, bus, car, train are the classes"):
        opened("folder", root, num_classes=3, test_share=0.25)


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (["training/0", "training/1", "testing/0", "testing/1"], "testing, training"),
        (["Train/0", "Train/1", "Test/0", "Test/1"], "Test, Train"),
        (["Train/0", "Train/1", "test/0", "test/1"], "Train, test"),
        (["0", "1", "test/0", "test/1"], "test"),
        (["0", "1", "valid/0", "valid/1"], "valid"),
        (["train", "test"], "test, train"),
        (["train/0", "train/1", "validation/0", "validation/1"], "validation"),
        (["train/steam", "train/electric", "boat", "bus"], "boat, bus"),
    ],
)
@pytest.mark.parametrize("classes", [1, 2])
def test_folders_that_may_be_splits_or_classes_are_refused_by_name(
    tmp_path: Path, folders: list[str], named: str, classes: int
) -> None:
    root = write(tmp_path / "set", *folders)
    if classes == 1 and folders == ["train", "test"]:
        names, _ = both("folder", root, num_classes=1, test_share=0.25)
        assert names == [f"{split}/{i}.png" for split in ("test", "train") for i in range(6)]
        return
    for split in ("train", "test"):
        with pytest.raises(PagodaError, match=re.escape(named)) as error:
            opened("folder", root, split=split, num_classes=classes, test_share=0.25)
        assert "split" in str(error.value) and "num_classes=" not in str(error.value)


def test_an_unlabelled_test_folder_beside_train_is_passed_over_and_counted(tmp_path: Path) -> None:
    root = write(tmp_path / "set", "train/0", "train/1", "test")
    names, _ = both("folder", root, num_classes=2, test_share=0.5)
    assert len(names) == 12 and all(name.startswith("train/") for name in names)
    said = opened("folder", root, num_classes=2, test_share=0.5).passed_over
    assert said == "6 files passed over: images outside the layout 6"


def edm(path: Path, count: int, classes: int, prefix: str = "", **content: Any) -> dict[str, int]:
    """An archive as EDM's dataset tool writes it: folders of a fixed count, labels in a file."""
    labels = {f"{i // 8:05d}/img{i:08d}.png": (i * 7 + 1) % classes for i in range(count)}
    with zipfile.ZipFile(path, "a") as archive:
        for i, name in enumerate(labels):
            stream = io.BytesIO()
            Image.new("RGB", (4, 4), (i, 0, 0)).save(stream, "PNG")
            archive.writestr(prefix + name, stream.getvalue())
        content = {"labels": list(labels.items())} | content
        archive.writestr(f"{prefix}dataset.json", json.dumps(content))
    return {prefix + name: label for name, label in labels.items()}


@pytest.mark.parametrize(("count", "classes"), [(24, 3), (39, 13)])
def test_labels_of_an_edm_archive_come_from_its_list(
    tmp_path: Path, count: int, classes: int
) -> None:
    truth = edm(tmp_path / "edm.zip", count, classes)
    names, found = both("zip", tmp_path / "edm.zip", num_classes=classes, test_share=0.3)
    assert names == sorted(truth)
    assert {name: int(label) for label, names in found.items() for name in names} == truth
    source = opened("zip", tmp_path / "edm.zip", num_classes=classes, test_share=0.3)
    assert [truth[name] for name in source.names] == source.labels.tolist()
    assert source.passed_over == ""
    names, _ = both("zip", tmp_path / "edm.zip", num_classes=1, test_share=0.3)
    assert names == sorted(truth)


def test_each_split_may_have_its_list(tmp_path: Path) -> None:
    truth = edm(tmp_path / "edm.zip", 24, 3, "train/") | edm(tmp_path / "edm.zip", 9, 3, "val/")
    _, found = both("zip", tmp_path / "edm.zip", num_classes=3)
    assert {name: int(label) for label, names in found.items() for name in names} == truth


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": None}, "holds no labels.*num_classes=1 if there are no classes"),
        ({"labels": [["0/0.png", 0]]}, r"0/0\.png is only in one of"),
        ({"labels": [["a.png", 2.5]]}, r"label of a\.png is 2\.5; labels must be whole"),
        ({"labels": [["a.png", -1]]}, r"label of a\.png is -1"),
        ({"labels": [["a.png", 10**9]]}, r"label of a\.png is 1000000000"),
        ({"labels": [1, 2]}, "holds no labels"),
        ({"labels": []}, "only in one of"),
    ],
)
def test_a_list_of_labels_that_does_not_fit_is_refused(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    edm(tmp_path / "edm.zip", 24, 3, **content)
    with pytest.raises(PagodaError, match=message) as error:
        opened("zip", tmp_path / "edm.zip", num_classes=3, test_share=0.3)
    assert "dataset.json" in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_that_name_about_something_else_changes_nothing(tmp_path: Path) -> None:
    root = write(tmp_path / "set", "cat", "dog")
    (root / "dataset.json").write_text('{"title": "pets"}')
    _, found = both("folder", root, num_classes=2, test_share=0.5)
    assert list(found) == ["cat", "dog"]


def test_names_of_any_bytes_are_taken(tmp_path: Path) -> None:
    root = write(tmp_path / "set", os.fsdecode(b"caf\xe9"), "tea")
    for kind, path in (("folder", root), ("tar", tarred(root))):
        source = opened(kind, path, num_classes=2, test_share=0.5)
        assert source.classes == (r"caf\xe9", "tea")
        assert np.asarray(source.load(0)).shape == (4, 4, 3)
        assert source.names[0].startswith(os.fsdecode(b"caf\xe9/"))
    (root / source.names[0]).write_bytes(b"no image")
    with pytest.raises(PagodaError, match="does not decode") as error:
        opened("folder", root, num_classes=2, test_share=0.5).load(0)
    assert r"caf\udce9" in str(error.value)  # can be printed and written everywhere
