"""Names of classes for readers: synsets in words, numbers of a known set by its names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_SYNSET = re.compile(r"n\d{8}")
_FILE = Path("data", "_info", "imagenet_synset_to_lemma.txt")


def class_label(name: str) -> str:
    """``n01440764`` as ``tench``; any other name as it is, with spaces for underscores."""
    if _SYNSET.fullmatch(name):
        return _lemmas().get(name, name)
    return name.replace("_", " ")


def class_labels(names: Sequence[str], hub: str | None = None) -> tuple[str, ...]:
    """Each class as a reader knows it.

    Args:
        names: as the images' store has them, by label.
        hub: torchvision's name of the set, if the profile has one. Arrays bring no names, so the
            classes of a copy of that set in a file are numbers; they are then named as the set's.
    """
    if list(names) == [str(i) for i in range(len(names))] and hub and hub.isidentifier():
        import torchvision

        known = getattr(getattr(torchvision.datasets, hub, None), "classes", ())
        if isinstance(known, list | tuple) and len(known) == len(names):
            names = [str(name) for name in known]
    return tuple(class_label(name) for name in names)


@cache
def _lemmas() -> dict[str, str]:
    """First lemma of every synset, from timm's list, without importing timm."""
    package = find_spec("timm")
    file = Path(package.origin).parent / _FILE if package and package.origin else None
    if file is None or not file.is_file():
        return {}
    lines = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
    return {parts[0]: parts[1].split(",")[0] for parts in lines if len(parts) > 1}
