"""Outputs appear whole or not at all, and never in the place of what pagoda did not write.

A file or folder is written beside its place, under a hidden name, and renamed into it. A file takes
the place of a regular file or of nothing; a folder that of nothing, of an empty folder, or of one
whose content the caller knows for its own. The old folder is moved aside first and deleted last: a
process that is killed in between leaves both, and the next one puts the old one back.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from glob import escape
from pathlib import Path

from pagoda.errors import PagodaError

Stranger = Callable[[Path], str | None]
"""Why a folder may not be replaced, e.g. ``holds notes.txt``; None if it may."""


def only(*patterns: str) -> Stranger:
    """Folders with nothing but files whose paths inside match patterns are replaced."""

    def stranger(folder: Path) -> str | None:
        for file in sorted(folder.rglob("*")):
            name = file.relative_to(folder).as_posix()
            plain_folder = file.is_dir() and not file.is_symlink()
            if not (plain_folder or any(fnmatch(name, pattern) for pattern in patterns)):
                return f"holds {name}, which pagoda did not write"
        return None

    return stranger


def check_folder(path: Path, stranger: Stranger) -> None:
    """Refuse before any work what :func:`new_folder` would refuse after it.

    Raises:
        PagodaError: one line: what is in the way.
    """
    with _one_line(path):
        why: str | None = None
        if path.name in ("", "..") or Path.cwd().is_relative_to(path.resolve()):
            why = "is the working folder, or holds it"
        elif path.is_symlink():
            why = "is a symbolic link"
        elif path.exists() and not path.is_dir():
            why = "is no folder"
        elif path.exists() and any(path.iterdir()):
            why = stranger(path)
        _check_place(path, why)


def check_file(path: Path) -> None:
    """Refuse before any work what :func:`new_file` would refuse after it.

    Raises:
        PagodaError: one line: what is in the way.
    """
    with _one_line(path):
        why = "is a folder" if path.is_dir() else None
        if path.is_symlink() or (not why and path.exists() and not path.is_file()):
            why = "is a link or a device, no plain file"
        _check_place(path, why)


@contextmanager
def new_folder(path: Path, stranger: Stranger) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes ``path``.

    Args:
        path: where it goes; folders above it are made.
        stranger: says what of an older folder there forbids to replace it.

    Raises:
        PagodaError: if something else is there, or it cannot be written. Nothing is left behind.
    """
    partial, old = _beside(path, "partial"), _beside(path, "old")
    check_folder(path, stranger)
    try:
        with _one_line(path):
            _recover(path)
            partial.mkdir(parents=True)
            yield partial
            check_folder(path, stranger)
            if path.exists():
                path.rename(old)
            try:
                partial.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield the name of a file to write; on success it becomes ``path``.

    Raises:
        PagodaError: if anything but a regular file is there, or it cannot be written.
    """
    check_file(path)
    partial = _beside(path, "partial")
    try:
        with _one_line(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            check_file(path)
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def link_or_copy(file: Path, place: Path) -> None:
    """A second name of a file; a copy on another disk, or one without links."""
    try:
        place.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, place)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, the whole of it or none."""
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _recover(path: Path) -> None:
    """Put back, or remove, what processes of this machine left here when they were killed."""
    for left in sorted(path.parent.glob(escape(f".{path.name}.") + "*")):
        kind, _, pid = left.name.removeprefix(f".{path.name}.").partition(f"-{platform.node()}-")
        if kind not in ("partial", "old") or _is_alive(pid):
            continue
        if kind == "old" and not path.exists():
            left.rename(path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    """Whether another process of that number runs; in containers our own can be that of a dead."""
    try:
        if int(pid) == os.getpid():
            return False
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        pass  # another user's, or not ours at all
    return True


def _beside(path: Path, what: str) -> Path:
    return path.parent / f".{path.name}.{what}-{platform.node()}-{os.getpid()}"


def _check_place(path: Path, why: str | None) -> None:
    if why:
        raise PagodaError(f"{path} {why}, so nothing is written there; choose another place")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise PagodaError(f"cannot write {path}; {nearest} is no folder that is yours to write to")


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise PagodaError(
                f"cannot write {path}, a disk of its own or in use; name a new folder inside it"
            ) from error
        short = error.errno is None and "requested and" in str(error)  # numpy, disk full
        why = os.strerror(errno.ENOSPC) if short else error.strerror or error
        raise PagodaError(f"cannot write {path}: {why}") from error
