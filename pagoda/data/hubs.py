"""Data sets fetched by name: torchvision's, and Hugging Face's through ``datasets``."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pagoda.data.base import ArraySource, ImageSource, digest, hold_out
from pagoda.data.trees import digests
from pagoda.errors import PagodaError, first_line


class HubSource(ImageSource):
    """Rows of a data set object.

    Args:
        rows: ``rows[i][column]`` is a PIL image, or a dict of an image file's ``bytes``, or of the
            ``path`` where they are.
        identity: what its fingerprint covers besides labels and class names.
    """

    def __init__(self, rows: Any, column: Any, identity: list[Any], **common: Any) -> None:
        super().__init__(**common)
        self._rows, self._column, self._identity = rows, column, identity

    def fingerprint(self) -> str:
        """SHA-256 of the set's name and version, its contents, labels and class names."""
        found = digests(self._content, self.rows.tolist(), self.where)
        return digest([self._identity, found, self.labels.tolist(), self.classes])

    def _content(self, row: int) -> IO[bytes]:
        found = self._rows[row][self._column]
        if isinstance(found, Image.Image):
            return io.BytesIO(f"{found.mode} {found.size} ".encode() + found.tobytes())
        if not found or not (found["bytes"] or found["path"]):
            raise PagodaError("there is none")
        return io.BytesIO(found["bytes"] or Path(found["path"]).read_bytes())

    def _open(self, row: int) -> Image.Image:
        found = self._rows[row][self._column]
        return found if isinstance(found, Image.Image) else Image.open(self._content(row))

    def _name(self, row: int) -> str:
        return f"{self.where}/{self.split}[{row}]"


class FileSource(ImageSource):
    """Image files that torchvision keeps, decoded by the same rules as those of a folder.

    Args:
        files: path of each image.
        root: what names are relative to.
    """

    def __init__(self, files: list[Path], root: Path, **common: Any) -> None:
        super().__init__(**common)
        self._files, self._root = files, root

    def fingerprint(self) -> str:
        """SHA-256 of names and contents in order, and of the class names. Reads every file."""
        names = self.names
        found = digests(lambda name: (self._root / name).open("rb"), names, self.where)
        return digest([self.classes, names, found])

    def _open(self, row: int) -> Image.Image:
        return Image.open(io.BytesIO(self._files[row].read_bytes()))

    def _name(self, row: int) -> str:
        return self._files[row].relative_to(self._root).as_posix()


def open_torchvision(name: str, *, path: str | None, split: str, **common: Any) -> ImageSource:
    """A class of ``torchvision.datasets``, downloaded to ``path`` (default ``data/``).

    ``val`` stands in for ``test`` where the set knows no ``test``. ImageNet's synsets are named by
    their number, as the folders of its archives are.

    Raises:
        PagodaError: if there is no such class, it has no labels or splits, or it cannot be fetched.
    """
    import torchvision

    maker: Any = getattr(torchvision.datasets, name, None)
    if not isinstance(maker, type):
        raise PagodaError(f"data.hub = {name}: torchvision has no data set of that name")
    root = Path(path or "data")
    try:
        root.mkdir(parents=True, exist_ok=True)
        data, by_path = _made(maker, root, split)
        found = [data[i] for i in range(len(data))] if by_path else []
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise _unreachable(name, error) from error
    labels = np.asarray([label for _, label in found] if by_path else _labels(name, data))
    classes = getattr(data, "wnids", None) or getattr(data, "classes", None)
    classes = classes or [str(i) for i in range(int(labels.max()) + 1)]
    common |= {"where": name, "split": split, "classes": classes, "labels": labels}
    if by_path:
        return FileSource([Path(file) for file, _ in found], root, **common)
    pixels = np.asarray(getattr(data, "data", ()))
    if pixels.dtype == np.uint8 and pixels.ndim in (3, 4):
        return ArraySource(pixels, stem=f"{name}/{split}", **common)
    return HubSource(data, 0, ["torchvision", name, split], **common)


def _made(maker: Any, root: Path, split: str) -> tuple[Any, bool]:
    """The set, and whether its rows are (path, label): files it would decode by its own rules."""
    known = inspect.signature(maker).parameters
    chosen: dict[str, Any] = {"download": True} if "download" in known else {}
    by_path = "loader" in known
    if by_path:
        chosen["loader"] = str
    if "train" in known:
        return maker(str(root), train=split == "train", **chosen), by_path
    try:
        return maker(str(root), split=split, **chosen), by_path
    except ValueError:  # its splits are train and val
        if split != "test":
            raise
        return maker(str(root), split="val", **chosen), by_path


def _labels(name: str, data: Any) -> Any:
    for key in ("targets", "labels", "_labels"):
        if hasattr(data, key):
            return getattr(data, key)
    raise PagodaError(f"torchvision's {name} has no class labels; choose another set")


def open_hugging_face(
    name: str, *, split: str, test_share: float | None, **common: Any
) -> ImageSource:
    """A data set of the Hugging Face hub, or a local folder or parquet file.

    The first image column and the first class-label column are used; where no column is declared a
    class label, whole numbers in one called ``label``, ``labels`` or ``cls`` are. ``validation``
    stands in for ``test`` where there is no ``test``, or one whose labels are withheld (ImageNet's
    are all -1); without either, a share of every class of ``train`` is held out.

    Raises:
        PagodaError: if ``datasets`` is not installed, or the set cannot be fetched or lacks one
            of the two columns or the split.
    """
    try:
        import datasets
    except ImportError as error:
        raise PagodaError(
            "data.source = hub needs the package datasets: 'uv sync --extra hub', or use "
            "data.source=folder with data.path"
        ) from error
    how: dict[str, Any] = {"path": name}
    if name.endswith(".parquet"):
        how = {"path": "parquet", "data_files": {"train": name}}
    try:
        have = datasets.get_dataset_split_names(**how)
        wanted = ("train",) if split == "train" else ("test", "validation", "valid", "val")
        found = _labelled(datasets, name, how, [s for s in wanted if s in have])
        shared = test_share is not None and not set(have) & {"test", "validation", "valid", "val"}
        if shared and found is None:
            found = _labelled(datasets, name, how, ["train"] if "train" in have else have[:1])
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(name, error) from error
    if found is None:
        advice = "" if test_share is not None else "; data.test_share holds a share of train out"
        raise PagodaError(f"{name} has no labelled {split} split; it has {', '.join(have)}{advice}")
    if shared and test_share is not None:
        held = hold_out([f"train[{i}]" for i in range(len(found.labels))], found.labels,
                        test_share, name)  # fmt: skip
        common["keep"] = np.flatnonzero(held == (split == "test"))
    data = found.rows
    # Undecoded: ``datasets`` would turn images as their EXIF orientation says, asked or not.
    files = data.cast_column(found.image, datasets.Image(decode=False))
    identity = ["hub", name, str(data.split), str(data.info.version),
                str(data.info.download_checksums)]  # fmt: skip
    return HubSource(
        files, found.image, identity, where=name, split=split, classes=found.classes,
        labels=found.labels, **common,
    )  # fmt: skip


class _Found(NamedTuple):
    rows: Any
    image: str
    classes: list[str]
    labels: NDArray[Any]


def _labelled(datasets: Any, name: str, how: dict[str, Any], splits: list[str]) -> _Found | None:
    """First of ``splits`` with labels."""
    for split in splits:
        data = datasets.load_dataset(**how, split=split)
        image = _column(data.features, datasets.Image)
        label = _column(data.features, datasets.ClassLabel)
        whole = [key for key, kind in data.features.items()
                 if "int" in str(getattr(kind, "dtype", ""))]  # fmt: skip
        plain = next((key for key in ("label", "labels", "cls") if key in whole), None)
        if image is None and isinstance(data.features.get("image"), dict):
            data, image = data.cast_column("image", datasets.Image()), "image"
        if image is None or (label or plain) is None:
            raise PagodaError(f"{name} needs an image and a class-label column; it has "
                              f"{', '.join(data.features)}")  # fmt: skip
        labels = np.asarray(data.with_format("numpy")[label or plain])
        if (labels >= 0).any():
            numbers = [str(i) for i in range(int(labels.max()) + 1)]
            classes = list(data.features[label].names) if label else numbers
            return _Found(data, image, classes, labels)
    return None


def _column(features: Any, kind: type) -> str | None:
    return next((name for name, value in features.items() if isinstance(value, kind)), None)


def _unreachable(name: str, error: Exception) -> PagodaError:
    why = first_line(error)
    return PagodaError(
        f"cannot get {name} ({why}); check the name and the network, or use a local copy: "
        "-S data.source=npz -S data.path=FILE (zip, tar and folder work too)"
    )
