"""Opening a source of labelled images by its kind."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pagoda.data.archives import TarTree, ZipTree, open_tree
from pagoda.data.base import ArraySource, ImageSource, digest, hold_out
from pagoda.data.embedded import CLASSES, render
from pagoda.data.folders import open_class_folders
from pagoda.data.hubs import open_hugging_face, open_torchvision
from pagoda.data.imagenet import open_imagenet
from pagoda.data.trees import FolderTree, Tree
from pagoda.errors import PagodaError

SPLITS = ("train", "test")
"""Names of the splits."""

_READ = 1 << 24  # bytes read at once while a checksum is compared

KINDS = ("embedded", "folder", "zip", "tar", "npz", "imagenet", "torchvision", "hub")
"""Kinds of source."""


def open_source(
    kind: str,
    *,
    split: str,
    path: str | None,
    hub: str | None,
    num_classes: int,
    limit: int | None,
    render_res: int,
    seed: int,
    test_share: float | None = None,
    exif: bool = False,
) -> ImageSource:
    """Open one split of a source.

    Args:
        kind: a key of :data:`KINDS`.
        split: ``train`` or ``test``.
        path: folder or file; for ``torchvision`` the folder it downloads to (None: ``data``, of
            the working folder).
        hub: a torchvision class or a Hugging Face id.
        num_classes: number of classes expected.
        limit: keep the first ``limit`` images; classes take turns, so they are balanced.
        render_res: resolution the embedded set is drawn at.
        seed: seed of the embedded set.
        test_share: share of each class that is held out where the source has no splits.
        exif: turn images as their EXIF orientation says.

    Raises:
        PagodaError: one line saying what is wrong with the data and what to do.
    """
    if split not in SPLITS:
        raise PagodaError(f"split = {split!r}; it must be one of {', '.join(SPLITS)}")
    common: dict[str, Any] = {"split": split, "num_classes": num_classes, "limit": limit}
    if kind == "embedded":
        return EmbeddedSource(render_res=render_res, seed=seed, **common)
    common |= {"exif": exif}
    if kind == "torchvision":
        return open_torchvision(_given(hub, kind, "hub"), path=path, **common)
    common |= {"test_share": test_share}
    if kind == "hub":
        return open_hugging_face(_given(hub, kind, "hub"), **common)
    if kind not in KINDS:
        raise PagodaError(f"data.source = {kind!r}; it must be one of {', '.join(KINDS)}")
    path = _given(path, kind, "path")
    if kind == "npz":
        return NpzSource(path, **common)
    if kind == "imagenet":
        return open_imagenet(open_tree(path), **common)
    trees: dict[str, Callable[[str], Tree]] = {"folder": FolderTree, "zip": ZipTree, "tar": TarTree}
    return open_class_folders(trees[kind](path), **common)


class EmbeddedSource(ImageSource):
    """The embedded set, drawn when asked for."""

    def __init__(
        self, *, split: str, num_classes: int, limit: int | None, render_res: int, seed: int
    ) -> None:
        if limit is None:
            raise PagodaError(
                f"the embedded set has no end; data.{split}_images must say how many to draw"
            )
        self._how: dict[str, Any] = {"resolution": render_res, "seed": seed, "split": split}
        labels = np.arange(max(limit, len(CLASSES))) % len(CLASSES)
        super().__init__(where="the embedded set", split=split, classes=CLASSES, labels=labels,
                         num_classes=num_classes, limit=limit)  # fmt: skip

    def array(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Images ``start:stop`` as (n, 3, R, R) uint8."""
        return self._render(self.rows[start:stop])

    def fingerprint(self) -> str:
        """SHA-256 of what is asked for and of the first image of each class as drawn."""
        first = self._render(self.rows[: len(CLASSES)])
        return digest(["embedded", self._how, len(self), first.tobytes().hex()])

    def _render(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        return render(rows, **self._how)[0]

    def _open(self, row: int) -> Image.Image:
        return Image.fromarray(self._render(np.array([row]))[0].transpose(1, 2, 0))

    def _name(self, row: int) -> str:
        return f"{self.split}/{row:07d}"


class NpzSource(ArraySource):
    """An ``.npz`` file with ``x_train, y_train, x_test, y_test`` and, if it likes, ``classes``.

    Without ``x_test`` and ``y_test`` a share of every class of ``x_train`` is held out. Pixels that
    the file holds uncompressed (``numpy.savez``) are memory-mapped, so that it may be larger than
    the memory; compressed ones are unpacked into memory.
    """

    def __init__(
        self, path: str | Path, *, split: str, test_share: float | None, **common: Any
    ) -> None:
        with _open_npz(path) as file:
            whole = test_share is not None and "x_test" not in file.files
            stem = "train" if whole else split
            pixels = _pixels(file, f"x_{stem}", path)
            labels = _member(file, f"y_{stem}", path)
            classes = _class_names(file, common["num_classes"])
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise PagodaError(f"{path}: y_{stem} must hold one whole number an image")
        keep = None
        if whole and test_share is not None:
            names = [f"x_train[{row}]" for row in range(len(labels))]
            held = hold_out(names, labels, test_share, str(path))
            keep = np.flatnonzero(held == (split == "test"))
        super().__init__(pixels, stem=f"x_{stem}", where=str(path), split=split, classes=classes,
                         labels=labels, keep=keep, **common)  # fmt: skip


def _open_npz(path: str | Path) -> np.lib.npyio.NpzFile:
    if not Path(path).is_file():
        raise PagodaError(f"data.path = {path}: there is no such file")
    try:
        file = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise PagodaError(
            f"{path} ends early, is unreadable or is no npz file; copy it again"
        ) from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise PagodaError(f"{path} is no npz file; save it with numpy.savez")
    return file


def _member(file: np.lib.npyio.NpzFile, key: str, path: str | Path) -> NDArray[Any]:
    if key not in file.files:
        wanted = "x_train, y_train, x_test, y_test"
        raise PagodaError(f"{path} lacks {key}; it has {', '.join(file.files)}, wanted: {wanted}")
    try:
        array: NDArray[Any] = file[key]
    except ValueError as error:  # an object array; unpickling could run any code
        raise PagodaError(
            f"{path}: {key} is no plain array (mixed sizes, or objects); save it as one uint8 "
            "array, or use data.source=folder"
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise PagodaError(f"{path}: {key} is damaged ({error}); copy the file again") from error
    return array


def _pixels(file: np.lib.npyio.NpzFile, key: str, path: str | Path) -> NDArray[Any]:
    """The array ``key``, mapped where the archive holds it as it is."""
    archive = file.zip
    if archive is None or f"{key}.npy" not in archive.namelist():
        return _member(file, key, path)
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        return _member(file, key, path)
    try:
        with archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0}[version]  # fmt: skip
            shape, fortran, dtype = read(stream)
            header = stream.tell()
            if dtype.hasobject or fortran:
                return _member(file, key, path)
            while stream.read(_READ):  # to the end, where zipfile compares the CRC
                pass
        start = _content_of(Path(path), info) + header
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise PagodaError(f"{path}: {key} is damaged ({error}); copy the file again") from error
    return np.memmap(path, dtype, "r", start, shape)


def _content_of(path: Path, info: zipfile.ZipInfo) -> int:
    """Where in the file the content of a member starts: behind a header with two texts."""
    with path.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        return info.header_offset + 30 + sum(struct.unpack("<HH", stream.read(4)))


def _class_names(file: np.lib.npyio.NpzFile, num_classes: int) -> list[str]:
    """Names from ``classes``; plain numbers if it is absent or needs unpickling."""
    numbers = [str(i) for i in range(num_classes)]
    if "classes" not in file.files:
        return numbers
    try:
        return [str(name) for name in file["classes"]]
    except ValueError:
        return numbers


def _given(value: str | None, kind: str, key: str) -> str:
    if value is None:
        raise PagodaError(f"data.{key} is null; data.source = {kind} needs it")
    return value
