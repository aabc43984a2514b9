"""Arrays in an ``.npz`` file from elsewhere, which may say anything.

What an array's header states (type, shape) is compared with the size that the archive's directory
states before memory is taken, and no more is ever read than that. Object arrays are refused:
unpickling could run any code.
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
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pagoda.errors import PagodaError, denied, first_line

_HEADER = 1 << 16  # numpy itself reads no header of more than 10,000 bytes
_READ = 1 << 24  # bytes read at once
_ENCRYPTED = 1  # a flag of zip's
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, struct.error,
            zipfile.BadZipFile)  # fmt: skip


class ObjectsError(PagodaError):
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
        with _reading(self.path, self.key):
            with zipfile.ZipFile(self.path) as archive:
                stream = archive.open(self.info)  # outlives the archive
            stream.read(self.header)
            return stream

    def array(self) -> NDArray[Any]:
        """The whole array: mapped where the archive holds it as it is, else in memory.

        Raises:
            PagodaError: if its bytes are damaged.
        """
        size = self.info.file_size - self.header
        mapped = self.info.compress_type == zipfile.ZIP_STORED and not self.fortran
        content, done = np.empty(0 if mapped else size, np.uint8), 0
        with _reading(self.path, self.key), self.open() as stream:
            while part := stream.read(_READ):  # to the end, where zipfile compares the CRC
                if not mapped:
                    content[done : done + len(part)] = np.frombuffer(part, np.uint8)
                done += len(part)
            if done < size:
                raise EOFError("it ends early")
            if mapped:
                start = self._start() + self.header
                return np.memmap(self.path, self.dtype, "r", start, self.shape)
        order: Any = "F" if self.fortran else "C"
        return content.view(self.dtype).reshape(self.shape, order=order)

    def _start(self) -> int:
        """Where in the file the member starts: behind a header of zip's with two texts."""
        with self.path.open("rb") as stream:
            stream.seek(self.info.header_offset + 26)
            return self.info.header_offset + 30 + sum(struct.unpack("<HH", stream.read(4)))


class Pieces:
    """A uint8 array read in pieces, rows in and an array out, forwards as far as may be.

    ADM's batches of 50,000 images do not fit in memory. An array in Fortran's order has no such
    pieces and is held in memory.
    """

    def __init__(self, member: Member) -> None:
        self._member, self.shape, self.dtype = member, member.shape, member.dtype
        self._whole = member.array() if member.fortran else None
        self._stream: IO[bytes] | None = None
        self._next = 0

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Ascending rows."""
        if self._whole is not None:
            return self._whole[rows]
        first, last = int(rows[0]), int(rows[-1])
        return self._piece(first, last + 1)[rows - first]

    def _piece(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Rows ``start:stop``, from where the last piece ended or else from the beginning."""
        size = math.prod(self.shape[1:])
        with _reading(self._member.path, self._member.key):
            if self._stream is None or start < self._next:
                self._stream, self._next = self._member.open(), 0
            skip = (start - self._next) * size
            while skip > 0 and (part := self._stream.read(min(skip, _READ))):
                skip -= len(part)
            content = self._stream.read((stop - start) * size)
            if len(content) < (stop - start) * size:
                raise EOFError("it ends early")
        self._next = stop
        return np.frombuffer(content, np.uint8).reshape(-1, *self.shape[1:])


class Npz:
    """The arrays of an npz file, by name.

    Attributes:
        keys: names of the arrays.

    Raises:
        PagodaError: if it is none, or holds two arrays of one name.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                found = [f for f in archive.infolist() if f.filename.endswith(".npy")]
        except PermissionError as error:
            raise denied(error) from error
        except (*_DAMAGED, RuntimeError) as error:
            raise PagodaError(
                f"{path} ends early, is unreadable or is no npz file; copy it again"
            ) from error
        self._infos = {info.filename.removesuffix(".npy"): info for info in found}
        self.keys = tuple(self._infos)
        self.holds = f"it has {', '.join(self.keys)}" if self.keys else "it is empty"
        if len(found) > len(self.keys):
            names = [info.filename for info in found]
            twice = next(name for name in names if names.count(name) > 1)
            raise PagodaError(f"{path} holds {twice} twice; save it again with one of the two")

    def member(self, key: str) -> Member:
        """The header of the array ``key``.

        Raises:
            PagodaError: if the array is not there, or is none that can be read.
        """
        if key not in self._infos:
            raise PagodaError(f"{self.path} lacks {key}; {self.holds}")
        info = self._infos[key]
        if info.flag_bits & _ENCRYPTED:
            raise PagodaError(f"{self.path}: {key} is encrypted; save it again without a password")
        with _reading(self.path, key):
            with zipfile.ZipFile(self.path) as archive, archive.open(info) as stream:
                head = io.BytesIO(stream.read(_HEADER))
            version = np.lib.format.read_magic(head)
            read = {(1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0}.get(version)  # fmt: skip
            if read is None:
                raise ValueError(f"npy version {version}")
            shape, fortran, dtype = read(head)
        if dtype.hasobject:
            raise ObjectsError(
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
def _reading(path: Path, key: str) -> Iterator[None]:
    """Turn all that zipfile and numpy raise for a damaged member into one line."""
    try:
        yield
    except PermissionError as error:
        raise denied(error) from error
    except NotImplementedError as error:
        raise PagodaError(
            f"{path}: {key} is compressed in a way that cannot be read here; save it again with "
            "numpy.savez_compressed"
        ) from error
    except _DAMAGED as error:
        why = first_line(error)
        raise PagodaError(f"{path}: {key} is damaged ({why}); copy the file again") from error
