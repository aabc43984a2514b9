"""Images to be scored: files of a folder or archive, or an ``.npz`` file, in a fixed order."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pagoda.artifacts import digest
from pagoda.data.archives import open_tree
from pagoda.data.base import DAMAGED
from pagoda.data.resize import cut, to_rgb
from pagoda.data.trees import ENDINGS, Entry, Tree
from pagoda.errors import PagodaError, first_line
from pagoda.evaluation.arrays import ArrayImages
from pagoda.evaluation.streaming import Images

_THREADS = min(8, os.cpu_count() or 1)


def open_images(
    path: Path,
    split: str | None = None,
    crop: str | None = None,
    side: int | None = None,
    exif: bool = False,
) -> Images:
    """Images of a folder (at any depth), a zip or tar archive, or an ``.npz`` file.

    Args:
        path: folder, ``.zip``, ``.tar`` or ``.npz``.
        split: of a folder or archive only what lies below a folder of this name; of an ``.npz``
            the array ``x_<split>``. None takes everything, and ``arr_0``, ``images`` or
            ``samples``.
        crop: a recipe of :mod:`pagoda.data.resize`, to cut images of any size; needs ``side``.
        side: what they are cut to, pixels.
        exif: turn image files as their EXIF orientation says; arrays have none.

    Raises:
        PagodaError: if there is nothing there that can be read.
    """
    if (crop is None) != (side is None):
        raise PagodaError("--crop and --size go together: the recipe, and what it cuts to")
    how = (crop, side) if crop and side else None
    if not (path.is_dir() or path.is_file()):
        raise PagodaError(f"there is no {path}")
    if path.suffix == ".npz" and path.is_file():
        if how:
            raise PagodaError(f"{path}: --crop works on image files, not on .npz arrays")
        return ArrayImages(path, split)
    if path.suffix in (".pkl", ".pickle", ".pt", ".pth") and path.is_file():
        raise PagodaError(f"{path} may be a pickle, which can run any code; use .npz, .zip, files")
    tree = open_tree(path)
    entries = tree.images()
    passed_over = tree.passed_over(len(entries))
    if split is not None:
        entries = [entry for entry in entries if split in entry.name.split("/")[:-1]]
    return FileImages(tree, entries, how, exif, passed_over)


class FileImages:
    """Image files by name.

    Attributes:
        names: of each file in its folder or archive, in order.

    Args:
        tree: where they are.
        entries: the files, in order.
        how: recipe and side to cut to; None takes images as they are.
        exif: turn them as their EXIF orientation says.
        passed_over: what the tree says of the other files.
    """

    def __init__(
        self,
        tree: Tree,
        entries: Sequence[Entry],
        how: tuple[str, int] | None,
        exif: bool,
        passed_over: str,
    ) -> None:
        if not entries:
            also = f"; {passed_over}" if passed_over else ""
            raise PagodaError(f"{tree.where} holds no images ({', '.join(ENDINGS)}){also}")
        self.where, self.passed_over, self._how = tree.where, passed_over, how
        self._tree, self.names = tree, [entry.name for entry in entries]
        self.exif, self._digests = exif, dict[str, str]()
        self.resolution = self._decode(0).shape[1:]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB images (n, 3, h, w)."""
        with ThreadPoolExecutor(_THREADS) as pool:
            images = list(pool.map(self._decode, rows.tolist()))
        for row, image in zip(rows, images, strict=True):
            if image.shape[1:] != self.resolution:
                first, other = self.names[0], self.names[row]
                raise PagodaError(
                    f"{self.where}: {other} is {_size(image.shape[1:])}, {first} is "
                    f"{_size(self.resolution)}; images must have one size, or be cut to one with "
                    "--crop and --size"
                )
        return np.stack(images)

    def card(self) -> dict[str, Any]:
        """Digest of names and contents, and how images are cut; reads what was not read yet."""
        crop, side = self._how or ("none", self.resolution[0])
        unread = [name for name in self.names if name not in self._digests]
        self._digests |= zip(unread, self._tree.digests(unread), strict=True)
        files = digest([(name, self._digests[name]) for name in self.names])
        turned = {"exif": True} if self.exif else {}
        return {"n": len(self), "files": files, "crop": crop, "size": side} | turned

    def _decode(self, row: int) -> np.ndarray:
        name = self.names[row]
        try:
            content = self._tree.read(name)
            self._digests[name] = hashlib.sha256(content).hexdigest()
            image = to_rgb(Image.open(io.BytesIO(content)), self.exif)
            pixels = cut(image, self._how[1], self._how[0]) if self._how else np.asarray(image)
        except DAMAGED as error:
            why = first_line(error)
            raise PagodaError(
                f"{self.where}: {name} does not decode ({why}); mend or remove it"
            ) from error
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
