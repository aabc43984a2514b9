"""ImageNet-1k as it is distributed: train in synset folders, val flat with its ground truth.

``train/`` and ``val/`` lie at the root or under ``ILSVRC/Data/CLS-LOC/`` of a folder or an archive,
the ground truth at any depth; ``test`` is the validation set, as everywhere. A ``val`` that is in
synset folders already needs no ground truth. Two are known, looked for in this order:

``LOC_val_solution.csv`` (Kaggle)
    one row a file, ``ILSVRC2012_val_00000001,n01751748 111 108 ...``: the synset comes first.
``ILSVRC2012_validation_ground_truth.txt`` with ``meta.mat`` (the development kit)
    one ILSVRC2012_ID (1..1000) a line, in the order of the files; ``meta.mat`` names their synsets.

The class index is the rank of the synset's name (n01440764 is 0), as in every published model.
"""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np

from pagoda.data.archives import open_tree
from pagoda.data.base import ImageSource
from pagoda.data.folders import labelled, open_class_folders
from pagoda.data.registry import Source, Wanted
from pagoda.data.trees import Tree
from pagoda.errors import PagodaError, denied

_IMAGES = ("ILSVRC/Data/CLS-LOC/", "Data/CLS-LOC/", "")
_CSV = "LOC_val_solution.csv"
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"


def open_imagenet(wanted: Wanted) -> ImageSource:
    """One split of ImageNet.

    Raises:
        PagodaError: if a part is missing, or the ground truth does not fit the images.
    """
    tree = open_tree(wanted.found(wanted.path))
    images = tree.images()
    for prefix in _IMAGES:
        inside = [name for name in images if name.startswith(f"{prefix}train/")]
        trained = [parts[1] for name in inside if len(parts := name[len(prefix) :].split("/")) > 2]
        if trained:
            break
    else:
        raise PagodaError(
            f"{tree.where} has no train/SYNSET/*.JPEG, at its root or under ILSVRC/Data/CLS-LOC; "
            "unpack ILSVRC2012_img_train.tar into one folder a synset"
        )
    files = [name for name in images if name.startswith(f"{prefix}val/")]
    taken = len(trained) + len(files)
    if wanted.split == "train" or any(name[len(prefix) :].count("/") > 1 for name in files):
        plain = dataclasses.replace(wanted, test_share=None)  # ImageNet has its splits
        source = open_class_folders(tree.below(prefix), plain)
        source.passed_over = tree.passed_over(taken)
        return source
    if not files:
        raise PagodaError(f"{tree.where} has no {prefix}val/*.JPEG; unpack ILSVRC2012_img_val.tar")
    synsets, truth = sorted(set(trained)), _ground_truth(tree, files)
    if unknown := sorted(set(truth) - set(synsets)):
        raise PagodaError(
            f"{tree.where}: synset {unknown[0]} is in val but not in train; unpack all of "
            "ILSVRC2012_img_train.tar"
        )
    return labelled(tree, files, taken, wanted, synsets, np.searchsorted(synsets, truth))


def _ground_truth(tree: Tree, files: list[str]) -> list[str]:
    """Synset of each validation image."""
    places = {name.rsplit("/", 1)[-1]: name for name in tree.names}
    if _CSV in places:
        rows = csv.reader(io.StringIO(tree.read_text(places[_CSV])))
        synsets = {row[0]: row[1].split()[0] for row in rows if len(row) > 1 and row[1].strip()}
        stems = [name.rsplit("/", 1)[-1].rsplit(".", 1)[0] for name in files]
        if missing := [stem for stem in stems if stem not in synsets]:
            raise PagodaError(f"{places[_CSV]} of {tree.where} has no line for {missing[0]}")
        return [synsets[stem] for stem in stems]
    if _TRUTH not in places or _META not in places:
        raise PagodaError(
            f"{tree.where} has no ground truth of val/; put {_CSV} there, or {_TRUTH} and {_META} "
            "of the development kit, or sort val/ into synset folders"
        )
    numbers = tree.read_text(places[_TRUTH]).split()
    if len(numbers) != len(files):
        raise PagodaError(
            f"{tree.where}: {_TRUTH} has {len(numbers)} lines for {len(files)} images in val/"
        )
    known = _synsets_of_ids(tree, places[_META])
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
    except PermissionError as error:
        raise denied(error) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PagodaError(f"{tree.where}: {name} is damaged ({error}); copy it again") from error


SOURCE = Source(open_imagenet, needs="path")
