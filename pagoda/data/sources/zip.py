"""Class folders in a zip archive; ``--images`` takes every file for one that no other ends like."""

from __future__ import annotations

from pagoda.data.archives import ZipTree
from pagoda.data.folders import open_class_folders, unlabelled
from pagoda.data.registry import Source

SOURCE = Source(
    open=lambda wanted: open_class_folders(ZipTree(wanted.found(wanted.path)), wanted),
    needs="path",
    endings=(".zip",),
    unlabelled=lambda path, split: unlabelled(ZipTree(path), split),
)
