"""Images to be scored: files of a folder or archive, or an ``.npz`` file, in a fixed order."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pagoda.artifacts import digest
from pagoda.data.archives import open_tree
from pagoda.data.resize import cut, to_rgb
from pagoda.data.trees import ENDINGS, Entry, Tree
from pagoda.errors import PagodaError
from pagoda.evaluation.streaming import Images

_THREADS = min(8, os.cpu_count() or 1)
_DAMAGED = (PagodaError, OSError, ValueError, SyntaxError, EOFError, RuntimeError, struct.error,
            zlib.error, zipfile.BadZipFile, Image.DecompressionBombError)  # fmt: skip
_NPZ_KEYS = ("arr_0", "images", "samples")


def open_images(
    path: Path, split: str | None = None, crop: str | None = None, side: int | None = None
) -> Images:
    """Images of a folder (at any depth), a zip or tar archive, or an ``.npz`` file.

    Args:
        path: folder, ``.zip``, ``.tar`` or ``.npz``.
        split: of a folder or archive only what lies below a folder of this name; of an ``.npz``
            the array ``x_<split>``. None takes everything, and ``arr_0``, ``images`` or
            ``samples``.
        crop: a recipe of :mod:`pagoda.data.resize`, to cut images of any size; needs ``side``.
        side: what they are cut to, pixels.

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
    return FileImages(tree, entries, how, passed_over)


class FileImages:
    """Image files by name.

    Args:
        tree: where they are.
        entries: the files, in order.
        how: recipe and side to cut to; None takes images as they are.
        passed_over: what the tree says of the other files.
    """

    def __init__(
        self,
        tree: Tree,
        entries: Sequence[Entry],
        how: tuple[str, int] | None,
        passed_over: str,
    ) -> None:
        if not entries:
            also = f"; {passed_over}" if passed_over else ""
            raise PagodaError(f"{tree.where} holds no images ({', '.join(ENDINGS)}){also}")
        self.where, self.passed_over, self._how = tree.where, passed_over, how
        self._tree, self._entries = tree, list(entries)
        self.resolution = self._decode(0).shape[1:]

    @property
    def names(self) -> list[str]:
        """Name of each file in its folder or archive, in order."""
        return [entry.name for entry in self._entries]

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB images (n, 3, h, w)."""
        with ThreadPoolExecutor(_THREADS) as pool:
            images = list(pool.map(self._decode, rows.tolist()))
        for row, image in zip(rows, images, strict=True):
            if image.shape[1:] != self.resolution:
                first, other = self._entries[0][0], self._entries[row][0]
                raise PagodaError(
                    f"{self.where}: {other} is {_size(image.shape[1:])}, {first} is "
                    f"{_size(self.resolution)}; images must have one size, or be cut to one with "
                    "--crop and --size"
                )
        return np.stack(images)

    def card(self) -> dict[str, Any]:
        """Digest of the list of files, and the crop."""
        crop, side = self._how or ("none", self.resolution[0])
        return {"n": len(self), "files": digest(self._entries), "crop": crop, "size": side}

    def _decode(self, row: int) -> np.ndarray:
        name = self._entries[row][0]
        try:
            image = Image.open(io.BytesIO(self._tree.read(name)))
            pixels = cut(image, self._how[1], self._how[0]) if self._how else np.asarray(
                to_rgb(image)
            )  # fmt: skip
        except _DAMAGED as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise PagodaError(
                f"{self.where}: {name} does not decode ({why}); mend or remove it"
            ) from error
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class ArrayImages:
    """One uint8 array of an ``.npz`` file, (n, h, w, 3), (n, 3, h, w) or grey (n, h, w).

    It is read in pieces, in ascending order: ADM's batches of 50,000 images do not fit in memory.
    """

    def __init__(self, path: Path, split: str | None) -> None:
        self.where = str(path)
        self._path, self._key = path, _array_key(path, split)
        self._stream, self._next = self._open()
        version = np.lib.format.read_magic(self._stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise PagodaError(f"{path}: {self._key} is of an unknown npy version {version}")
        self._shape, fortran, dtype = read_header(self._stream)
        if dtype != np.uint8 or fortran or len(self._shape) not in (3, 4) or not self._shape[0]:
            raise PagodaError(
                f"{path}: {self._key} is {dtype} of shape {self._shape}; images must be uint8, "
                "(n, height, width, 3)"
            )
        self._header = self._stream.tell()
        self._axes = self._layout()
        self.resolution = self._as_nchw(np.zeros((1, *self._shape[1:]), np.uint8)).shape[2:]

    def __len__(self) -> int:
        return int(self._shape[0])

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB images (n, 3, h, w) of ascending rows."""
        first, last = int(rows[0]), int(rows[-1])
        size = int(np.prod(self._shape[1:]))
        if first < self._next or self._stream.closed:
            self._stream.close()
            self._stream, self._next = self._open()
            self._skip(self._header)
        try:
            self._skip((first - self._next) * size)
            content = self._stream.read((last - first + 1) * size)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise PagodaError(f"{self.where}: {self._key} is damaged ({error})") from error
        if len(content) < (last - first + 1) * size:
            raise PagodaError(f"{self.where}: {self._key} ends early; copy the file again")
        self._next = last + 1
        block = np.frombuffer(content, np.uint8).reshape(-1, *self._shape[1:])
        return np.ascontiguousarray(self._as_nchw(block[rows - first]))

    def card(self) -> dict[str, Any]:
        """Name, checksum and shape of the array."""
        with zipfile.ZipFile(self._path) as archive:
            entry = archive.getinfo(f"{self._key}.npy")
        files = digest([[self._key, entry.file_size, entry.CRC]])
        return {"n": len(self), "files": files, "crop": "none", "size": self.resolution[0]}

    def _open(self) -> tuple[Any, int]:
        return zipfile.ZipFile(self._path).open(f"{self._key}.npy"), 0

    def _skip(self, count: int) -> None:
        while count > 0 and (part := self._stream.read(min(count, 1 << 24))):
            count -= len(part)

    def _layout(self) -> str:
        if len(self._shape) == 3:
            return "grey"
        if self._shape[3] in (1, 3):
            return "last"
        if self._shape[1] in (1, 3):
            return "first"
        raise PagodaError(
            f"{self.where}: {self._key} has shape {self._shape}; images have 1 or 3 channels"
        )

    def _as_nchw(self, block: np.ndarray) -> np.ndarray:
        if self._axes == "grey":
            block = block[:, None]
        elif self._axes == "last":
            block = block.transpose(0, 3, 1, 2)
        return block.repeat(3, axis=1) if block.shape[1] == 1 else block


def _array_key(path: Path, split: str | None) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            keys = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
    except (OSError, zipfile.BadZipFile) as error:
        raise PagodaError(f"{path} ends early or is no npz file; copy it again") from error
    wanted = [f"x_{split}"] if split else list(_NPZ_KEYS)
    for key in wanted:
        if key in keys:
            return key
    has = f"it has {', '.join(keys)}" if keys else "it is empty"
    raise PagodaError(f"{path} has no {' or '.join(wanted)}; {has}")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
