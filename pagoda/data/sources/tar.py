"""Class folders in an uncompressed tar archive."""

from __future__ import annotations

from pagoda.data.archives import TAR_ENDINGS, TarTree
from pagoda.data.folders import open_class_folders, unlabelled
from pagoda.data.registry import Source

SOURCE = Source(
    open=lambda wanted: open_class_folders(TarTree(wanted.found(wanted.path)), wanted),
    needs="path",
    endings=TAR_ENDINGS,
    unlabelled=lambda path, split: unlabelled(TarTree(path), split),
)
