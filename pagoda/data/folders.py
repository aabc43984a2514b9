"""Images in class folders, on disk or in an archive.

The layout is ``{train,test}/{class}/**/image``; ``val`` stands in for ``test`` where there is no
labelled ``test``. Without ``train`` the layout is ``{class}/**/image``, and a fraction of every
class is held out as the test split. The class index is the rank of the class folder's name, sorted;
with one class, folders mean nothing and every image counts. Where a ``dataset.json`` of EDM's or
StyleGAN's tool lies beside the folders, it says the classes. One folder around everything is passed
over. What is an image, and what is hidden, is said in :mod:`pagoda.data.trees`.

Folders that could be splits or classes are refused by name: see :func:`_check_tops`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from pagoda.data.base import ImageSource, NamedFiles, hold_out
from pagoda.data.registry import Wanted
from pagoda.data.trees import FolderTree, Tree, escaped, is_image
from pagoda.errors import PagodaError

_LAYOUT = (
    "the layout wanted is train/CLASS/IMAGE and test/CLASS/IMAGE (or val/CLASS/IMAGE), or "
    "CLASS/IMAGE with data.test_share"
)
_SPLITS = ("train", "test", "val")
_SPLITS_ELSEWHERE = (*_SPLITS, "training", "testing", "valid", "validation")
_LABELS = "dataset.json"
_ALL = "all"  # what the one class of an unconditional set is called

_Classes = dict[str, list[str]]
"""Images of each class, in the order of the class indices; none where a folder holds none."""


def unlabelled(tree: Tree, split: str | None) -> NamedFiles:
    """All images of a tree, or those that lie below a folder of the name ``split``."""
    names = tree.images()
    passed_over = tree.passed_over(len(names))
    if split is not None:
        names = [name for name in names if split in name.split("/")[:-1]]
    return NamedFiles(tree.where, names, tree.read, passed_over)


def labelled(
    tree: Tree, files: Sequence[str], taken: int, wanted: Wanted, classes: Sequence[str],
    labels: Any, keep: Any = None,
) -> ImageSource:  # fmt: skip
    """Files of a tree with their labels; ``taken`` of its images count as used."""
    pictures = NamedFiles(tree.where, files, tree.read, tree.passed_over(taken))
    return ImageSource(pictures, wanted, [escaped(c) for c in classes], labels, keep)


def open_class_folders(tree: Tree, wanted: Wanted) -> ImageSource:
    """One split of class folders; ``wanted.num_classes`` = 1 makes one class of everything.

    Raises:
        PagodaError: if the layout is another or can be read in two ways, or a class has no images.
    """
    one, split, fraction = wanted.num_classes == 1, wanted.split, wanted.test_share
    tree = _unwrapped(tree, one)
    train = _by_class(tree, "train/", one)
    held_out = next(filter(None, (_by_class(tree, f"{s}/", one) for s in _SPLITS[1:])), {})
    if not (train and held_out):
        _check_tops(tree, bool(train), fraction)
    if not train and fraction is not None:
        train, held_out = _by_class(tree, "", one), {}
    shared = not held_out and fraction is not None
    found = train if shared or split == "train" else held_out
    if not train or not found:
        raise PagodaError(f"{tree.where} has no class folders for its {split} split; {_LAYOUT}")
    if unknown := [name for name in found if name not in train]:
        raise PagodaError(
            f"{tree.where}: class {unknown[0]} is in {split} but not in train; move some of its "
            "images there or remove it"
        )
    listed = {name: sorted(found.get(name, [])) for name in train}
    if empty := [name for name, images in listed.items() if not images]:
        raise PagodaError(
            f"{tree.where}: class {empty[0]} has no {'train' if shared else split} images; add "
            "some or remove it"
        )
    files = [name for images in listed.values() for name in images]
    labels = np.repeat(np.arange(len(listed)), [len(images) for images in listed.values()])
    keep = hold_out(files, labels, wanted, tree.where) if shared else None
    taken = sum(map(len, [*train.values(), *held_out.values()]))
    return labelled(tree, files, taken, wanted, list(train), labels, keep)


def _unwrapped(tree: Tree, one: bool) -> Tree:
    """The tree without the one folder around everything, whatever files lie beside that folder.

    With one class a folder can be all there is: there only an archive's is passed over, where
    nothing lies beside it, or one that holds ``train``.
    """
    tops = {name.partition("/")[0] for name in tree.names if "/" in name}
    beside = [name for name in tree.names if "/" not in name]
    if len(tops) != 1 or any(is_image(name) or name == _LABELS for name in beside):
        return tree
    if _by_class(tree, "train/", one):
        return tree
    inner = tree.below(f"{tops.pop()}/")
    alone = not beside and not isinstance(tree, FolderTree)
    return inner if not one or alone or _by_class(inner, "train/", True) else tree


def _check_tops(tree: Tree, split: bool, fraction: float | None) -> None:
    """Refuse top folders of which nobody knows whether they are splits or classes.

    A lone folder ``train`` (or ``Test``, ``valid`` ...) that holds images itself, beside other
    folders, is a class.

    Args:
        tree: has no pair of splits.
        split: whether ``train`` is a split, with nothing to test on.
        fraction: to hold out; None leaves it to the caller to speak of ``train`` alone.
    """
    nested: dict[str, bool] = {}  # whether a top folder has folders with images
    for name in (name for name in tree.names if "/" in name and is_image(name)):
        top = name.partition("/")[0]
        nested[top] = nested.get(top, False) or name.count("/") > 1
    if split:
        rest = sorted(top for top in nested if top not in _SPLITS)
        if rest and fraction is not None:
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


def _by_class(tree: Tree, prefix: str, one: bool) -> _Classes:
    """Images of each class of what lies under ``prefix``; nothing if there are no class folders."""
    below = [name for name in tree.names if name.startswith(prefix)]
    images = [name for name in below if is_image(name)]
    if one:
        return {_ALL: images} if images else {}
    if prefix + _LABELS in below and (labels := _json_labels(tree, prefix)) is not None:
        return _by_label(tree, labels, images)
    classes: _Classes = {}
    for name in below:
        folder, slash, _ = name.removeprefix(prefix).partition("/")
        if slash:
            found = classes.setdefault(folder, [])
            if is_image(name):
                found.append(name)
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


def _by_label(tree: Tree, labels: dict[str, int], images: list[str]) -> _Classes:
    """Classes by number: the folders are shards of equal length and mean nothing."""
    lacking = set(images).symmetric_difference(labels)
    if lacking or not labels:
        raise PagodaError(
            f"{tree.where}: {min(lacking, default='every image')} is only in one of {_LABELS} and "
            "the images; make them again with the tool that wrote them"
        )
    classes: _Classes = {str(i): [] for i in range(max(labels.values()) + 1)}
    for name in images:
        classes[str(labels[name])].append(name)
    return classes
