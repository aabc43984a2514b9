"""Images in class folders, on disk or in an archive.

The layout is ``{train,test}/{class}/**/image``; ``val`` stands in for ``test`` where there is no
labelled ``test``. Without ``train`` the layout is ``{class}/**/image``, and a share of every class
is held out as the test split. The class index is the rank of the class folder's name, sorted; with
one class, folders mean nothing and every image counts. In an archive one folder around everything
is passed over. Files whose name starts with a dot, or whose ending is none of :data:`ENDINGS`, are
no images and are passed over.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pagoda.data.base import ImageSource, digest, hold_out
from pagoda.data.trees import Entry, FolderTree, Tree
from pagoda.errors import PagodaError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings of image files, in small or capital letters."""

_LAYOUT = (
    "the layout wanted is train/CLASS/IMAGE and test/CLASS/IMAGE (or val/CLASS/IMAGE), or "
    "CLASS/IMAGE with data.test_share"
)
_SPLITS = ("train", "test", "val")
_ALL = "all"  # what the one class of an unconditional set is called


class TreeSource(ImageSource):
    """Images of one split, listed in a tree.

    Args:
        tree: where they are.
        entries: the images, named relative to ``prefix``.
        prefix: what to put before a name to find it in the tree.
    """

    def __init__(
        self, tree: Tree, entries: Sequence[Entry], *, prefix: str = "", **common: Any
    ) -> None:
        self._tree, self._entries, self._prefix = tree, entries, prefix
        super().__init__(where=tree.where, **common)

    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and, in a zip archive, checksums, in order."""
        return digest([self.classes, [self._entries[row] for row in self.rows]])

    def _open(self, row: int) -> Image.Image:
        with self._tree.open(self._prefix + self._entries[row].name) as stream:
            return Image.open(io.BytesIO(stream.read()))

    def _name(self, row: int) -> str:
        return self._entries[row].name


def open_class_folders(
    tree: Tree, *, split: str, num_classes: int, test_share: float | None, **common: Any
) -> TreeSource:
    """One split of class folders.

    Args:
        tree: a folder or an archive.
        split: ``train`` or ``test``.
        num_classes: 1 makes one class of everything.
        test_share: share of each class to hold out where the tree has no splits.
        common: further arguments of :class:`ImageSource`.

    Raises:
        PagodaError: if the layout is another, or a class has no images.
    """
    entries, prefix = tree.entries, ""
    if not isinstance(tree, FolderTree) and not _below(entries, num_classes, "train"):
        entries, prefix = _unwrapped(entries)
    train = _below(entries, num_classes, "train")
    held_out = _below(entries, num_classes, "test", "val")
    if not train:
        if test_share is None:
            raise _no_folders(tree, split)
        train, held_out = entries, []
    if held_out or test_share is None:
        return _of_two(tree, train, held_out, prefix=prefix, split=split,
                       num_classes=num_classes, **common)  # fmt: skip
    classes, files, labels = _listed(tree, _by_class(train, num_classes), "train")
    held = hold_out([e.name for e in files], labels, test_share, tree.where)
    keep = np.flatnonzero(held == (split == "test"))
    return TreeSource(tree, files, prefix=prefix, split=split, classes=classes, labels=labels,
                      keep=keep, num_classes=num_classes, **common)  # fmt: skip


def _of_two(
    tree: Tree, train: list[Entry], held_out: list[Entry], *, split: str, num_classes: int,
    **common: Any,
) -> TreeSource:  # fmt: skip
    known = _by_class(train, num_classes)
    found = known if split == "train" else _by_class(held_out, num_classes)
    if not known or not found:
        raise _no_folders(tree, split)
    if unknown := sorted(set(found) - set(known)):
        raise PagodaError(f"{tree.where}: class {unknown[0]} is in {split} but not in train")
    wanted = {name: found.get(name, []) for name in known}
    classes, files, labels = _listed(tree, wanted, split)
    return TreeSource(tree, files, split=split, classes=classes, labels=labels,
                      num_classes=num_classes, **common)  # fmt: skip


def _listed(
    tree: Tree, found: dict[str, list[Entry]], split: str
) -> tuple[list[str], list[Entry], NDArray[np.intp]]:
    """Class names, images and labels, sorted by class and name."""
    classes = sorted(found)
    for name in classes:
        if not found[name]:
            raise PagodaError(
                f"{tree.where}: class {name} has no {split} images; add some or remove it"
            )
    files = [entry for name in classes for entry in sorted(found[name])]
    labels = np.repeat(np.arange(len(classes)), [len(found[name]) for name in classes])
    return classes, files, labels


def _no_folders(tree: Tree, split: str) -> PagodaError:
    return PagodaError(f"{tree.where} has no class folders for its {split} split; {_LAYOUT}")


def _unwrapped(entries: list[Entry]) -> tuple[list[Entry], str]:
    """Entries without the one folder around all of them, and that folder's name."""
    tops = {entry.name.split("/")[0] for entry in entries}
    if len(tops) != 1:
        return entries, ""
    prefix = f"{tops.pop()}/"
    return [e._replace(name=e.name[len(prefix) :]) for e in entries], prefix


def _below(entries: list[Entry], num_classes: int, *splits: str) -> list[Entry]:
    """Entries of the first of ``splits`` that has class folders; names keep the split."""
    for split in splits:
        found = [entry for entry in entries if entry.name.startswith(f"{split}/")]
        if _by_class(found, num_classes):
            return found
    return []


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not hidden and name.lower().endswith(ENDINGS)


def _by_class(entries: Iterable[Entry], num_classes: int) -> dict[str, list[Entry]]:
    """Image files of each class folder; an empty list for a folder without any."""
    if num_classes == 1:
        images = [entry for entry in entries if is_image(entry.name)]
        return {_ALL: images} if images else {}
    classes: dict[str, list[Entry]] = {}
    for entry in entries:
        inner = entry.name.split("/")
        if inner[0] in _SPLITS:
            inner = inner[1:]
        if len(inner) < 2 or any(part.startswith(".") for part in inner):
            continue
        images = classes.setdefault(inner[0], [])
        if is_image(entry.name):
            images.append(entry)
    return classes
