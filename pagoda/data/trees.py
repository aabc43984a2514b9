"""Files by name, wherever they lie: in a folder, a zip archive or a tar archive. One set of rules.

* An image is a file whose name ends in one of :data:`ENDINGS`, in small or capital letters.
* Names that start with a dot and those of :data:`HIDDEN` are hidden, at any depth.
* Links, symbolic or hard, are followed, in archives as on disk; one that leads back to a folder it
  lies in is passed over, one that leads nowhere is refused.
* Pipes, sockets and devices are never opened. One name twice in an archive is refused, and so is
  an image of more than :data:`MOST_BYTES`.
* What is passed over is counted, and :meth:`Tree.passed_over` says so.

Archives are read in place, at random, by any number of processes: the listing is made once, and a
file's bytes are then one read away. A compressed tar archive has no random access and is refused.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import re
import stat
import tarfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import IO, Any, NamedTuple

from pagoda.errors import PagodaError

ENDINGS = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".webp", ".avif", ".bmp", ".gif",
    ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Endings of image files, in small or capital letters."""

HIDDEN = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "$RECYCLE.BIN", "lost+found",
                    "System Volume Information"})  # fmt: skip
"""What file managers and servers leave beside files, some of it with small images inside."""

MOST_BYTES = 1 << 29
"""Of one image: as many as the largest that Pillow takes has without compression, in 8-bit RGB."""

_IMAGES = "images outside the layout"
_KINDS_TOLD = 6  # of what is passed over
_ONE_AT_A_TIME = threading.Lock()  # threads share the position in an archive


class Entry(NamedTuple):
    """One file of a tree; ``crc`` is its CRC-32 where the archive states one, else 0."""

    name: str  # with forward slashes; a folder ends in one
    size: int
    crc: int


class _File(NamedTuple):
    size: int
    crc: int
    at: Any  # where its bytes are: what the archive calls it, or where it starts


class _Link(NamedTuple):
    target: str  # relative to the root of the archive


class Tree(ABC):
    """A listing of files, and their bytes.

    Attributes:
        where: what messages call it.
        entries: every file and folder that is not hidden, names relative to the root.
        passed: how many of each kind were passed over while listing.
        used: files that were read for what they say of the images.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.entries: list[Entry] = []
        self.passed: Counter[str] = Counter()
        self.used: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Other processes open files by name: they need no listing."""
        return self.__dict__ | {"entries": []}

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """The content of the file ``name``.

        Raises:
            OSError, zipfile.BadZipFile, EOFError: if it is gone or damaged.
        """

    def images(self) -> list[Entry]:
        """The image files, in order of their names."""
        return sorted(entry for entry in self.entries if is_image(entry.name))

    def read(self, name: str) -> bytes:
        """All of :meth:`open`."""
        with self.open(name) as stream:
            return stream.read()

    def read_text(self, name: str) -> str:
        """A text file's content.

        Raises:
            PagodaError: if it cannot be read.
        """
        self.used.add(name)
        try:
            return self.read(name).decode("utf-8-sig")
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise PagodaError(f"cannot read {name} of {self.where} ({error})") from error

    def passed_over(self, taken: int) -> str:
        """``3 files passed over: .txt 2, hidden 1``; '' if there are none.

        Args:
            taken: how many of the images are used; the others count as passed over.
        """
        files = [e.name for e in self.entries if e.name[-1] != "/" and e.name not in self.used]
        counts = self.passed + Counter(map(_kind, files))
        counts[_IMAGES] -= taken
        ranked = sorted((-n, kind) for kind, n in counts.items() if n > 0)
        told = [f"{kind} {-n}" for n, kind in ranked[:_KINDS_TOLD]]
        if rest := -sum(n for n, _ in ranked[_KINDS_TOLD:]):
            told.append(f"others {rest}")
        total = -sum(n for n, _ in ranked)
        return f"{total} file{'s' * (total > 1)} passed over: {', '.join(told)}" if told else ""

    def below(self, prefix: str) -> Tree:
        """What lies in the folder ``prefix``, which ends in a slash, as a tree of its own."""
        return _Part(self, prefix)


class _Walked(Tree):
    """A tree that is listed folder by folder."""

    @abstractmethod
    def _names(self, folder: str) -> list[str]:
        """Names in a folder of which ``folder`` says where it is, links followed."""

    @abstractmethod
    def _look(self, folder: str, item: str) -> _File | str | None:
        """A file, where a folder is, or None for what is neither; links are followed.

        Raises:
            OSError: if it is not there, or cannot be read.
        """

    def _walk(self, root: str) -> None:
        """Fill the listing."""
        waiting = [("", root, frozenset({root}))]
        while waiting:
            prefix, folder, above = waiting.pop()
            for item in self._names(folder):
                if item.startswith(".") or item in HIDDEN:
                    self.passed["hidden"] += 1
                    continue
                name, found = prefix + item, self._followed(folder, item, prefix + item)
                if isinstance(found, _File):
                    self._keep(name, found)
                elif found is None:
                    self.passed["pipes and devices"] += 1
                elif found in above:
                    self.passed["links to a folder above"] += 1
                else:
                    self.entries.append(Entry(f"{name}/", 0, 0))
                    waiting.append((f"{name}/", found, above | {found}))

    def _followed(self, folder: str, item: str, name: str) -> _File | str | None:
        try:
            return self._look(folder, item)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            raise PagodaError(
                f"{name} of {self.where} is a link to what is not there; mend or remove it"
            ) from error

    def _keep(self, name: str, file: _File) -> None:
        if file.size > MOST_BYTES and is_image(name):
            raise PagodaError(
                f"{name} of {self.where} is of {file.size:,} bytes, an image has at most "
                f"{MOST_BYTES:,}; remove it"
            )
        self.entries.append(Entry(name, file.size, file.crc))


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


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return name.lower().endswith(ENDINGS)


def escaped(name: str) -> str:
    r"""A file's name on one line of UTF-8; different names stay different.

    Backslashes are doubled, a byte that is no UTF-8 becomes ``\xe9``, a line's end ``\n``, any
    other control character ``\u000b``.
    """
    return re.sub(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", _escape, name)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return {"\\": "\\\\", "\n": "\\n"}.get(found[0], f"\\u{code:04x}")


class FolderTree(_Walked):
    """A folder on disk."""

    def __init__(self, root: str | Path) -> None:
        super().__init__(str(root))
        self._root = Path(root)
        if not self._root.is_dir():
            raise PagodaError(f"data.path = {root}: there is no such folder")
        try:
            self._walk(os.path.realpath(root))
        except OSError as error:
            raise PagodaError(f"cannot read {error.filename}: {error.strerror}") from error

    def open(self, name: str) -> IO[bytes]:
        """The content of the file ``name``."""
        return (self._root / name).open("rb")

    def _names(self, folder: str) -> list[str]:
        return os.listdir(folder)

    def _look(self, folder: str, item: str) -> _File | str | None:
        path = f"{folder}/{item}"
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return os.path.realpath(path) if os.path.islink(path) else path
        return _File(found.st_size, 0, None) if stat.S_ISREG(found.st_mode) else None


class _Archive(_Walked):
    """A file that holds files.

    Attributes:
        _held: while listing, what each folder holds: files, links, where folders are, or None.
        _at: where the bytes of a file are; empty where its name says it.
    """

    def __init__(self, path: str | Path, kind: str) -> None:
        super().__init__(str(path))
        self._path, self._pid = Path(path), 0
        self._at: dict[str, Any] = {}
        self._held: dict[str, dict[str, _File | _Link | str | None]] = {"": {}}
        if not self._path.is_file():
            raise PagodaError(f"data.path = {path}: there is no such archive")
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

    def _add(self, name: str, what: _File | _Link | None) -> None:
        folder, _, item = name.rpartition("/")
        self._add_folder(folder)
        if not item:  # the root
            return
        if item in self._held[folder] and not _is_hidden(name):
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

    def _names(self, folder: str) -> list[str]:
        return list(self._held[folder])

    def _look(self, folder: str, item: str) -> _File | str | None:
        found = self._held[folder].get(item, _Link("/"))
        if not isinstance(found, _Link):
            return found
        if found.target.startswith("/"):
            raise FileNotFoundError(errno.ENOENT, "not in the archive")
        self._held[folder][item] = _Link("/")  # a link that leads back to itself leads nowhere
        here: _File | str | None = ""
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

    def open(self, name: str) -> IO[bytes]:
        """The content of the file ``name``."""
        with _ONE_AT_A_TIME:
            archive = self._handle()
            info = archive.getinfo(self._at.get(name, name))
            if info.file_size > MOST_BYTES:
                raise OSError(f"it would take {info.file_size:,} bytes")
            with archive.open(info) as stream:  # never more than the archive states
                return io.BytesIO(stream.read(info.file_size))

    def _handle(self) -> zipfile.ZipFile:
        """The archive, opened once a process: a position in a file must not be shared."""
        if self._archive is None or self._pid != os.getpid():
            self._archive, self._pid = zipfile.ZipFile(self._path), os.getpid()
        return self._archive

    def _list(self) -> None:
        for info in self._handle().infolist():
            name, mode = _clean(info.filename), stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                self._add_folder(name)
            elif mode == stat.S_IFLNK and info.file_size < 1 << 12:
                target = self._handle().read(info).decode("utf-8", "surrogateescape")
                self._add(name, _Link(posixpath.join(posixpath.dirname(name), target)))
            else:
                file = _File(info.file_size, info.CRC, info.filename)
                self._add(name, file if mode in (0, stat.S_IFREG) else None)

    def _keep(self, name: str, file: _File) -> None:
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

    def open(self, name: str) -> IO[bytes]:
        """The content of the file ``name``."""
        offset, size = self._at[name]
        with _ONE_AT_A_TIME:
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
            self._add(name, _File(member.size, 0, place) if member.isreg() else None)

    def _keep(self, name: str, file: _File) -> None:
        super()._keep(name, file)
        self._at[name] = file.at


class _Part(Tree):
    """What lies in one folder of a tree."""

    def __init__(self, tree: Tree, prefix: str) -> None:
        super().__init__(tree.where)
        self._tree, self._prefix = tree, prefix
        self.passed = tree.passed.copy()
        for entry in tree.entries:
            if not entry.name.startswith(prefix):
                self.passed[_kind(entry.name)] += entry.name[-1] != "/"
            elif entry.name != prefix:
                self.entries.append(entry._replace(name=entry.name[len(prefix) :]))

    def open(self, name: str) -> IO[bytes]:
        """The content of the file ``name``."""
        return self._tree.open(self._prefix + name)


def _clean(name: str) -> str:
    """A member's name without ``./`` and slashes at its ends; '' is the root."""
    name = posixpath.normpath(name).lstrip("/")
    return "" if name == "." else name


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part in HIDDEN for part in name.split("/"))


def _kind(name: str) -> str:
    """What a file is called among those that are passed over."""
    return _IMAGES if is_image(name) else escaped(Path(name).suffix.lower()) or "no ending"


def _compression(start: bytes) -> str | None:
    marks = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
    return next((kind for mark, kind in marks.items() if start.startswith(mark)), None)
