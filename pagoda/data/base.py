"""What images are read from, and the labelled images of one split, in the order of training."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pagoda.artifacts import digest
from pagoda.data.registry import Wanted
from pagoda.data.resize import to_rgb
from pagoda.data.trees import digests
from pagoda.errors import PagodaError, denied, first_line

Labels = NDArray[np.int64]

_DAMAGED = (PagodaError, OSError, ValueError, SyntaxError, EOFError, RuntimeError, struct.error,
            zlib.error, zipfile.BadZipFile, Image.DecompressionBombError)  # fmt: skip
"""All that Pillow and zipfile raise for damaged files, and to_rgb for modes without a rule."""

_HASHED = 1 << 26  # bytes of pixels held at once while they are hashed


class Pictures(ABC):
    """Images that are read by their row, labelled or not.

    Attributes:
        where: what messages call them, a path or a name.
        passed_over: what is said of files that are no images of the set.
        drawn: whether :meth:`array` draws them, which takes a processor's time.
    """

    passed_over = ""
    drawn = False

    def __init__(self, where: str, length: int) -> None:
        self.where, self._length = where, length

    def __len__(self) -> int:
        return self._length

    @abstractmethod
    def name(self, row: int) -> str:
        """Unique identifier of an image."""

    @abstractmethod
    def open(self, row: int) -> Image.Image:
        """Open an image; :func:`decoded` turns what this raises into one line."""

    @abstractmethod
    def fingerprint(self, of: ImageSource) -> str:
        """SHA-256 over what the images of a split are known by, their labels and their order."""

    def array(self, rows: NDArray[Any]) -> NDArray[np.uint8] | None:
        """Images (n, C, H, W) uint8, C = 1 or 3; None where they are decoded one by one."""
        return None


class Files(Pictures):
    """Image files, each decoded when it is asked for."""

    @abstractmethod
    def content(self, row: int) -> bytes:
        """The bytes of a file."""

    def open(self, row: int) -> Image.Image:
        """Open an image."""
        return Image.open(io.BytesIO(self.content(row)))


class NamedFiles(Files):
    """Image files by name; ``read`` gives the bytes of one."""

    def __init__(
        self, where: str, names: Sequence[str], read: Callable[[str], bytes], passed_over: str = ""
    ) -> None:
        super().__init__(where, len(names))
        self._names, self._read, self.passed_over = names, read, passed_over

    def name(self, row: int) -> str:
        """The name of a file."""
        return self._names[row]

    def content(self, row: int) -> bytes:
        """The bytes of a file."""
        return self._read(self._names[row])

    def fingerprint(self, of: ImageSource) -> str:
        """Of names, contents and class names. Reads every file."""
        return digest([of.classes, of.names, digests(self._read, of.names, self.where)])


class RowFiles(Files):
    """Rows of a data set object, called ``stem[row]``.

    ``rows[i][column]`` is a PIL image, or a dict of an image file's ``bytes``, or of the ``path``
    where they are. The fingerprint covers ``identity`` besides contents, labels and class names.
    """

    def __init__(self, where: str, rows: Any, column: Any, identity: list[Any], stem: str) -> None:
        super().__init__(where, len(rows))
        self._rows, self._column, self._identity, self._stem = rows, column, identity, stem

    def name(self, row: int) -> str:
        """Where an image is in its split."""
        return f"{self._stem}[{row}]"

    def content(self, row: int) -> bytes:
        """The bytes of a file, or of the pixels where only those are there."""
        found = self._rows[row][self._column]
        if isinstance(found, Image.Image):
            return f"{found.mode} {found.size} ".encode() + found.tobytes()
        if not found or not (found["bytes"] or found["path"]):
            raise PagodaError("there is none")
        content: bytes = found["bytes"] or Path(found["path"]).read_bytes()
        return content

    def open(self, row: int) -> Image.Image:
        """Open an image."""
        found = self._rows[row][self._column]
        return found if isinstance(found, Image.Image) else super().open(row)

    def fingerprint(self, of: ImageSource) -> str:
        """Of the set's name and version, its contents, labels and class names."""
        found = digests(self.content, of.rows.tolist(), self.where)
        return digest([self._identity, found, of.labels.tolist(), of.classes])


class Arrays(Pictures):
    """Images that are an array, in memory, mapped, or read in pieces, called ``stem[row]``.

    ``pixels`` is uint8, NHW, NHWC or NCHW with 1 or 3 channels; rows in, an array out.

    Raises:
        PagodaError: for another type or shape.
    """

    def __init__(self, where: str, pixels: Any, stem: str) -> None:
        super().__init__(where, len(pixels))
        self._pixels, self._stem = pixels, stem
        like = np.broadcast_to(np.empty((), pixels.dtype), pixels.shape)
        self.shape: tuple[int, ...] = to_nchw(like, stem).shape

    def name(self, row: int) -> str:
        """Where an image is in the array."""
        return f"{self._stem}[{row}]"

    def array(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Images (n, C, H, W) uint8, C = 1 or 3."""
        return to_nchw(self._pixels[rows], self._stem)

    def open(self, row: int) -> Image.Image:
        """One image, grey or RGB."""
        pixels = self.array(np.array([row]))[0].transpose(1, 2, 0)
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)

    def fingerprint(self, of: ImageSource) -> str:
        """Of pixels, labels and class names."""
        content, step = hashlib.sha256(), max(1, _HASHED // int(np.prod(self.shape[1:])))
        for start in range(0, len(self), step):
            rows = np.arange(start, min(start + step, len(self)))
            content.update(np.ascontiguousarray(self.array(rows)).data)
        part = [of.rows.tolist()] if of.part else []
        identity = [content.hexdigest(), self.shape, of.labels.tolist(), *part]
        return digest([*identity, of.classes])


def decoded(pictures: Pictures, row: int, exif: bool, called: str) -> Image.Image:
    """An image as RGB, by the rules of :func:`pagoda.data.resize.to_rgb`.

    Raises:
        PagodaError: naming the image as ``called``, if it does not decode.
    """
    try:
        with warnings.catch_warnings():  # of images that are large, but not too large
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return to_rgb(pictures.open(row), exif)
    except PermissionError as error:
        raise denied(error) from error
    except _DAMAGED as error:
        why = first_line(error)
        raise PagodaError(f"{called} does not decode ({why}); mend or remove it") from error


class ImageSource:
    """Labelled images of one split, in an order that takes the classes in turn.

    The order is that of :func:`interleave`, so the first N images are balanced over classes and
    are the same images whatever ``limit`` is.

    Args:
        pictures: all the images there are.
        wanted: the split: its name, limit, number of classes.
        classes: name of each class, by class index.
        labels: class index of every image of ``pictures``, (n,).
        keep: rows that belong to the split, (m,); None: all of them.

    Raises:
        PagodaError: if the number of classes differs, a label is out of range, a class has no
            images, or there are fewer images than the limit.
    """

    def __init__(
        self,
        pictures: Pictures,
        wanted: Wanted,
        classes: Sequence[str],
        labels: Any,
        keep: NDArray[np.intp] | None = None,
    ) -> None:
        self.pictures, self.split, self.classes = pictures, wanted.split, tuple(classes)
        self.where, self.passed_over = pictures.where, pictures.passed_over
        self.part, self._exif = keep is not None, wanted.exif
        labels, limit = np.asarray(labels).astype(np.int64), wanted.limit
        if len(labels) != len(pictures):
            raise PagodaError(f"{self.where}: {len(pictures)} images and {len(labels)} labels")
        labels = labels if keep is None else labels[keep]
        _check_labels(self, labels, wanted.num_classes)
        if limit is not None and limit > len(labels):
            raise PagodaError(
                f"{self.where} has {len(labels)} {self.split} images, data.{self.split}_images = "
                f"{limit}; lower it, or set it to null for all"
            )
        order = interleave(labels)[:limit]
        self.rows: NDArray[np.intp] = order if keep is None else keep[order]
        self.labels: Labels = labels[order]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        """Unique identifier of each image, in order."""
        return [self.pictures.name(row) for row in self.rows.tolist()]

    def load(self, i: int) -> Image.Image:
        """Image ``i`` as :func:`decoded` gives it."""
        return decoded(self.pictures, int(self.rows[i]), self._exif, self.describe(i))

    def describe(self, i: int) -> str:
        """What messages call image ``i``."""
        name = self.pictures.name(int(self.rows[i]))
        return f"{self.split} image {i} of {self.where} ({name})"

    def array(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8] | None:
        """Images ``start:stop`` as :meth:`Pictures.array` gives them."""
        return self.pictures.array(self.rows[start:stop])

    def fingerprint(self) -> str:
        """SHA-256 over the contents of the images, their labels and their order.

        Files are read whole; what is drawn is known by what was asked for.
        """
        return self.pictures.fingerprint(self)


def hold_out(
    names: Sequence[str], labels: NDArray[Any], wanted: Wanted, where: str
) -> NDArray[np.intp]:
    """Rows of a split of a set that has no splits: ``wanted.test_share`` of each class is ``test``.

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
        count = min(max(1, round((wanted.test_share or 0) * len(rows))), len(rows) - 1)
        held[sorted(rows, key=lambda row: keys[row])[:count]] = True
    return np.flatnonzero(held == (wanted.split == "test"))


def interleave(labels: Labels) -> NDArray[np.intp]:
    """Order that takes the classes in turn: the first image of each, the second of each, ...

    Within a class images keep their order. Classes that run out are passed over.
    """
    by_class = np.argsort(labels, kind="stable")
    ordered = labels[by_class]
    rank = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return by_class[np.lexsort((ordered, rank))]


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


def unreachable(name: str, error: Exception) -> PagodaError:
    """What is said of a set that cannot be fetched."""
    why = first_line(error)
    return PagodaError(
        f"cannot get {name} ({why}); check the name and the network, or use a local copy: "
        "-S data.source=npz -S data.path=FILE (zip, tar and folder work too)"
    )


def _check_labels(of: ImageSource, labels: Labels, num_classes: int | None) -> None:
    where, split, count = of.where, of.split, len(of.classes)
    if count != (num_classes or count):
        some = ", ".join(of.classes[:4]) + (" ..." if count > 4 else "")
        raise PagodaError(
            f"{where} has {count} classes, data.num_classes = {num_classes}; if {some} are "
            f"the classes you mean, set data.num_classes={count}"
        )
    if labels.ndim != 1 or not len(labels):
        raise PagodaError(f"{where} has no {split} images")
    outside = np.flatnonzero((labels < 0) | (labels >= count))
    if len(outside):
        raise PagodaError(
            f"{where}: label {labels[outside[0]]} of {split} image {outside[0]} is out of range; "
            f"with data.num_classes = {count} labels run from 0 to {count - 1}"
        )
    empty = np.flatnonzero(np.bincount(labels, minlength=count) == 0)
    if len(empty):
        raise PagodaError(f"{where}: class {of.classes[empty[0]]} has no {split} images; add some")
