"""Images in folders, one a class, on disk or in a zip archive.

The layout is ``{train,test}/{class}/**/image``; ``val`` stands in for ``test`` where there is no
labelled ``test``. The class index is the rank of the class folder's name, sorted. Files whose name
starts with a dot, or whose ending is none of :data:`ENDINGS`, are no images and are passed over.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pagoda.data.base import ImageSource, digest
from pagoda.errors import PagodaError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings of image files, in small or capital letters."""

_LAYOUT = "the layout wanted is train/CLASS/IMAGE and test/CLASS/IMAGE (or val/CLASS/IMAGE)"


class _Entry(NamedTuple):
    name: str  # with forward slashes; a folder ends in one
    size: int
    crc: int


class _Tree(ImageSource):
    """Images of one split out of a listing of files."""

    def __init__(
        self, train: Iterable[_Entry], wanted: Iterable[_Entry], *, where: str, **common: Any
    ) -> None:
        classes = sorted(_by_class(train))
        files = _by_class(wanted)
        if unknown := sorted(set(files) - set(classes)):
            raise PagodaError(
                f"{where}: class {unknown[0]} is in {common['split']} but not in train"
            )
        for name in classes:
            if not files.get(name):
                raise PagodaError(
                    f"{where}: class {name} has no {common['split']} images; add some or remove it"
                )
        counts = [len(files[name]) for name in classes]
        self._entries = [entry for name in classes for entry in sorted(files[name])]
        labels = np.repeat(np.arange(len(classes)), counts)
        super().__init__(where=where, classes=classes, labels=labels, **common)

    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and, in an archive, checksums, in order."""
        return digest([self.classes, [self._entries[row] for row in self.rows]])

    def _name(self, row: int) -> str:
        return self._entries[row].name


class FolderSource(_Tree):
    """A folder on disk."""

    def __init__(self, path: str | Path, *, split: str, **common: Any) -> None:
        self._root = Path(path)
        if not self._root.is_dir():
            raise PagodaError(f"data.path = {path}: there is no such folder; {_LAYOUT}")
        train = _walk(self._root, "train")
        wanted = train if split == "train" else _walk(self._root, *_HELD_OUT)
        if not _by_class(train) or not _by_class(wanted):
            raise PagodaError(f"{path} has no class folders for its {split} split; {_LAYOUT}")
        super().__init__(train, wanted, where=str(path), split=split, **common)

    def _open(self, row: int) -> Image.Image:
        return Image.open(self._root / self._entries[row].name)


class ZipSource(_Tree):
    """A zip archive. One folder around everything in it is passed over."""

    def __init__(self, path: str | Path, *, split: str, **common: Any) -> None:
        self._path, self._prefix = Path(path), ""
        self._archive: zipfile.ZipFile | None = None
        self._pid = 0
        entries = self._list()
        if not any(entry.name.startswith("train/") for entry in entries):
            tops = {entry.name.split("/")[0] for entry in entries}
            self._prefix = f"{tops.pop()}/" if len(tops) == 1 else ""
            skip = len(self._prefix)
            entries = [e._replace(name=e.name[skip:]) for e in entries]
        train = _below(entries, "train")
        wanted = train if split == "train" else _below(entries, *_HELD_OUT)
        if not _by_class(train) or not _by_class(wanted):
            raise PagodaError(f"{path} has no class folders for its {split} split; {_LAYOUT}")
        super().__init__(train, wanted, where=str(path), split=split, **common)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archive": None}

    def _open(self, row: int) -> Image.Image:
        name = self._prefix + self._entries[row].name
        return Image.open(io.BytesIO(self._handle().read(name)))  # checks the CRC

    def _handle(self) -> zipfile.ZipFile:
        """The archive, opened once a process: a position in a file must not be shared."""
        if self._archive is None or self._pid != os.getpid():
            self._archive, self._pid = zipfile.ZipFile(self._path), os.getpid()
        return self._archive

    def _list(self) -> list[_Entry]:
        if not self._path.is_file():
            raise PagodaError(f"data.path = {self._path}: there is no such archive")
        try:
            files = self._handle().infolist()
        except zipfile.BadZipFile as error:
            raise PagodaError(
                f"{self._path} ends early or is no zip archive ({error}); copy it again"
            ) from error
        except OSError as error:
            raise PagodaError(f"cannot read {self._path}: {error.strerror or error}") from error
        hidden = "__MACOSX/"
        return [_Entry(f.filename, f.file_size, f.CRC) for f in files
                if not f.filename.startswith(hidden)]  # fmt: skip


_HELD_OUT = ("test", "val")


def _walk(root: Path, *splits: str) -> list[_Entry]:
    """Files and class folders of the first of ``splits`` that has class folders."""
    for split in splits:
        try:
            found = list(_scan(root / split, f"{split}/"))
        except OSError as error:
            raise PagodaError(f"cannot read {error.filename}: {error.strerror}") from error
        if _by_class(found):
            return found
    return []


def _scan(folder: Path, name: str) -> Iterator[_Entry]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as items:
        for item in items:
            if item.is_dir():
                yield _Entry(f"{name}{item.name}/", 0, 0)
                yield from _scan(folder / item.name, f"{name}{item.name}/")
            else:
                yield _Entry(name + item.name, item.stat().st_size, 0)


def _below(entries: list[_Entry], *splits: str) -> list[_Entry]:
    """Entries of the first of ``splits`` that has class folders."""
    for split in splits:
        found = [entry for entry in entries if entry.name.startswith(f"{split}/")]
        if _by_class(found):
            return found
    return []


def _by_class(entries: Iterable[_Entry]) -> dict[str, list[_Entry]]:
    """Image files of each class folder; an empty list for a folder without any."""
    classes: dict[str, list[_Entry]] = {}
    for entry in entries:
        _, *inner = entry.name.split("/")
        if len(inner) < 2 or any(part.startswith(".") for part in inner):
            continue
        images = classes.setdefault(inner[0], [])
        if entry.name.lower().endswith(ENDINGS):
            images.append(entry)
    return classes
