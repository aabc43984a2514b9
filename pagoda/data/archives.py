"""Zip and tar archives as trees.

They are read in place, at random, by any number of processes: the listing is made once, and a
file's bytes are then one read away. A compressed tar archive has no random access and is refused.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tarfile
import threading
import zipfile
import zlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

from pagoda.data.trees import MOST_BYTES, File, FolderTree, Tree, Walked, is_hidden
from pagoda.errors import PagodaError

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Of names of tar archives; those that are compressed are refused, whatever their names."""

_WINDOWS = (0, 10)  # as a zip's directory calls where it was made
_UTF8 = 0x800  # a flag of a name there
_ONE_AT_A_TIME = threading.Lock()  # threads share the position in an archive


def open_tree(path: str | Path) -> Tree:
    """The folder, zip or tar archive at ``path``, chosen by what it is.

    Raises:
        PagodaError: if there is nothing, or nothing that can be listed.
    """
    if Path(path).is_dir():
        return FolderTree(path)
    return TarTree(path) if str(path).lower().endswith(TAR_ENDINGS) else ZipTree(path)


class _Link(NamedTuple):
    target: str  # relative to the root of the archive


class _Archive(Walked):
    """A file that holds files.

    Attributes:
        _held: while listing, what each folder holds: files, links, where folders are, or None.
        _at: where the bytes of a file are; empty where its name says it.
    """

    def __init__(self, path: str | Path, kind: str) -> None:
        super().__init__(str(path))
        self._path, self._pid = Path(path), 0
        self._at: dict[str, Any] = {}
        self._held: dict[str, dict[str, File | _Link | str | None]] = {"": {}}
        if not self._path.is_file():
            hint = "is a folder, no archive; data.source=folder reads it"
            why = hint if self._path.is_dir() else "there is no such archive"
            raise PagodaError(f"data.path = {path}: {why}")
        try:
            self._list()
            self._walk("")
        except OSError as error:
            raise PagodaError(f"cannot read {path}: {error.strerror or error}") from error
        except (zipfile.BadZipFile, tarfile.TarError, ValueError, RuntimeError, EOFError,
                zlib.error) as error:  # fmt: skip
            raise PagodaError(
                f"{path} ends early or is no {kind} archive ({error}); copy it again"
            ) from error
        self._held = {}

    @abstractmethod
    def _list(self) -> None:
        """Hand everything in the archive to :meth:`_add`."""

    def _add(self, name: str, what: File | _Link | None) -> None:
        folder, _, item = name.rpartition("/")
        self._add_folder(folder)
        if not item:  # the root
            return
        if item in self._held[folder] and not is_hidden(name):
            raise PagodaError(f"{self.where} holds {name} twice; make it again with one of the two")
        self._held[folder][item] = what

    def _add_folder(self, name: str) -> None:
        missing = []
        while name not in self._held:
            missing.append(name)
            name = name.rpartition("/")[0]
        for name in reversed(missing):
            folder, _, item = name.rpartition("/")
            self._held[folder][item] = name
            self._held[name] = {}

    def _items(self, folder: str) -> list[str]:
        return list(self._held[folder])

    def _look(self, folder: str, item: str) -> File | str | None:
        found = self._held[folder].get(item, _Link("/"))
        if not isinstance(found, _Link):
            return found
        if found.target.startswith("/"):
            raise FileNotFoundError(errno.ENOENT, "not in the archive")
        self._held[folder][item] = _Link("/")  # a link that leads back to itself is broken
        here: File | str | None = ""
        for part in found.target.split("/"):
            if not isinstance(here, str) or (part == ".." and not here):
                raise FileNotFoundError(errno.ENOENT, "not in the archive")
            if part == "..":
                here = here.rpartition("/")[0]
            elif part not in ("", "."):
                here = self._look(here, part)
        self._held[folder][item] = here
        return here


class ZipTree(_Archive):
    """A zip archive; reading a file checks its CRC."""

    def __init__(self, path: str | Path) -> None:
        self._archive: zipfile.ZipFile | None = None
        super().__init__(path, "zip")

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_archive": None}

    def read(self, name: str) -> bytes:
        """The content of the file ``name``."""
        with _ONE_AT_A_TIME:
            archive = self._handle()
            info = archive.NameToInfo.get(self._at.get(name, name))
            if info is None:
                raise EOFError("it is gone from the archive")
            if info.file_size > MOST_BYTES:
                raise OSError(f"it would take {info.file_size:,} bytes")
            with archive.open(info) as stream:  # never more than the archive states
                return stream.read(info.file_size)

    def _handle(self) -> zipfile.ZipFile:
        """The archive, opened once a process: a position in a file must not be shared."""
        if self._archive is None or self._pid != os.getpid():
            self._archive, self._pid = zipfile.ZipFile(self._path), os.getpid()
        return self._archive

    def _list(self) -> None:
        for info in self._handle().infolist():
            written, mode = info.filename, stat.S_IFMT(info.external_attr >> 16)
            # Some programs separate folders so; in a name of unknown code it may be half a letter.
            if info.create_system in _WINDOWS and (written.isascii() or info.flag_bits & _UTF8):
                written = written.replace("\\", "/")
            name = _clean(written)
            if written.endswith("/"):
                self._add_folder(name)
            elif mode == stat.S_IFLNK and info.file_size < 1 << 12:
                target = self._handle().read(info).decode("utf-8", "surrogateescape")
                self._add(name, _Link(posixpath.join(posixpath.dirname(name), target)))
            else:
                file = File(info.file_size, info.filename)
                self._add(name, file if mode in (0, stat.S_IFREG) else None)

    def _keep(self, name: str, file: File) -> None:
        super()._keep(name, file)
        if name != file.at:
            self._at[name] = file.at


class TarTree(_Archive):
    """An uncompressed tar archive."""

    def __init__(self, path: str | Path) -> None:
        self._descriptor = -1
        super().__init__(path, "tar")

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_descriptor": -1, "_pid": 0}

    def __del__(self) -> None:
        if self._descriptor >= 0 and self._pid == os.getpid():
            os.close(self._descriptor)

    def read(self, name: str) -> bytes:
        """The content of the file ``name``."""
        offset, size = self._at[name]
        with _ONE_AT_A_TIME:
            if self._pid != os.getpid():
                self._descriptor, self._pid = os.open(self._path, os.O_RDONLY), os.getpid()
        content = os.pread(self._descriptor, size, offset)
        if len(content) != size:
            raise EOFError("the archive ends early")
        return content

    def _list(self) -> None:
        with self._path.open("rb") as stream:
            if (kind := _compression(stream.read(6))) is not None:
                raise PagodaError(
                    f"{self._path} is compressed with {kind}, which has no random access; unpack "
                    f"it (tar -xf {self._path.name}) and take the folder, with data.source=folder"
                )
        with tarfile.open(self._path, "r:") as archive:
            for member in archive:
                self._member(member)
                archive.members = []  # type: ignore[attr-defined] # a million would take gigabytes
            end = archive.offset
        with self._path.open("rb") as stream:
            stream.seek(end)
            if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("no mark of its end")

    def _member(self, member: tarfile.TarInfo) -> None:
        name = _clean(member.name)
        if member.isdir():
            self._add_folder(name)
        elif member.issym():
            self._add(name, _Link(posixpath.join(posixpath.dirname(name), member.linkname)))
        elif member.islnk():
            self._add(name, _Link(_clean(member.linkname)))
        else:
            place = (member.offset_data, member.size)
            self._add(name, File(member.size, place) if member.isreg() else None)

    def _keep(self, name: str, file: File) -> None:
        super()._keep(name, file)
        self._at[name] = file.at


def _clean(name: str) -> str:
    """A member's name without ``./`` and slashes at its ends; '' is the root."""
    name = posixpath.normpath(name).lstrip("/")
    return "" if name == "." else name


def _compression(start: bytes) -> str | None:
    marks = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
    return next((kind for mark, kind in marks.items() if start.startswith(mark)), None)
