"""A data set of the Hugging Face hub, or a local folder or parquet file, through ``datasets``.

The first image column and the first class-label column are used; where no column is declared a
class label, whole numbers in one called ``label``, ``labels`` or ``cls`` are. ``validation`` stands
in for ``test`` where there is no ``test``, or one whose labels are withheld (ImageNet's are all
-1); without either, a fraction of every class of ``train`` is held out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagoda.data.base import ImageSource, RowFiles, hold_out, unreachable
from pagoda.data.registry import Source, Wanted
from pagoda.errors import PagodaError

_TESTS = ("test", "validation", "valid", "val")


class _Found(NamedTuple):
    rows: Any
    image: str
    classes: list[str]
    labels: NDArray[Any]


def open_hub(wanted: Wanted) -> ImageSource:
    """One split of a set.

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
    name, split = wanted.hub or "", wanted.split
    if (local := wanted.root / name).exists():
        name = str(local)
    how: dict[str, Any] = {"path": name}
    if name.endswith(".parquet"):
        how = {"path": "parquet", "data_files": {"train": name}}
    try:
        have = datasets.get_dataset_split_names(**how)
        usual = ("train",) if split == "train" else _TESTS
        found = _labelled(datasets, name, how, [s for s in usual if s in have])
        shared = wanted.test_share is not None and not set(have) & set(_TESTS)
        if shared and found is None:
            found = _labelled(datasets, name, how, ["train"] if "train" in have else have[:1])
    except (OSError, RuntimeError, ValueError) as error:
        raise unreachable(name, error) from error
    if found is None:
        more = "" if wanted.test_share else "; data.test_share holds a fraction of train out"
        raise PagodaError(f"{name} has no labelled {split} split; it has {', '.join(have)}{more}")
    keep = None
    if shared:
        names = [f"train[{i}]" for i in range(len(found.labels))]
        keep = hold_out(names, found.labels, wanted, name)
    data = found.rows
    # Undecoded: ``datasets`` would turn images as their EXIF orientation says, asked or not.
    files = data.cast_column(found.image, datasets.Image(decode=False))
    identity = ["hub", name, str(data.split), str(data.info.version),
                str(data.info.download_checksums)]  # fmt: skip
    pictures = RowFiles(name, files, found.image, identity, f"{name}/{split}")
    return ImageSource(pictures, wanted, found.classes, found.labels, keep)


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


SOURCE = Source(open_hub, needs="hub", fetched=True)
