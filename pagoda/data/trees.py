"""Files by name, wherever they lie: in a folder, a zip archive or a tar archive.

Archives are read in place, at random, by any number of processes: the listing is made once, and a
file's bytes are then one read away. A compressed tar archive has no random access and is refused.
"""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from pagoda.errors import PagodaError

_HIDDEN = "__MACOSX/"


class Entry(NamedTuple):
    """One file of a tree; ``crc`` is its CRC-32 where the archive states one, else 0."""

    name: str  # with forward slashes; a folder ends in one
    size: int
    crc: int


class Tree(ABC):
    """A listing of files, and their bytes.

    Attributes:
        where: what messages call it.
        entries: every file and folder, names relative to the root.
    """

    where: str
    entries: list[Entry]

    def __getstate__(self) -> dict[str, Any]:
        """Other processes open files by name: they need no listing."""
        return self.__dict__ | {"entries": []}

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """The content of the file ``name``.

        Raises:
            OSError, zipfile.BadZipFile, EOFError: if it is gone or damaged.
        """

    def read_text(self, name: str) -> str:
        """A text file's content.

        Raises:
            PagodaError: if it cannot be read.
        """
        try:
            with self.open(name) as stream:
                return stream.read().decode()
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise PagodaError(f"cannot read {name} of {self.where} ({error})") from error

    def _check_names(self) -> None:
        seen: set[str] = set()
        for entry in self.entries:
            if entry.name in seen and not entry.name.endswith("/"):
                raise PagodaError(
                    f"{self.where} holds {entry.name} twice; make it again with one of the two"
                )
            seen.add(entry.name)


def open_tree(path: str | Path) -> Tree:
    """The folder, zip or tar archive at ``path``, told apart by what it is.

    Raises:
        PagodaError: if there is nothing, or nothing that can be listed.
    """
    path = Path(path)
    if path.is_dir():
        return FolderTree(path)
    if path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        return TarTree(path)
    return ZipTree(path)


class FolderTree(Tree):
    """A folder on disk."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        self.where = str(root)
        if not self._root.is_dir():
            raise PagodaError(f"data.path = {root}: there is no such folder")
        try:
            self.entries = list(_scan(self._root, ""))
        except OSError as error:
            raise PagodaError(f"cannot read {error.filename}: {error.strerror}") from error

    def open(self, name: str) -> IO[bytes]:
        """The content of the file ``name``."""
        return (self._root / name).open("rb")


class ZipTree(Tree):
    """A zip archive; reading a file checks its CRC."""

    def __init__(self, path: str | Path) -> None:
        self._path, self.where = Path(path), str(path)
        self._archive: zipfile.ZipFile | None = None
        self._pid = 0
        _must_be_a_file(self._path)
        try:
            files = self._handle().infolist()
        except zipfile.BadZipFile as error:
            raise _cut_short(path, "zip", error) from error
        except OSError as error:
            raise PagodaError(f"cannot read {path}: {error.strerror or error}") from error
        self.entries = [Entry(f.filename, f.file_size, f.CRC) for f in files
                        if not f.filename.startswith(_HIDDEN)]  # fmt: skip
        self._check_names()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_archive": None}

    def open(self, name: str) -> IO[bytes]:
        """The content of the file ``name``."""
        return io.BytesIO(self._handle().read(name))

    def _handle(self) -> zipfile.ZipFile:
        """The archive, opened once a process: a position in a file must not be shared."""
        if self._archive is None or self._pid != os.getpid():
            self._archive, self._pid = zipfile.ZipFile(self._path), os.getpid()
        return self._archive


class TarTree(Tree):
    """An uncompressed tar archive."""

    def __init__(self, path: str | Path) -> None:
        self._path, self.where = Path(path), str(path)
        self._descriptor, self._pid = -1, 0
        _must_be_a_file(self._path)
        self._places: dict[str, tuple[int, int]] = {}
        self.entries = []
        try:
            self._list()
        except tarfile.TarError as error:
            raise _cut_short(path, "tar", error) from error
        except OSError as error:
            raise PagodaError(f"cannot read {path}: {error.strerror or error}") from error
        self._check_names()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_descriptor": -1, "_pid": 0}

    def __del__(self) -> None:
        if self._descriptor >= 0 and self._pid == os.getpid():
            os.close(self._descriptor)

    def open(self, name: str) -> IO[bytes]:
        """The content of the file ``name``."""
        offset, size = self._places[name]
        if self._pid != os.getpid():
            self._descriptor, self._pid = os.open(self._path, os.O_RDONLY), os.getpid()
        content = os.pread(self._descriptor, size, offset)
        if len(content) != size:
            raise EOFError("the archive ends early")
        return io.BytesIO(content)

    def _list(self) -> None:
        with self._path.open("rb") as stream:
            if (kind := _compression(stream.read(6))) is not None:
                raise PagodaError(
                    f"{self._path} is compressed with {kind}, which has no random access; unpack "
                    f"it (tar -xf {self._path.name}) and set data.source=folder"
                )
        with tarfile.open(self._path, "r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.isdir():
                    self.entries.append(Entry(f"{name}/", 0, 0))
                elif member.isreg() and not name.startswith(_HIDDEN):
                    self.entries.append(Entry(name, member.size, 0))
                    self._places[name] = (member.offset_data, member.size)
                archive.members = []  # type: ignore[attr-defined] # a million would take gigabytes
            end = archive.offset
        with self._path.open("rb") as stream:
            stream.seek(end)
            if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("no mark of its end")


def _scan(folder: Path, name: str) -> Iterator[Entry]:
    with os.scandir(folder) as items:
        for item in items:
            if item.is_dir():
                yield Entry(f"{name}{item.name}/", 0, 0)
                yield from _scan(folder / item.name, f"{name}{item.name}/")
            else:
                yield Entry(name + item.name, item.stat().st_size, 0)


def _must_be_a_file(path: Path) -> None:
    if not path.is_file():
        raise PagodaError(f"data.path = {path}: there is no such archive")


def _cut_short(path: str | Path, kind: str, error: Exception) -> PagodaError:
    return PagodaError(f"{path} ends early or is no {kind} archive ({error}); copy it again")


def _compression(start: bytes) -> str | None:
    marks = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
    return next((kind for mark, kind in marks.items() if start.startswith(mark)), None)
