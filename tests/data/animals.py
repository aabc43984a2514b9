"""One small data set of three classes in every form: folder, zip, tar; and arrays of clothes."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pagoda.data.base import ImageSource
from pagoda.data.registry import Wanted, open_source

ANIMALS = {"train": {"bee": 4, "ant": 2, "cat": 3}, "test": {"ant": 1, "bee": 2, "cat": 1}}


def opened(kind: str, path: object = None, **changes: Any) -> ImageSource:
    options: dict[str, Any] = {"split": "train", "num_classes": 3, "render_res": 16}
    where = None if path is None else str(path)
    return open_source(kind, Wanted(path=where, **(options | changes)))


def pixels(split: str, name: str, number: int) -> np.ndarray:
    rng = np.random.default_rng([len(split), *name.encode(), number])
    return rng.integers(0, 256, (6 + number, 9, 3), dtype=np.uint8)


def write_folder(root: Path) -> Path:
    """Images of several sizes, beside files that are no images."""
    for split, classes in ANIMALS.items():
        for name, count in classes.items():
            (root / split / name / "more").mkdir(parents=True)
            for i in range(count):
                place = root / split / name / ("more" if i == count - 1 else "")
                Image.fromarray(pixels(split, name, i)).save(place / f"{i}.png")
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"no image")
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / "list.csv").write_text("no image")
    return root


def zipped(folder: Path, prefix: str = "") -> Path:
    path = folder.parent / "animals.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def tarred(folder: Path, prefix: str = "./") -> Path:
    path = folder.parent / "animals.tar"
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.add(file, prefix + file.relative_to(folder).as_posix(), recursive=False)
    return path


def npz(path: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": rng.integers(0, 256, (9, 5, 7), dtype=np.uint8),
        "y_train": np.array([0, 0, 0, 1, 2, 1, 1, 2, 2], np.uint8),
        "x_test": rng.integers(0, 256, (4, 5, 7), dtype=np.uint8),
        "y_test": np.array([2, 1, 0, 0]),
        "classes": np.array(["shoe", "shirt", "bag"]),
    } | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path
