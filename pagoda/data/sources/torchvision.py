"""A class of ``torchvision.datasets``, downloaded to ``data.path`` (default ``data/``).

``val`` stands in for ``test`` where the set knows no ``test``. ImageNet's synsets are named by
their number, as the folders of its archives are. Files that torchvision keeps are decoded by the
same rules as those of a folder.
"""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pagoda.data.base import Arrays, ImageSource, NamedFiles, Pictures, RowFiles, unreachable
from pagoda.data.registry import Source, Wanted
from pagoda.errors import PagodaError


def open_torchvision(wanted: Wanted) -> ImageSource:
    """One split of a set.

    Raises:
        PagodaError: if there is no such class, it has no labels or splits, or it cannot be fetched.
    """
    import torchvision

    name, split = wanted.hub or "", wanted.split
    maker: Any = getattr(torchvision.datasets, name, None)
    if not isinstance(maker, type):
        raise PagodaError(f"data.hub = {name}: torchvision has no data set of that name")
    root = wanted.root / (wanted.path or "data")
    try:
        root.mkdir(parents=True, exist_ok=True)
        data, by_path = _made(maker, root, split)
        found = [data[i] for i in range(len(data))] if by_path else []
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise unreachable(name, error) from error
    labels = np.asarray([label for _, label in found] if by_path else _labels(name, data))
    classes = getattr(data, "wnids", None) or getattr(data, "classes", None)
    classes = classes or [str(i) for i in range(int(labels.max()) + 1)]
    pixels = np.asarray(getattr(data, "data", ()))
    pictures: Pictures
    if by_path:
        files = [Path(file).relative_to(root).as_posix() for file, _ in found]
        pictures = NamedFiles(name, files, partial(_read, root))
    elif pixels.dtype == np.uint8 and pixels.ndim in (3, 4):
        pictures = Arrays(name, pixels, f"{name}/{split}")
    else:
        pictures = RowFiles(name, data, 0, ["torchvision", name, split], f"{name}/{split}")
    return ImageSource(pictures, wanted, classes, labels)


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


def _read(root: Path, name: str) -> bytes:
    return (root / name).read_bytes()


SOURCE = Source(open_torchvision, needs="hub", fetched=True)
