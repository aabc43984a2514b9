"""An ``.npz`` file with ``x_train, y_train, x_test, y_test`` and, if it likes, ``classes``.

Without ``x_test`` and ``y_test`` a fraction of every class of ``x_train`` is held out. Pixels that
the file holds uncompressed (``numpy.savez``) are memory-mapped, so that it may be larger than the
memory; compressed ones are unpacked into memory, for scoring a piece at a time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pagoda.data.base import Arrays, ImageSource, hold_out, to_nchw
from pagoda.data.npz import Member, Npz, ObjectsError, Pieces
from pagoda.data.registry import Source, Wanted
from pagoda.errors import PagodaError

_MOST_CLASSES = 1 << 20
_UNLABELLED = ("arr_0", "images", "samples")


def open_npz(wanted: Wanted) -> ImageSource:
    """One split of the file.

    Raises:
        PagodaError: if it is missing or damaged, or holds no such images with labels.
    """
    path = wanted.found(wanted.path)
    if not Path(path).is_file():
        hint = "is a folder, no file; data.source=folder reads one"
        why = hint if Path(path).is_dir() else "there is no such file"
        raise PagodaError(f"data.path = {path}: {why}")
    file = Npz(path)
    shared = wanted.test_share is not None and "x_test" not in file.keys
    stem = "train" if shared else wanted.split
    pixels, labels = file.member(f"x_{stem}"), file.member(f"y_{stem}")
    _check_images(pixels)
    column = labels.shape[1:] in ((), (1,)) and labels.shape != ()
    if not column or labels.dtype.kind not in "iu":
        raise PagodaError(f"{path}: {labels.key} must hold one whole number an image")
    if labels.shape[0] != pixels.shape[0]:
        raise PagodaError(
            f"{path}: {pixels.key} has {pixels.shape[0]} images and {labels.shape[0]} labels"
        )
    numbers = labels.array().reshape(-1)
    names = [f"x_train[{row}]" for row in range(len(numbers))] if shared else []
    keep = hold_out(names, numbers, wanted, path) if shared else None
    classes = _class_names(file, wanted.num_classes or int(numbers.max(initial=0)) + 1)
    return ImageSource(Arrays(path, pixels.array(), pixels.key), wanted, classes, numbers, keep)


def unlabelled(path: Path, split: str | None) -> Arrays:
    """The array ``x_<split>``; without a split ``arr_0``, ``images`` or ``samples``.

    Raises:
        PagodaError: if the file is damaged, or holds no such array of images.
    """
    file, wanted = Npz(path), (f"x_{split}",) if split else _UNLABELLED
    key = next((key for key in wanted if key in file.keys), None)
    if key is None:
        raise PagodaError(f"{path} has no {' or '.join(wanted)}; {file.holds}")
    member = file.member(key)
    _check_images(member)
    if not member.shape[0]:
        raise PagodaError(f"{path}: {key} holds no images")
    return Arrays(str(path), Pieces(member), key)


def _check_images(member: Member) -> None:
    """Refuse what makes no images by its header alone, before it is unpacked."""
    like = np.broadcast_to(np.empty((), member.dtype), member.shape)
    to_nchw(like, f"{member.path}: {member.key}")


def _class_names(file: Npz, num_classes: int) -> list[str]:
    """Names from ``classes``; plain numbers if it is absent or needs unpickling."""
    numbers = [str(i) for i in range(num_classes)]
    if "classes" not in file.keys:
        return numbers
    try:
        member = file.member("classes")
    except ObjectsError:
        return numbers
    if len(member.shape) != 1 or member.shape[0] > _MOST_CLASSES:
        raise PagodaError(
            f"{file.path}: classes has shape {member.shape}; it must hold one name a class"
        )
    return [str(name) for name in member.array()]


SOURCE = Source(open_npz, needs="path", endings=(".npz",), unlabelled=unlabelled)
