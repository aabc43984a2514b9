"""The lists that follow from ``base_res`` and ``target_res``, in ``params.yaml`` or a profile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pagoda.config import derive_growth, derive_resolutions
from pagoda.errors import PagodaError


def rewrite(path: str | Path) -> list[int]:
    """Put the right ``resolutions`` and ``growth`` into a parameters file.

    Only the text of the two lists is replaced: comments, order and layout stay as they are.
    Returns the resolutions.

    Raises:
        PagodaError: if the file, one of the four keys, or a possible base_res is missing.
    """
    path = Path(path)
    text, tree = _read(path)
    try:
        resolutions = derive_resolutions(tree["base_res"], tree["target_res"])
        growth = derive_growth(tree["base_res"], tree["target_res"])
    except PagodaError as error:
        raise PagodaError(f"{path}: {error}") from None
    if tree["resolutions"] != resolutions or tree["growth"] != growth:
        steps = [f"\n  '{to}': {{from: {s['from']}, to: {s['to']}}}" for to, s in growth.items()]
        text = _replace(text, "resolutions", f" {resolutions}")
        path.write_text(_replace(text, "growth", "".join(steps) or " {}"))
    return resolutions


def choose(path: str | Path, name: str, root: Path) -> list[int]:
    """Make a parameters file the profile ``name``, with its comments and the lists that follow.

    What ``dvc exp run -S profile=<name>`` does, without running anything. Returns the resolutions.

    Raises:
        PagodaError: if there is no such profile, or the file cannot be written.
    """
    lines = _profile_file(name, root).read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("# @package"))
    text = re.sub(r"(?m)^target_res:.*\n", r"\g<0>resolutions: []\ngrowth: {}\n", text)
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise PagodaError(f"cannot write {path}: {error.strerror or error}") from error
    return rewrite(path)


def profile_tree(name: str, root: Path) -> dict[str, Any]:
    """The parameters of ``experiments/profile/<name>.yaml`` with the lists that follow.

    What ``dvc exp run -S profile=<name>`` composes, without Hydra.

    Raises:
        PagodaError: if there is no such profile.
    """
    return with_lists(yaml.safe_load(_profile_file(name, root).read_text()))


def _profile_file(name: str, root: Path) -> Path:
    folder = root / "experiments" / "profile"
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in folder.glob("*.yaml")))
        raise PagodaError(f"no profile {name!r} in {folder}; there are {known or 'none'}")
    return file


def with_lists(tree: dict[str, Any]) -> dict[str, Any]:
    """A copy of a parameter tree with the lists that follow from its ends.

    Raises:
        PagodaError: if ``base_res`` is impossible.
    """
    ends = tree["base_res"], tree["target_res"]
    return tree | {"resolutions": derive_resolutions(*ends), "growth": derive_growth(*ends)}


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text()
        tree = yaml.safe_load(text)
    except FileNotFoundError:
        raise PagodaError(f"no {path} here; run pagoda from the folder that holds it") from None
    except yaml.YAMLError as error:
        raise PagodaError(f"{path} is not valid YAML; mend it and try again") from error
    for key in ("base_res", "target_res", "resolutions", "growth"):
        if not isinstance(tree, dict) or key not in tree:
            raise PagodaError(f"{path}: missing key {key}")
    return text, tree


def _replace(text: str, key: str, value: str) -> str:
    """Put ``value`` (it begins with a space or a line break) after a top-level key."""
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)  # _read looked
    name, node = next(pair for pair in root.value if pair[0].value == key)
    between = text[name.end_mark.index + 1 : node.start_mark.index]
    comment = between.split("\n")[0].rstrip()
    value = comment + value if value.startswith("\n") else value + comment
    return text[: name.end_mark.index + 1] + value + text[_end(node) :]


def _end(node: yaml.Node) -> int:
    """Where a node's text ends. A block's own end mark lies beyond the comments that follow it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)
