"""Images to be scored: those of a source, or of an ``images`` artifact, in a fixed order."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pagoda.artifacts import MANIFEST, digest, open_artifact, peek
from pagoda.data import registry, store
from pagoda.data.base import Arrays, Files, Pictures, decoded
from pagoda.data.resize import RECIPES, cut
from pagoda.data.trees import ENDINGS, digests, is_image
from pagoda.errors import PagodaError
from pagoda.evaluation.streaming import Images
from pagoda.kinds import KINDS

DIFFUSERS = "diffusers:"
"""Begins the name of a pipeline of that library, which makes images of captions only."""

_THREADS = min(8, os.cpu_count() or 1)
_READ = 1 << 24  # bytes of pixels hashed at once


def open_images(
    path: Path,
    split: str | None = None,
    crop: str | None = None,
    side: int | None = None,
    exif: bool = False,
) -> Images:
    """Images of a folder (at any depth), an archive, an ``.npz`` file, an artifact or a source.

    Args:
        path: folder, ``.zip``, ``.tar``, ``.npz``, the folder of an ``images`` artifact, or
            ``SOURCE:PATH`` (``imagenet:/data/ILSVRC``), ``SOURCE:NAME`` (``torchvision:CIFAR10``)
            with any name of :mod:`pagoda.data.sources`.
        split: of a folder or archive only what lies below a folder of this name; of an ``.npz``
            the array ``x_<split>``; of an artifact or a labelled source its split. None takes
            everything, and ``arr_0``, ``images`` or ``samples``; of a labelled source, ``test``.
        crop: a recipe of :mod:`pagoda.data.resize`, to cut images of any size; needs ``side``.
        side: what they are cut to, pixels.
        exif: turn image files as their EXIF orientation says; arrays have none.

    Raises:
        PagodaError: if there is nothing there that can be read.
    """
    if (crop is None) != (side is None):
        raise PagodaError("--crop and --size go together: the recipe, and what it cuts to")
    if crop is not None and crop not in RECIPES:
        raise PagodaError(f"--crop {crop}; it must be one of {', '.join(RECIPES)}")
    if side is not None and side < 1:
        raise PagodaError(f"--size {side}; it must be 1 or more")
    how = (crop, side) if crop and side else None
    pictures, rows = _found(path, split)
    if isinstance(pictures, Files):
        if split and not len(rows):
            raise PagodaError(f"{path} holds no images below a folder {split}, which --split names")
        return FileImages(pictures, rows, how, exif)
    if how:
        raise PagodaError(f"{path}: --crop works on image files, not on .npz arrays")
    return ArrayImages(pictures, rows)


def _found(path: Path, split: str | None) -> tuple[Pictures, np.ndarray]:
    check_there(path)
    if kind_of(path) is not None:
        artifact = open_artifact(path, "images")
        if split not in registry.SPLITS:
            raise PagodaError(
                f"{path} holds a train and a test split; --split says which is meant (of a "
                "reference --reference-split, of originals --originals-split)"
            )
        pictures: Pictures = Arrays(
            str(path), store.open_images(artifact, split), f"{split}_images"
        )
        return pictures, np.arange(len(pictures))
    if inside := _artifacts_in(path):
        told = ", ".join(f"{folder.name} ({kind})" for folder, kind in inside.items())
        raise PagodaError(f"{path} holds artifacts: {told}; name one, like {next(iter(inside))}")
    name, at = _named(path) or ("", path)
    if at.suffix in (".pkl", ".pickle", ".pt", ".pth") and at.is_file():
        raise PagodaError(f"{at} may be a pickle, which can run any code; use .npz, .zip, files")
    if at.is_file() and is_image(at.name):
        raise PagodaError(f"{at} is one image; name the folder or the archive that holds them all")
    name = name or _by_ending(path)
    source = registry.find(name)
    if source.unlabelled is None:
        key: dict[str, Any] = {source.needs or "path": str(at)}
        labelled = registry.open_source(name, replace(registry.Wanted(split or "test"), **key))
        return labelled.pictures, np.sort(labelled.rows)
    pictures = source.unlabelled(at, split)
    return pictures, np.arange(len(pictures))


def check_there(path: Path) -> None:
    """Refuse a path at which nothing is, and that names no source.

    Raises:
        PagodaError: if so.
    """
    if str(path).startswith(DIFFUSERS):
        raise PagodaError(
            f"{path} makes images of captions: 'pagoda evaluate' needs --captions FILE for it, and "
            "'pagoda sample' writes the images that any other command takes"
        )
    if not path.exists() and not _named(path):
        raise PagodaError(f"there is no {path}")


def kind_of(path: Path) -> str | None:
    """The kind of the artifact in a folder; None if there is none.

    Raises:
        PagodaError: if its manifest is damaged.
    """
    return peek(path, *KINDS).manifest["kind"] if (path / MANIFEST).is_file() else None


def _artifacts_in(path: Path) -> dict[Path, str]:
    """The artifacts right below a folder, by kind; a manifest of something else is none."""
    found: dict[Path, str] = {}
    for manifest in sorted(path.glob(f"*/{MANIFEST}")):
        with suppress(PagodaError):
            found[manifest.parent] = peek(manifest.parent, *KINDS).manifest["kind"]
    return found


def _named(path: Path) -> tuple[str, Path] | None:
    """``imagenet:/data`` -> the source and where it is."""
    name, colon, rest = str(path).partition(":")
    return (name, Path(rest)) if colon and name in registry.names() else None


def _by_ending(path: Path) -> str:
    """The source that reads such files; the zip archive's for zips of any other name.

    Raises:
        PagodaError: no source reads it.
    """
    ending = "/" if path.is_dir() else path.name.lower()
    name = registry.reading(ending)
    if name is None and not zipfile.is_zipfile(path):
        raise PagodaError(f"{path} is no folder, zip or tar archive or .npz file of images")
    return name or "zip"


class FileImages:
    """Image files by name.

    Args:
        pictures: the files.
        rows: which of them, in order.
        how: recipe and side to cut to; None takes images as they are.
        exif: turn them as their EXIF orientation says.
    """

    def __init__(
        self, pictures: Files, rows: np.ndarray, how: tuple[str, int] | None, exif: bool
    ) -> None:
        self.where, self.passed_over = pictures.where, pictures.passed_over
        if not len(rows):
            also = f"; {self.passed_over}" if self.passed_over else ""
            raise PagodaError(f"{self.where} holds no images ({', '.join(ENDINGS)}){also}")
        self._pictures, self._rows, self._how, self.exif = pictures, rows, how, exif
        self.names = [pictures.name(row) for row in rows.tolist()]
        self.resolution = self._decode(0).shape[1:]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB images (n, 3, h, w)."""
        with ThreadPoolExecutor(_THREADS) as pool:
            images = list(pool.map(self._decode, rows.tolist()))
        for row, image in zip(rows, images, strict=True):
            if image.shape[1:] != self.resolution:
                sizes = ["{1}x{0}".format(*shape) for shape in (image.shape[1:], self.resolution)]
                raise PagodaError(
                    f"{self.where}: {self.names[row]} is {sizes[0]}, {self.names[0]} is "
                    f"{sizes[1]}; images must have one size, or be cut to one with --crop and "
                    "--size"
                )
        return np.stack(images)

    def card(self) -> dict[str, Any]:
        """Digest of names and contents, which reads all of them, and how images are cut."""
        crop, side = self._how or ("none", self.resolution[0])
        row = dict(zip(self.names, self._rows.tolist(), strict=True))
        found = digests(lambda name: self._pictures.content(row[name]), self.names, self.where)
        files = digest(list(zip(self.names, found, strict=True)))
        turned = {"exif": True} if self.exif else {}
        return {"n": len(self), "files": files, "crop": crop, "size": side} | turned

    def _decode(self, row: int) -> np.ndarray:
        called = f"{self.where}: {self.names[row]}"
        image = decoded(self._pictures, int(self._rows[row]), self.exif, called)
        try:
            pixels = cut(image, self._how[1], self._how[0]) if self._how else np.asarray(image)
        except PagodaError as error:
            raise PagodaError(f"{called} {error}; remove it") from error
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class ArrayImages:
    """Ascending rows of images that are an array of pixels; grey ones get three channels."""

    def __init__(self, pictures: Pictures, rows: np.ndarray) -> None:
        self.where, self._pictures, self._rows = pictures.where, pictures, rows
        self.resolution = self.read(np.arange(1)).shape[2:]

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB images (n, 3, h, w) of ascending rows."""
        images = self._pictures.array(self._rows[rows])
        assert images is not None
        return np.ascontiguousarray(images.repeat(3, axis=1) if images.shape[1] == 1 else images)

    def card(self) -> dict[str, Any]:
        """SHA-256 of shape and pixels, however a file stores them; and the size."""
        content, step = hashlib.sha256(), max(1, _READ // (3 * math.prod(self.resolution)))
        for start in range(0, len(self), step):
            content.update(self.read(np.arange(start, min(start + step, len(self)))).data)
        files = digest([len(self), *self.resolution, content.hexdigest()])
        return {"n": len(self), "files": files, "crop": "none", "size": self.resolution[0]}
