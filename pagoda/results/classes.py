"""Names of classes for readers: ImageNet's synsets in words."""

from __future__ import annotations

import re
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


@cache
def _lemmas() -> dict[str, str]:
    """First lemma of every synset, from timm's list, without importing timm."""
    package = find_spec("timm")
    file = Path(package.origin).parent / _FILE if package and package.origin else None
    if file is None or not file.is_file():
        return {}
    lines = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
    return {parts[0]: parts[1].split(",")[0] for parts in lines if len(parts) > 1}
