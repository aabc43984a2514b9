"""Opening a source of labelled images by its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pagoda.data.archives import TarTree, ZipTree, open_tree
from pagoda.data.base import ImageSource, digest
from pagoda.data.embedded import CLASSES, render
from pagoda.data.folders import open_class_folders
from pagoda.data.hubs import open_hugging_face, open_torchvision
from pagoda.data.imagenet import open_imagenet
from pagoda.data.npz import NpzSource
from pagoda.data.trees import FolderTree, Tree
from pagoda.errors import PagodaError

SPLITS = ("train", "test")
"""Names of the splits."""

KINDS = ("embedded", "folder", "zip", "tar", "npz", "imagenet", "torchvision", "hub")
"""Kinds of source."""


def open_source(
    kind: str,
    *,
    split: str,
    path: str | None,
    hub: str | None,
    num_classes: int,
    limit: int | None,
    render_res: int,
    seed: int,
    test_share: float | None = None,
    exif: bool = False,
) -> ImageSource:
    """Open one split of a source.

    Args:
        kind: a key of :data:`KINDS`.
        split: ``train`` or ``test``.
        path: folder or file; for ``torchvision`` the folder it downloads to (None: ``data``, of
            the working folder).
        hub: a torchvision class or a Hugging Face id.
        num_classes: number of classes expected.
        limit: keep the first ``limit`` images; classes take turns, so they are balanced.
        render_res: resolution the embedded set is drawn at.
        seed: seed of the embedded set.
        test_share: share of each class that is held out where the source has no splits.
        exif: turn images as their EXIF orientation says.

    Raises:
        PagodaError: one line saying what is wrong with the data and what to do.
    """
    if split not in SPLITS:
        raise PagodaError(f"split = {split!r}; it must be one of {', '.join(SPLITS)}")
    common: dict[str, Any] = {"split": split, "num_classes": num_classes, "limit": limit}
    if kind == "embedded":
        return EmbeddedSource(render_res=render_res, seed=seed, **common)
    common |= {"exif": exif}
    if kind == "torchvision":
        return open_torchvision(_given(hub, kind, "hub"), path=path, **common)
    common |= {"test_share": test_share}
    if kind == "hub":
        return open_hugging_face(_given(hub, kind, "hub"), **common)
    if kind not in KINDS:
        raise PagodaError(f"data.source = {kind!r}; it must be one of {', '.join(KINDS)}")
    path = _given(path, kind, "path")
    if kind == "npz":
        return NpzSource(path, **common)
    if kind == "imagenet":
        return open_imagenet(open_tree(path), **common)
    trees: dict[str, Callable[[str], Tree]] = {"folder": FolderTree, "zip": ZipTree, "tar": TarTree}
    return open_class_folders(trees[kind](path), **common)


class EmbeddedSource(ImageSource):
    """The embedded set, drawn when asked for."""

    def __init__(
        self, *, split: str, num_classes: int, limit: int | None, render_res: int, seed: int
    ) -> None:
        if limit is None:
            raise PagodaError(
                f"the embedded set has no end; data.{split}_images must say how many to draw"
            )
        self._how: dict[str, Any] = {"resolution": render_res, "seed": seed, "split": split}
        labels = np.arange(max(limit, len(CLASSES))) % len(CLASSES)
        super().__init__(where="the embedded set", split=split, classes=CLASSES, labels=labels,
                         num_classes=num_classes, limit=limit)  # fmt: skip

    def array(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Images ``start:stop`` as (n, 3, R, R) uint8."""
        return self._render(self.rows[start:stop])

    def fingerprint(self) -> str:
        """SHA-256 of what is asked for and of the first image of each class as drawn."""
        first = self._render(self.rows[: len(CLASSES)])
        return digest(["embedded", self._how, len(self), first.tobytes().hex()])

    def _render(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        return render(rows, **self._how)[0]

    def _open(self, row: int) -> Image.Image:
        return Image.fromarray(self._render(np.array([row]))[0].transpose(1, 2, 0))

    def _name(self, row: int) -> str:
        return f"{self.split}/{row:07d}"


def _given(value: str | None, kind: str, key: str) -> str:
    if value is None:
        raise PagodaError(f"data.{key} is null; data.source = {kind} needs it")
    return value
