"""Captions that lie beside images in a folder or archive, or in a file of COCO's.

For an image ``a/b.jpg`` the caption is the text of ``a/b.txt``, or ``caption`` (or ``text``) of
``a/b.json``, as webdataset has them; or, from a file of COCO's captions, the annotation of the
lowest ``id`` of the image whose ``file_name`` ends the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pagoda.data.archives import open_tree
from pagoda.data.trees import Tree, escaped
from pagoda.errors import PagodaError, denied, first_line

_KEYS = "caption", "text"


def captions_beside(path: str | Path, names: Sequence[str]) -> list[str]:
    """The caption of each image of a folder or archive.

    Args:
        path: of the source.
        names: of images, as the ``images`` artifact lists them.

    Raises:
        PagodaError: one line: an image has no caption, or an empty one; it is named.
    """
    tree = open_tree(path)
    there = {escaped(name): name for name in tree.names if not name.endswith("/")}
    prefix = _prefix(tree, there, names)
    return [_checked(_beside(tree, there, prefix + name), name, tree.where) for name in names]


def captions_of_coco(file: str | Path, names: Sequence[str]) -> list[str]:
    """The caption of each image from a file of COCO's captions.

    Raises:
        PagodaError: one line: it is no such file, or an image is not in it.
    """
    try:
        tree = json.loads(Path(file).read_text(encoding="utf-8"))
        images = {image["id"]: Path(image["file_name"]).name for image in tree["images"]}
        first: dict[str, str] = {}
        for told in sorted(tree["annotations"], key=lambda told: told["id"]):
            first.setdefault(images[told["image_id"]], str(told["caption"]))
    except PermissionError as error:
        raise denied(error) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PagodaError(
            f"{file} is no file of COCO's captions, with images and annotations "
            f"({type(error).__name__} {first_line(error)})"
        ) from error
    return [_checked(first.get(Path(name).name), name, str(file)) for name in names]


def _prefix(tree: Tree, there: dict[str, str], names: Sequence[str]) -> str:
    """Folders around the layout of the images, which their names leave out."""
    for name in there:
        if names and (name == names[0] or name.endswith(f"/{names[0]}")):
            return name.removesuffix(names[0])
    raise PagodaError(f"{tree.where} holds no image {names[0] if names else ''} any more")


def _beside(tree: Tree, there: dict[str, str], name: str) -> str | None:
    stem = name.rpartition(".")[0]
    readers: dict[str, Callable[[str], Any]] = {".txt": str, ".json": _of_json}
    for ending, read in readers.items():
        if file := there.get(stem + ending):
            try:
                found: str | None = read(tree.read_text(file))
            except (ValueError, RecursionError) as error:
                raise PagodaError(f"{file} of {tree.where} is no JSON ({error})") from error
            return found
    return None


def _of_json(text: str) -> str | None:
    tree = json.loads(text)
    tree = tree if isinstance(tree, dict) else {}
    return next((str(tree[key]) for key in _KEYS if isinstance(tree.get(key), str)), None)


def _checked(caption: str | None, name: str, where: str) -> str:
    if caption is None:
        raise PagodaError(
            f"{name} has no caption in {where}: write one into a .txt beside it, or name a file "
            "of COCO's captions by text.file"
        )
    if not (text := " ".join(caption.split())):
        raise PagodaError(f"{name} has an empty caption in {where}; write one")
    return text
