"""Opening a source of labelled images by its kind."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pagoda.data.base import ArraySource, ImageSource, digest
from pagoda.data.embedded import CLASSES, render
from pagoda.data.folders import FolderSource, ZipSource
from pagoda.data.hubs import open_hugging_face, open_torchvision
from pagoda.errors import PagodaError

SPLITS = ("train", "test")
"""Names of the splits."""


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
) -> ImageSource:
    """Open one split of a source.

    Args:
        kind: ``embedded``, ``folder``, ``zip``, ``npz``, ``torchvision`` or ``hub``.
        split: ``train`` or ``test``.
        path: folder or file; for ``torchvision`` the folder it downloads to (None: ``data``).
        hub: a torchvision class or a Hugging Face id.
        num_classes: number of classes expected.
        limit: keep the first ``limit`` images; classes take turns, so they are balanced.
        render_res: resolution the embedded set is drawn at.
        seed: seed of the embedded set.

    Raises:
        PagodaError: one line saying what is wrong with the data and what to do.
    """
    if split not in SPLITS:
        raise PagodaError(f"split = {split!r}; it must be one of {', '.join(SPLITS)}")
    common: dict[str, Any] = {"split": split, "num_classes": num_classes, "limit": limit}
    if kind == "embedded":
        return EmbeddedSource(render_res=render_res, seed=seed, **common)
    if kind == "folder":
        return FolderSource(_given(path, kind, "path"), **common)
    if kind == "zip":
        return ZipSource(_given(path, kind, "path"), **common)
    if kind == "npz":
        return NpzSource(_given(path, kind, "path"), **common)
    if kind == "torchvision":
        return open_torchvision(_given(hub, kind, "hub"), path=path, **common)
    if kind == "hub":
        return open_hugging_face(_given(hub, kind, "hub"), **common)
    raise PagodaError(
        f"data.source = {kind!r}; it must be one of embedded, folder, zip, npz, torchvision, hub"
    )


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
    """An ``.npz`` file with ``x_train, y_train, x_test, y_test`` and, if it likes, ``classes``."""

    def __init__(
        self, path: str | Path, *, split: str, num_classes: int, limit: int | None
    ) -> None:
        pixels_key, labels_key = f"x_{split}", f"y_{split}"
        with _open_npz(path) as file:
            pixels = _member(file, pixels_key, path)
            labels = _member(file, labels_key, path)
            classes = _class_names(file, num_classes)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise PagodaError(f"{path}: {labels_key} must hold one whole number an image")
        super().__init__(pixels, stem=pixels_key, where=str(path), split=split, classes=classes,
                         labels=labels, num_classes=num_classes, limit=limit)  # fmt: skip


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
