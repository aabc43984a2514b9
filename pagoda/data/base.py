"""What every source of images offers, and the checks and the order they share."""

from __future__ import annotations

import hashlib
import json
import struct
import warnings
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pagoda.data.resize import to_rgb
from pagoda.errors import PagodaError, first_line

Labels = NDArray[np.int64]

DAMAGED = (PagodaError, OSError, ValueError, SyntaxError, EOFError, RuntimeError, struct.error,
           zlib.error, zipfile.BadZipFile, Image.DecompressionBombError)  # fmt: skip
"""All that Pillow and zipfile raise for damaged files, and to_rgb for modes without a rule."""


_HASHED = 1 << 26  # bytes of pixels held at once while they are hashed


class ImageSource(ABC):
    """Labelled images of one split, in an order that takes the classes in turn.

    The order is that of :func:`interleave`, so the first N images are balanced over classes and
    are the same images whatever ``limit`` is.

    Args:
        where: what messages call the source, its path or its name.
        split: ``train`` or ``test``.
        classes: name of each class, by class index.
        labels: class index of every image the source holds, (n,).
        num_classes: number of classes that the configuration states.
        limit: keep the first ``limit`` images of the order; None keeps all.
        keep: rows of the source that belong to the split, (m,); None: all of them.
        exif: turn images as their EXIF orientation says.

    Raises:
        PagodaError: if the number of classes differs, a label is out of range, a class has no
            images, or there are fewer images than ``limit``.
    """

    passed_over = ""  # what is said of files that are no images of the set

    def __init__(
        self,
        *,
        where: str,
        split: str,
        classes: Sequence[str],
        labels: NDArray[Any],
        num_classes: int,
        limit: int | None,
        keep: NDArray[np.intp] | None = None,
        exif: bool = False,
    ) -> None:
        self.where, self.split, self.classes = where, split, tuple(classes)
        self._exif = exif
        labels = labels.astype(np.int64)
        if keep is not None:
            labels = labels[keep]
        _check_labels(where, split, self.classes, labels, num_classes)
        if limit is not None and limit > len(labels):
            raise PagodaError(
                f"{where} has {len(labels)} {split} images, data.{split}_images = {limit}; "
                "lower it, or set it to null for all"
            )
        order = interleave(labels)[:limit]
        self.rows: NDArray[np.intp] = order if keep is None else keep[order]
        self.labels: Labels = labels[order]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        """Unique identifier of each image, in order."""
        return [self._name(int(row)) for row in self.rows]

    def load(self, i: int) -> Image.Image:
        """Decode image ``i`` to RGB, by the rules of :func:`pagoda.data.resize.to_rgb`.

        Raises:
            PagodaError: naming the image and its position, if it does not decode.
        """
        try:
            with warnings.catch_warnings():  # of images that are large, but not too large
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                return to_rgb(self._open(int(self.rows[i])), self._exif)
        except DAMAGED as error:
            why = first_line(error)
            raise PagodaError(
                f"{self.describe(i)} does not decode ({why}); mend or remove it"
            ) from error

    def describe(self, i: int) -> str:
        """What messages call image ``i``."""
        return f"{self.split} image {i} of {self.where} ({self._name(int(self.rows[i]))})"

    def array(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8] | None:
        """Images ``start:stop`` as (n, C, H, W) uint8, C = 1 or 3.

        None where images have to be decoded one by one, or differ in size.
        """
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 over the contents of the images, their labels and their order.

        Files are read whole; what is drawn, or fetched by name and version, is known by that.
        """

    @abstractmethod
    def _open(self, row: int) -> Image.Image:
        """Open the image in row ``row`` of the source, before ordering."""

    @abstractmethod
    def _name(self, row: int) -> str:
        """Identifier of the image in row ``row`` of the source, before ordering."""


class ArraySource(ImageSource):
    """Images that are already in memory, (n, C, H, W) uint8.

    Args:
        pixels: NHW, NHWC or NCHW with 1 or 3 channels; all of one size.
        stem: an image is called ``stem[row]``.
    """

    def __init__(self, pixels: NDArray[np.uint8], *, stem: str, **common: Any) -> None:
        super().__init__(**common)
        self._part = common.get("keep") is not None
        self._pixels, self._stem = to_nchw(pixels, stem), stem
        if len(pixels) != len(common["labels"]):
            raise PagodaError(
                f"{self.where}: {stem} has {len(pixels)} images and {len(common['labels'])} labels"
            )

    def array(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Images ``start:stop`` as (n, C, H, W) uint8, C = 1 or 3."""
        return self._pixels[self.rows[start:stop]]

    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels."""
        content = hashlib.sha256()
        step = max(1, _HASHED // max(1, self._pixels[0].size))
        for start in range(0, len(self._pixels), step):
            content.update(np.ascontiguousarray(self._pixels[start : start + step]).data)
        identity: list[Any] = [content.hexdigest(), self._pixels.shape, self.labels.tolist()]
        if self._part:
            identity.append(self.rows.tolist())
        return digest([*identity, self.classes])

    def _open(self, row: int) -> Image.Image:
        pixels = self._pixels[row].transpose(1, 2, 0)
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)

    def _name(self, row: int) -> str:
        return f"{self._stem}[{row}]"


def hold_out(
    names: Sequence[str], labels: NDArray[Any], share: float, where: str
) -> NDArray[np.bool_]:
    """Which images make the test split of a set that has none, (n,).

    Of each class those whose names come first by their SHA-256: the choice does not follow the
    order of names (frames of one film stay no neighbours), and it is the same on every machine.

    Raises:
        PagodaError: if a class has a single image, which cannot be in both splits.
    """
    keys = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    held = np.zeros(len(names), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise PagodaError(
                f"{where}: the class of {names[rows[0]]} has one image, and data.test_share wants "
                "some for each split; add images, or set data.num_classes=1 to ignore classes"
            )
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        held[sorted(rows, key=lambda row: keys[row])[:count]] = True
    return held


def interleave(labels: Labels) -> NDArray[np.intp]:
    """Order that takes the classes in turn: the first image of each, the second of each, ...

    Within a class images keep their order. Classes that run out are passed over.
    """
    by_class = np.argsort(labels, kind="stable")
    ordered = labels[by_class]
    rank = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return by_class[np.lexsort((ordered, rank))]


def digest(tree: Any) -> str:
    """Hex SHA-256 of a JSON-able tree."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def to_nchw(pixels: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
    """A view (n, C, H, W), C = 1 or 3, of images NHW, NHWC or NCHW.

    Raises:
        PagodaError: naming ``where``, if the array is of another type or shape.
    """
    if pixels.dtype == np.uint8 and 0 not in pixels.shape[1:]:
        if pixels.ndim == 3:
            return pixels[:, None]
        if pixels.ndim == 4 and pixels.shape[-1] in (1, 3):
            return pixels.transpose(0, 3, 1, 2)
        if pixels.ndim == 4 and pixels.shape[1] in (1, 3):
            return pixels
    raise PagodaError(
        f"{where} is {pixels.dtype} with shape {pixels.shape}; images must be uint8, (n, height, "
        "width) grey or (n, height, width, 3) RGB, all of one size"
    )


def _check_labels(
    where: str, split: str, classes: tuple[str, ...], labels: Labels, num_classes: int
) -> None:
    if len(classes) != num_classes:
        some = ", ".join(classes[:4]) + (" ..." if len(classes) > 4 else "")
        raise PagodaError(
            f"{where} has {len(classes)} classes, data.num_classes = {num_classes}; if {some} are "
            f"the classes you mean, set data.num_classes={len(classes)}"
        )
    if labels.ndim != 1 or not len(labels):
        raise PagodaError(f"{where} has no {split} images")
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        raise PagodaError(
            f"{where}: label {labels[outside[0]]} of {split} image {outside[0]} is out of range; "
            f"with data.num_classes = {num_classes} labels run from 0 to {num_classes - 1}"
        )
    empty = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if len(empty):
        raise PagodaError(f"{where}: class {classes[empty[0]]} has no {split} images; add some")
