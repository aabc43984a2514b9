"""Class folders on disk."""

from __future__ import annotations

from pagoda.data.folders import open_class_folders, unlabelled
from pagoda.data.registry import Source
from pagoda.data.trees import FolderTree

SOURCE = Source(
    open=lambda wanted: open_class_folders(FolderTree(wanted.found(wanted.path)), wanted),
    needs="path",
    endings=("/",),
    unlabelled=lambda path, split: unlabelled(FolderTree(path), split),
)
