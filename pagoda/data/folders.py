"""Images in class folders, on disk or in an archive.

The layout is ``{train,test}/{class}/**/image``; ``val`` stands in for ``test`` where there is no
labelled ``test``. Without ``train`` the layout is ``{class}/**/image``, and a share of every class
is held out as the test split. The class index is the rank of the class folder's name, sorted; with
one class, folders mean nothing and every image counts. Where a ``dataset.json`` of EDM's or
StyleGAN's tool lies beside the folders, it says the classes. One folder around everything is passed
over. What is an image, and what is hidden, is said in :mod:`pagoda.data.trees`.

Folders that could be splits or classes are refused by name: see :func:`_check_tops`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pagoda.data.base import ImageSource, digest, hold_out
from pagoda.data.trees import Entry, FolderTree, Tree, escaped, is_image
from pagoda.errors import PagodaError

_LAYOUT = (
    "the layout wanted is train/CLASS/IMAGE and test/CLASS/IMAGE (or val/CLASS/IMAGE), or "
    "CLASS/IMAGE with data.test_share"
)
_SPLITS = ("train", "test", "val")
_SPLITS_ELSEWHERE = (*_SPLITS, "training", "testing", "valid", "validation")
_LABELS = "dataset.json"
_ALL = "all"  # what the one class of an unconditional set is called

_Classes = dict[str, list[Entry]]
"""Images of each class, in the order of the class indices; none where a folder holds none."""


class TreeSource(ImageSource):
    """Images of one split, listed in a tree.

    Args:
        tree: where they are.
        entries: the images.
        classes: name of each class.
        passed_over: what the tree says of the other files.
    """

    def __init__(
        self,
        tree: Tree,
        entries: Sequence[Entry],
        *,
        classes: Sequence[str],
        passed_over: str,
        **common: Any,
    ) -> None:
        self._tree, self._entries, self.passed_over = tree, entries, passed_over
        super().__init__(where=tree.where, classes=[escaped(c) for c in classes], **common)

    def fingerprint(self) -> str:
        """SHA-256 of names and contents in order, and of the class names. Reads every file."""
        names = self.names
        return digest([self.classes, names, self._tree.digests(names)])

    def _open(self, row: int) -> Image.Image:
        return Image.open(io.BytesIO(self._tree.read(self._entries[row].name)))

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
        PagodaError: if the layout is another or can be read in two ways, or a class has no images.
    """
    tree = _unwrapped(tree, num_classes)
    train = _by_class(tree, "train/", num_classes)
    held_out = next(filter(None, (_by_class(tree, f"{s}/", num_classes) for s in _SPLITS[1:])), {})
    if not (train and held_out):
        _check_tops(tree, bool(train), test_share)
    if not train:
        if test_share is None:
            raise _no_folders(tree, split)
        train, held_out = _by_class(tree, "", num_classes), {}
        if not train:
            raise _no_folders(tree, split)
    taken = sum(map(len, [*train.values(), *held_out.values()]))
    common |= {"num_classes": num_classes, "split": split, "passed_over": tree.passed_over(taken)}
    if held_out or test_share is None:
        return _of_two(tree, train, held_out, **common)
    files, labels = _listed(tree, train, "train")
    held = hold_out([e.name for e in files], labels, test_share, tree.where)
    keep = np.flatnonzero(held == (split == "test"))
    return TreeSource(tree, files, classes=list(train), labels=labels, keep=keep, **common)


def _of_two(
    tree: Tree, train: _Classes, held_out: _Classes, *, split: str, **common: Any
) -> TreeSource:
    found = train if split == "train" else held_out
    if not train or not found:
        raise _no_folders(tree, split)
    if unknown := [name for name in found if name not in train]:
        raise PagodaError(f"{tree.where}: class {unknown[0]} is in {split} but not in train")
    files, labels = _listed(tree, {name: found.get(name, []) for name in train}, split)
    return TreeSource(tree, files, split=split, classes=list(train), labels=labels, **common)


def _listed(tree: Tree, found: _Classes, split: str) -> tuple[list[Entry], NDArray[np.intp]]:
    """Images and labels, sorted by class and name."""
    for name, images in found.items():
        if not images:
            raise PagodaError(
                f"{tree.where}: class {name} has no {split} images; add some or remove it"
            )
    files = [entry for images in found.values() for entry in sorted(images)]
    return files, np.repeat(np.arange(len(found)), [len(images) for images in found.values()])


def _no_folders(tree: Tree, split: str) -> PagodaError:
    return PagodaError(f"{tree.where} has no class folders for its {split} split; {_LAYOUT}")


def _unwrapped(tree: Tree, num_classes: int) -> Tree:
    """The tree without the one folder around everything, whatever files lie beside that folder.

    With one class a folder can be all there is: there only an archive's is passed over, where
    nothing lies beside it, or one that holds ``train``.
    """
    tops = {entry.name.partition("/")[0] for entry in tree.entries if "/" in entry.name}
    beside = [entry.name for entry in tree.entries if "/" not in entry.name]
    if len(tops) != 1 or any(is_image(name) or name == _LABELS for name in beside):
        return tree
    if _by_class(tree, "train/", num_classes):
        return tree
    inner = tree.below(f"{tops.pop()}/")
    alone = not beside and not isinstance(tree, FolderTree)
    return inner if num_classes > 1 or alone or _by_class(inner, "train/", 1) else tree


def _check_tops(tree: Tree, split: bool, test_share: float | None) -> None:
    """Refuse top folders of which nobody knows whether they are splits or classes.

    A lone folder ``train`` (or ``Test``, ``valid`` ...) that holds images itself, beside other
    folders, is a class.

    Args:
        tree: has no pair of splits.
        split: whether ``train`` is a split, with nothing to test on.
        test_share: None has :func:`_no_folders` speak of ``train`` alone.
    """
    nested: dict[str, bool] = {}  # whether a top folder has folders with images
    for name in (e.name for e in tree.entries if "/" in e.name and is_image(e.name)):
        top = name.partition("/")[0]
        nested[top] = nested.get(top, False) or name.count("/") > 1
    if split:
        rest = sorted(top for top in nested if top not in _SPLITS)
        if rest and test_share is not None:
            raise PagodaError(
                f"{tree.where}: the folder train is taken for a split, and {_some(rest)} beside it "
                f"would be left out; rename train if it is a class, or move the others; {_LAYOUT}"
            )
        return
    alike = sorted(top for top in nested if top.lower() in _SPLITS_ELSEWHERE)
    if alike and (len(alike) > 1 or len(alike) == len(nested) or nested[alike[0]]):
        raise PagodaError(
            f"{tree.where}: {_some(alike)} may be splits or classes; call splits train and test, "
            f"with class folders in both, and rename what is a class; {_LAYOUT}"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")


def _by_class(tree: Tree, prefix: str, num_classes: int) -> _Classes:
    """Images of each class of what lies under ``prefix``; nothing if there are no class folders."""
    below = [entry for entry in tree.entries if entry.name.startswith(prefix)]
    if num_classes == 1:
        images = [entry for entry in below if is_image(entry.name)]
        return {_ALL: images} if images else {}
    if any(entry.name == prefix + _LABELS for entry in below):
        labels = _json_labels(tree, prefix)
        if labels is not None:
            return _by_label(tree, labels, [entry for entry in below if is_image(entry.name)])
    classes: _Classes = {}
    for entry in below:
        name, slash, _ = entry.name[len(prefix) :].partition("/")
        if slash:
            found = classes.setdefault(name, [])
            if is_image(entry.name):
                found.append(entry)
    return dict(sorted(classes.items()))


def _json_labels(tree: Tree, prefix: str) -> dict[str, int] | None:
    """Labels by name of ``dataset.json``; None if the file is about something else.

    It is ``{"labels": [["00000/img00000000.png", 6], ...]}``, or null where there are no labels.
    """
    where = f"{prefix}{_LABELS} of {tree.where}"
    try:
        content = json.loads(tree.read_text(prefix + _LABELS))
        if not isinstance(content, dict) or "labels" not in content:
            return None
        labels = {f"{prefix}{name}": label for name, label in content["labels"]}
    except (TypeError, ValueError, RecursionError) as error:
        raise PagodaError(
            f"{where} holds no labels, [[NAME, NUMBER], ...]; set data.num_classes=1 if there are "
            "no classes, or remove it if folders are classes"
        ) from error
    for name, label in labels.items():
        if type(label) is not int or not 0 <= label < len(labels):
            raise PagodaError(
                f"{where}: the label of {name} is {label!r}; labels must be whole numbers from 0"
            )
    return labels


def _by_label(tree: Tree, labels: dict[str, int], images: list[Entry]) -> _Classes:
    """Classes by number: the folders are shards of equal length and mean nothing."""
    lacking = {entry.name for entry in images}.symmetric_difference(labels)
    if lacking or not labels:
        raise PagodaError(
            f"{tree.where}: {min(lacking, default='every image')} is only in one of {_LABELS} and "
            "the images; make them again with the tool that wrote them"
        )
    classes: _Classes = {str(i): [] for i in range(max(labels.values()) + 1)}
    for entry in images:
        classes[str(labels[entry.name])].append(entry)
    return classes
