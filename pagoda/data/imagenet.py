"""ImageNet-1k as it is distributed: train in synset folders, val flat with its ground truth.

Two sources of the ground truth are known, looked for in this order:

``LOC_val_solution.csv`` (Kaggle)
    one row a file, ``ILSVRC2012_val_00000001,n01751748 111 108 ...``: the synset comes first.
``ILSVRC2012_validation_ground_truth.txt`` with ``meta.mat`` (the development kit)
    one ILSVRC2012_ID (1..1000) a line, in the order of the files; ``meta.mat`` names their synsets.

The class index is the rank of the synset's name (n01440764 is 0), as in every published model.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from pagoda.data.folders import TreeSource, open_class_folders
from pagoda.data.trees import Entry, Tree
from pagoda.errors import PagodaError

_IMAGES = ("ILSVRC/Data/CLS-LOC/", "Data/CLS-LOC/", "")
_CSV = "LOC_val_solution.csv"
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"


def open_imagenet(
    tree: Tree, *, split: str, num_classes: int, test_share: float | None, **common: Any
) -> TreeSource:
    """One split of ImageNet; ``test`` is the validation set, as everywhere.

    Args:
        tree: a folder or an archive that holds ``train/`` and ``val/``, at its root or under
            ``ILSVRC/Data/CLS-LOC/``, and the ground truth at any depth. A ``val`` that is in
            synset folders already needs none.
        split: ``train`` or ``test``.
        num_classes: number of synsets.
        test_share: not used: ImageNet has its splits.
        common: further arguments of :class:`ImageSource`.

    Raises:
        PagodaError: if a part is missing, or the ground truth does not fit the images.
    """
    images = tree.images()
    prefix = next((p for p in _IMAGES if any(_trained(e, p) for e in images)), None)
    if prefix is None:
        raise PagodaError(
            f"{tree.where} has no train/SYNSET/*.JPEG, at its root or under ILSVRC/Data/CLS-LOC; "
            "unpack ILSVRC2012_img_train.tar into one folder a synset"
        )
    trained = [e.name[len(prefix) :].split("/")[1] for e in images if _trained(e, prefix)]
    files = [e for e in images if e.name.startswith(f"{prefix}val/")]
    common |= {"split": split, "num_classes": num_classes}
    if split == "train" or any(e.name[len(prefix) :].count("/") > 1 for e in files):
        source = open_class_folders(tree.below(prefix), test_share=None, **common)
        source.passed_over = tree.passed_over(len(trained) + len(files))
        return source
    if not files:
        raise PagodaError(f"{tree.where} has no {prefix}val/*.JPEG; unpack ILSVRC2012_img_val.tar")
    synsets, truth = sorted(set(trained)), _ground_truth(tree, files)
    if unknown := sorted(set(truth) - set(synsets)):
        raise PagodaError(f"{tree.where}: synset {unknown[0]} is in val but not in train")
    labels = np.searchsorted(synsets, truth)
    passed_over = tree.passed_over(len(trained) + len(files))
    return TreeSource(tree, files, classes=synsets, labels=labels, passed_over=passed_over,
                      **common)  # fmt: skip


def _trained(entry: Entry, prefix: str) -> bool:
    return entry.name.startswith(f"{prefix}train/") and entry.name[len(prefix) :].count("/") > 1


def _ground_truth(tree: Tree, files: list[Entry]) -> list[str]:
    """Synset of each validation image."""
    named = {e.name.rsplit("/", 1)[-1]: e.name for e in tree.entries}
    if _CSV in named:
        rows = csv.reader(io.StringIO(tree.read_text(named[_CSV])))
        synsets = {row[0]: row[1].split()[0] for row in rows if len(row) > 1 and row[1].strip()}
        stems = [e.name.rsplit("/", 1)[-1].rsplit(".", 1)[0] for e in files]
        if missing := [stem for stem in stems if stem not in synsets]:
            raise PagodaError(f"{named[_CSV]} of {tree.where} has no line for {missing[0]}")
        return [synsets[stem] for stem in stems]
    if _TRUTH not in named or _META not in named:
        raise PagodaError(
            f"{tree.where} has no ground truth of val/; put {_CSV} there, or {_TRUTH} and {_META} "
            "of the development kit, or sort val/ into synset folders"
        )
    numbers = tree.read_text(named[_TRUTH]).split()
    if len(numbers) != len(files):
        raise PagodaError(
            f"{tree.where}: {_TRUTH} has {len(numbers)} lines for {len(files)} images in val/"
        )
    known = _synsets_of_ids(tree, named[_META])
    if unknown := [n for n in numbers if n not in known]:
        raise PagodaError(f"{tree.where}: {_TRUTH} names {unknown[0]}, which {_META} does not know")
    return [known[n] for n in numbers]


def _synsets_of_ids(tree: Tree, name: str) -> dict[str, str]:
    """ILSVRC2012_ID as text -> synset, from ``meta.mat``."""
    from scipy.io import loadmat

    try:
        tree.used.add(name)
        table = loadmat(io.BytesIO(tree.read(name)), squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in np.atleast_1d(table)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PagodaError(f"{tree.where}: {name} is damaged ({error}); copy it again") from error
