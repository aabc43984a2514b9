"""Arrays in an ``.npz`` file, and the source of images that one can be.

A file from elsewhere may say anything. What an array's header states (type, shape) is held against
the size that the archive's directory states before memory is taken, and no more is ever read than
that. Object arrays are refused: unpickling could run any code.
"""

from __future__ import annotations

import io
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pagoda.data.base import ArraySource, hold_out, to_nchw
from pagoda.errors import PagodaError, first_line

_HEADER = 1 << 16  # numpy itself reads no header of more than 10,000 bytes
_READ = 1 << 24  # bytes read at once
_MOST_CLASSES = 1 << 20
_ENCRYPTED = 1  # a flag of zip's
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, struct.error,
            zipfile.BadZipFile)  # fmt: skip


class _Objects(PagodaError):
    """An array of objects, which only unpickling would read."""


@dataclass(frozen=True)
class Member:
    """One array of an npz file: what its header says.

    Attributes:
        path: the npz file.
        key: name of the array.
        info: its entry in the archive's directory.
        shape: of the array.
        dtype: of the array; never of objects.
        fortran: whether the first index is the fastest.
        header: bytes before the content.
    """

    path: Path
    key: str
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    header: int

    def open(self) -> IO[bytes]:
        """The array's bytes as they are stored, behind the header."""
        with reading(self.path, self.key):
            with zipfile.ZipFile(self.path) as archive:
                stream = archive.open(self.info)  # outlives the archive
            stream.read(self.header)
            return stream

    def array(self) -> NDArray[Any]:
        """The whole array: mapped where the archive holds it as it is, else in memory.

        Raises:
            PagodaError: if its bytes are damaged.
        """
        if self.info.compress_type != zipfile.ZIP_STORED or self.fortran:
            content = np.empty(self.info.file_size - self.header, np.uint8)
            self._read_into(content)
            order: Any = "F" if self.fortran else "C"
            return content.view(self.dtype).reshape(self.shape, order=order)
        self._read_into(None)
        with reading(self.path, self.key):
            return np.memmap(self.path, self.dtype, "r", self._start() + self.header, self.shape)

    def check_images(self) -> None:
        """Refuse what makes no images by its header alone, before it is unpacked.

        Raises:
            PagodaError: for another type or shape than images have.
        """
        to_nchw(np.broadcast_to(np.empty((), self.dtype), self.shape), f"{self.path}: {self.key}")

    def _read_into(self, content: NDArray[np.uint8] | None) -> None:
        """Read to the end, where zipfile compares the CRC."""
        done, size = 0, self.info.file_size - self.header
        with reading(self.path, self.key), self.open() as stream:
            while part := stream.read(_READ):
                if content is not None:
                    content[done : done + len(part)] = np.frombuffer(part, np.uint8)
                done += len(part)
            if done < size:
                raise EOFError("it ends early")

    def _start(self) -> int:
        """Where in the file the member starts: behind a header of zip's with two texts."""
        with self.path.open("rb") as stream:
            stream.seek(self.info.header_offset + 26)
            return self.info.header_offset + 30 + sum(struct.unpack("<HH", stream.read(4)))


class Npz:
    """The arrays of an npz file, by name.

    Raises:
        PagodaError: if it is none, or holds two arrays of one name.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                found = [f for f in archive.infolist() if f.filename.endswith(".npy")]
        except (*_DAMAGED, RuntimeError) as error:
            raise PagodaError(
                f"{path} ends early, is unreadable or is no npz file; copy it again"
            ) from error
        self._infos = {info.filename.removesuffix(".npy"): info for info in found}
        if len(found) > len(self._infos):
            names = [info.filename for info in found]
            twice = next(name for name in names if names.count(name) > 1)
            raise PagodaError(f"{path} holds {twice} twice; save it again with one of the two")

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(self._infos)

    def member(self, key: str) -> Member:
        """The header of the array ``key``.

        Raises:
            PagodaError: if the array is not there, or is none that can be read.
        """
        if key not in self._infos:
            has = f"it has {', '.join(self.keys)}" if self.keys else "it is empty"
            raise PagodaError(f"{self.path} lacks {key}; {has}")
        info = self._infos[key]
        if info.flag_bits & _ENCRYPTED:
            raise PagodaError(f"{self.path}: {key} is encrypted; save it again without a password")
        with reading(self.path, key):
            with zipfile.ZipFile(self.path) as archive, archive.open(info) as stream:
                head = io.BytesIO(stream.read(_HEADER))
            shape, fortran, dtype = _parsed(head)
        if dtype.hasobject:
            raise _Objects(
                f"{self.path}: {key} is no plain array (mixed sizes, or objects); save it as one "
                "array of numbers"
            )
        needed = head.tell() + math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or not dtype.itemsize or needed != info.file_size:
            raise PagodaError(
                f"{self.path}: {key} is damaged: its header says {dtype} of shape {shape}, which "
                f"is {needed} bytes, and it has {info.file_size}; save it again"
            )
        return Member(self.path, key, info, shape, dtype, fortran, head.tell())


@contextmanager
def reading(path: Path, key: str) -> Iterator[None]:
    """Turn all that zipfile and numpy raise for a damaged member into one line."""
    try:
        yield
    except NotImplementedError as error:
        raise PagodaError(
            f"{path}: {key} is compressed in a way that cannot be read here; save it again with "
            "numpy.savez_compressed"
        ) from error
    except _DAMAGED as error:
        why = first_line(error)
        raise PagodaError(f"{path}: {key} is damaged ({why}); copy the file again") from error


def _parsed(head: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type; ``head`` is left behind the header."""
    version = np.lib.format.read_magic(head)
    read = {(1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0}.get(version)  # fmt: skip
    if read is None:
        raise ValueError(f"npy version {version}")
    shape, fortran, dtype = read(head)
    return shape, fortran, dtype


class NpzSource(ArraySource):
    """An ``.npz`` file with ``x_train, y_train, x_test, y_test`` and, if it likes, ``classes``.

    Without ``x_test`` and ``y_test`` a share of every class of ``x_train`` is held out. Pixels that
    the file holds uncompressed (``numpy.savez``) are memory-mapped, so that it may be larger than
    the memory; compressed ones are unpacked into memory.
    """

    def __init__(
        self, path: str | Path, *, split: str, test_share: float | None, **common: Any
    ) -> None:
        if not Path(path).is_file():
            raise PagodaError(f"data.path = {path}: there is no such file")
        file = Npz(path)
        whole = test_share is not None and "x_test" not in file.keys
        stem = "train" if whole else split
        pixels, labels = file.member(f"x_{stem}"), file.member(f"y_{stem}")
        _check(pixels, labels)
        classes = _class_names(file, common["num_classes"])
        numbers = labels.array().reshape(-1)
        keep = None
        if whole and test_share is not None:
            names = [f"x_train[{row}]" for row in range(len(numbers))]
            held = hold_out(names, numbers, test_share, str(path))
            keep = np.flatnonzero(held == (split == "test"))
        super().__init__(pixels.array(), stem=f"x_{stem}", where=str(path), split=split,
                         classes=classes, labels=numbers, keep=keep, **common)  # fmt: skip


def _check(pixels: Member, labels: Member) -> None:
    """Refuse what makes no images with labels by the headers alone, before it is unpacked."""
    pixels.check_images()
    column = labels.shape[1:] in ((), (1,)) and labels.shape != ()
    if not column or labels.dtype.kind not in "iu":
        raise PagodaError(f"{labels.path}: {labels.key} must hold one whole number an image")
    if labels.shape[0] != pixels.shape[0]:
        raise PagodaError(
            f"{pixels.path}: {pixels.key} has {pixels.shape[0]} images and {labels.shape[0]} labels"
        )


def _class_names(file: Npz, num_classes: int) -> list[str]:
    """Names from ``classes``; plain numbers if it is absent or needs unpickling."""
    numbers = [str(i) for i in range(num_classes)]
    if "classes" not in file.keys:
        return numbers
    try:
        member = file.member("classes")
    except _Objects:
        return numbers
    if len(member.shape) != 1 or member.shape[0] > _MOST_CLASSES:
        raise PagodaError(
            f"{file.path}: classes has shape {member.shape}; it must hold one name a class"
        )
    return [str(name) for name in member.array()]
