"""Files by name, wherever they lie: in a folder, or in an archive. One set of rules for all.

* An image is a file whose name ends in one of :data:`ENDINGS`, in small or capital letters.
* Names that start with a dot and those of :data:`HIDDEN` are hidden, at any depth.
* Links, symbolic or hard, are followed, in archives as on disk; one that leads back to a folder it
  lies in is passed over, a broken one is refused.
* Pipes, sockets and devices are never opened. One name twice in an archive is refused, and so is
  an image of more than :data:`MOST_BYTES`.
* What is passed over is counted, and :meth:`Tree.passed_over` says so.
"""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
import re
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pagoda.errors import PagodaError, denied, first_line

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
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error,
               lzma.LZMAError)  # fmt: skip
_AT_ONCE = 1024  # files waiting for a thread

_T = TypeVar("_T")


class File(NamedTuple):
    """A file, by whatever name or link it was found."""

    size: int
    at: Any  # where its bytes are: what the archive calls it, or where it starts


class Tree(ABC):
    """A listing of files, and their bytes.

    Attributes:
        where: what messages call it.
        names: of every file and folder that is not hidden, relative to the root, with forward
            slashes; a folder's ends in one.
        passed: how many of each kind were passed over while listing.
        used: files that were read for what they say of the images.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.names: list[str] = []
        self.passed: Counter[str] = Counter()
        self.used: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Other processes open files by name: they need no listing."""
        return self.__dict__ | {"names": []}

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of the file ``name``.

        Raises:
            OSError, zipfile.BadZipFile, EOFError: if it is gone or damaged.
        """

    def images(self) -> list[str]:
        """The image files, in order of their names."""
        return sorted(filter(is_image, self.names))

    def read_text(self, name: str) -> str:
        """A text file's content.

        Raises:
            PagodaError: if it cannot be read.
        """
        self.used.add(name)
        try:
            return self.read(name).decode("utf-8-sig")
        except PermissionError as error:
            raise denied(error) from error
        except _UNREADABLE as error:
            raise PagodaError(f"cannot read {name} of {self.where} ({error})") from error

    def passed_over(self, taken: int) -> str:
        """``3 files passed over: .txt 2, hidden 1``; '' if there are none.

        Args:
            taken: how many of the images are used; the others count as passed over.
        """
        files = [name for name in self.names if name[-1] != "/" and name not in self.used]
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


class _Part(Tree):
    """What lies in one folder of a tree."""

    def __init__(self, tree: Tree, prefix: str) -> None:
        super().__init__(tree.where)
        self._tree, self._prefix, self.passed = tree, prefix, tree.passed.copy()
        for name in tree.names:
            if not name.startswith(prefix):
                self.passed[_kind(name)] += name[-1] != "/"
            elif name != prefix:
                self.names.append(name.removeprefix(prefix))

    def read(self, name: str) -> bytes:
        """The content of the file ``name``."""
        return self._tree.read(self._prefix + name)


class Walked(Tree):
    """A tree that is listed folder by folder."""

    @abstractmethod
    def _items(self, folder: str) -> list[str]:
        """Names in a folder of which ``folder`` says where it is, links followed."""

    @abstractmethod
    def _look(self, folder: str, item: str) -> File | str | None:
        """A file, where a folder is, or None for what is neither; links are followed.

        Raises:
            OSError: if it is not there, or cannot be read.
        """

    def _walk(self, root: str) -> None:
        """Fill the listing."""
        waiting = [("", root, frozenset({root}))]
        while waiting:
            prefix, folder, above = waiting.pop()
            for item in self._items(folder):
                if is_hidden(item):
                    self.passed["hidden"] += 1
                    continue
                name, found = prefix + item, self._followed(folder, item, prefix + item)
                if isinstance(found, File):
                    self._keep(name, found)
                elif found is None:
                    self.passed["pipes and devices"] += 1
                elif found in above:
                    self.passed["links to a folder above"] += 1
                else:
                    self.names.append(f"{name}/")
                    waiting.append((f"{name}/", found, above | {found}))

    def _followed(self, folder: str, item: str, name: str) -> File | str | None:
        try:
            return self._look(folder, item)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            raise PagodaError(
                f"{name} of {self.where} is a link to what is not there; mend or remove it"
            ) from error

    def _keep(self, name: str, file: File) -> None:
        if file.size > MOST_BYTES and is_image(name):
            raise PagodaError(
                f"{name} of {self.where} is of {file.size:,} bytes, an image has at most "
                f"{MOST_BYTES:,}; remove it"
            )
        self.names.append(name)


class FolderTree(Walked):
    """A folder on disk."""

    def __init__(self, root: str | Path) -> None:
        super().__init__(str(root))
        if not Path(root).is_dir():
            hint = "is a file, no folder; for an archive, data.source=zip or tar"
            why = hint if Path(root).exists() else "there is no such folder"
            raise PagodaError(f"data.path = {root}: {why}")
        try:
            self._walk(os.path.realpath(root))
        except OSError as error:
            raise PagodaError(f"cannot read {error.filename}: {error.strerror}") from error

    def read(self, name: str) -> bytes:
        """The content of the file ``name``."""
        return Path(self.where, name).read_bytes()

    def _items(self, folder: str) -> list[str]:
        return os.listdir(folder)

    def _look(self, folder: str, item: str) -> File | str | None:
        path = f"{folder}/{item}"
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return os.path.realpath(path) if os.path.islink(path) else path
        return File(found.st_size, None) if stat.S_ISREG(found.st_mode) else None


def digests(read: Callable[[_T], bytes], names: Sequence[_T], where: str) -> list[str]:
    """Hex SHA-256 of the bytes of each file: all of them are read, by threads.

    Raises:
        PagodaError: naming a file that cannot be read.
    """

    def one(name: _T) -> str:
        try:
            return hashlib.sha256(read(name)).hexdigest()
        except PermissionError as error:
            raise denied(error) from error
        except (PagodaError, *_UNREADABLE) as error:
            why = first_line(error)
            raise PagodaError(
                f"{escaped(str(name))} of {where} cannot be read ({why}); mend or remove it"
            ) from error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        parts = (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))
        return [found for part in parts for found in pool.map(one, part)]


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return name.lower().endswith(ENDINGS)


def is_hidden(name: str) -> bool:
    """Whether a part of this name is hidden."""
    return any(part.startswith(".") or part in HIDDEN for part in name.split("/"))


def escaped(name: str) -> str:
    r"""A file's name on one line of UTF-8; different names stay different.

    Backslashes are doubled, a byte that is no UTF-8 becomes ``\xe9``, a line's end ``\n``, any
    other control character ``\u000b``.
    """

    def code(found: re.Match[str]) -> str:
        number = ord(found[0])
        if 0xDC80 <= number <= 0xDCFF:  # how Python holds a byte that is no UTF-8
            return f"\\x{number - 0xDC00:02x}"
        return {"\\": "\\\\", "\n": "\\n"}.get(found[0], f"\\u{number:04x}")

    return re.sub(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", code, name)


def _kind(name: str) -> str:
    """What a file is called among those that are passed over."""
    return _IMAGES if is_image(name) else escaped(Path(name).suffix.lower()) or "no ending"
