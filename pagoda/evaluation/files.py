"""Images to be scored: files in a folder or zip archive, or an ``.npz`` file, in a fixed order."""

from __future__ import annotations

import io
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pagoda.artifacts import digest
from pagoda.data.folders import ENDINGS
from pagoda.data.resize import cut, to_rgb
from pagoda.errors import PagodaError
from pagoda.evaluation.arrays import ArrayImages
from pagoda.evaluation.streaming import Images

_THREADS = min(8, os.cpu_count() or 1)
_DAMAGED = (PagodaError, OSError, ValueError, SyntaxError, EOFError, RuntimeError, struct.error,
            zlib.error, zipfile.BadZipFile, Image.DecompressionBombError)  # fmt: skip


def open_images(
    path: Path, split: str | None = None, crop: str | None = None, side: int | None = None
) -> Images:
    """Images of a folder (at any depth), a zip archive or an ``.npz`` file.

    Args:
        path: folder, ``.zip`` or ``.npz``.
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
    if path.is_dir():
        return FileImages(str(path), *_folder(path, split), how)
    if not path.is_file():
        raise PagodaError(f"there is no {path}")
    if zipfile.is_zipfile(path):
        if path.suffix == ".npz":
            if how:
                raise PagodaError(f"{path}: --crop works on image files, not on .npz arrays")
            return ArrayImages(path, split)
        return FileImages(str(path), *_archive(path, split), how)
    if path.suffix in (".pkl", ".pickle", ".pt", ".pth"):
        raise PagodaError(f"{path} may be a pickle, which can run any code; use .npz, .zip, files")
    raise PagodaError(f"{path} is no folder, zip archive or .npz file, or ends early")


class FileImages:
    """Image files by name.

    Args:
        where: what messages call them.
        entries: (name, size, checksum or 0) of each file, in order.
        load: bytes of a file by its name.
        how: recipe and side to cut to; None takes images as they are.
    """

    def __init__(
        self,
        where: str,
        entries: Sequence[tuple[str, int, int]],
        load: Callable[[str], bytes],
        how: tuple[str, int] | None,
    ) -> None:
        if not entries:
            raise PagodaError(f"{where} holds no images ({', '.join(ENDINGS)})")
        self.where, self._entries, self._load, self._how = where, list(entries), load, how
        self.resolution = self._decode(0).shape[1:]

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
            image = Image.open(io.BytesIO(self._load(name)))
            pixels = cut(image, self._how[1], self._how[0]) if self._how else np.asarray(
                to_rgb(image)
            )  # fmt: skip
        except _DAMAGED as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise PagodaError(
                f"{self.where}: {name} does not decode ({why}); mend or remove it"
            ) from error
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _folder(path: Path, split: str | None) -> tuple[list[tuple[str, int, int]], Any]:
    found = []
    try:
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            for file in files:
                name = Path(folder, file).relative_to(path).as_posix()
                if _wanted(name, split):
                    found.append((name, Path(folder, file).stat().st_size, 0))
    except OSError as error:
        raise PagodaError(f"cannot read {error.filename}: {error.strerror}") from error
    return sorted(found), lambda name: (path / name).read_bytes()


def _archive(path: Path, split: str | None) -> tuple[list[tuple[str, int, int]], Any]:
    archive, lock = zipfile.ZipFile(path), threading.Lock()

    def load(name: str) -> bytes:
        with lock:
            return archive.read(name)

    entries = [
        (f.filename, f.file_size, f.CRC) for f in archive.infolist() if _wanted(f.filename, split)
    ]
    return sorted(entries), load


def _wanted(name: str, split: str | None) -> bool:
    *folders, file = name.split("/")
    if file.startswith(".") or "__MACOSX" in folders or not file.lower().endswith(ENDINGS):
        return False
    return split is None or split in folders


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
