"""Writing ``params.yaml``: what follows from other keys of it, and a whole profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import pagoda
from pagoda import outputs
from pagoda.config import (
    DERIVED,
    for_its_methods,
    is_name,
    parse,
    parse_yaml,
    read_yaml,
    with_derived,
)
from pagoda.errors import PagodaError


def rewrite(path: str | Path) -> list[int]:
    """Put the right ``resolutions``, ``growth``, ``code`` and ``space`` into a parameters file.

    Only their text is replaced: comments, order and layout stay as they are. Returns the
    resolutions.

    Raises:
        PagodaError: if the file, one of the keys, or a possible base_res is missing, or the file
            cannot be written; it stays as it was then.
    """
    path = Path(path)
    if not path.is_file():
        raise PagodaError(f"no {path} here; run pagoda from the folder that holds it")
    tree = read_yaml(path)
    try:
        wanted = with_derived(tree)
    except PagodaError as error:
        raise PagodaError(f"{path}: {error}") from None
    for key in ("resolutions", "growth"):
        if key not in tree:
            raise PagodaError(f"{path}: missing key {key}")
    if tree != wanted:
        text = path.read_text(encoding="utf-8-sig")
        growth = wanted["growth"].values()
        steps = [f"\n  '{s['to']}': {{from: {s['from']}, to: {s['to']}}}" for s in growth]
        text = _replace(text, "resolutions", f" {wanted['resolutions']}")
        text = _replace(text, "growth", "".join(steps) or " {}")
        for key in ("code", "space"):
            lines = "".join(f"\n  {name}: {value}" for name, value in wanted[key].items())
            if key in tree:
                text = _replace(text, key, lines or " {}")
            else:
                text = text.rstrip("\n") + f"\n{key}:{lines or ' {}'}\n"
        if parse_yaml(text, str(path)) != wanted:
            raise PagodaError(f"{path}: write each key at the beginning of a line of its own")
        _write(path, text)
    return list(wanted["resolutions"])


def choose(path: str | Path, name: str, root: Path, reset: bool = False) -> list[int]:
    """Make a parameters file the profile ``name``, with the lists that follow.

    What ``dvc exp run -S profile=<name>`` does, without running anything. Returns the resolutions.

    Args:
        path: the file; another profile's is replaced.
        name: of the profile.
        root: the project.
        reset: drop values of the file that are not those of the profile that it is named after.

    Raises:
        PagodaError: if there is no such profile, it is not valid, the file has values of its own
            or cannot be written; the file stays as it was then.
    """
    path, tree = Path(path), profile_tree(name, root)
    parse(tree, f"experiments/profile/{name}.yaml")
    if path.exists() and not reset:
        _refuse_edited(path, tree, root)
    _write(path, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    return list(tree["resolutions"])


def save(path: str | Path, name: str, root: Path) -> None:
    """Make the profile ``name`` the values of a parameters file, as differences from the base.

    The comment at the head of the profile's file stays.

    Raises:
        PagodaError: if the parameters are not valid, or a file cannot be read or written.
    """
    tree = read_yaml(path)
    parse(tree, str(path))
    file, base = root / "experiments" / "profile" / f"{name}.yaml", root / "experiments/base.yaml"
    head = file.read_text(encoding="utf-8").partition("defaults:")[0]
    known, changed = _leaves(read_yaml(base)), {"name": name}
    changed |= {k: v for k, v in _leaves(tree).items() if k != "name" and known.get(k, ...) != v}
    nested: dict[str, Any] = {}
    for dotted, value in changed.items():
        *path_to, last = dotted.split(".")
        node = nested
        for key in path_to:
            node = node.setdefault(key, {})
        node[last] = value
    body = yaml.safe_dump(nested, sort_keys=False, allow_unicode=True)
    _write(file, f"{head}defaults: [/base, _self_]\n{body}")


def profile_tree(name: str, root: Path) -> dict[str, Any]:
    """The parameters of ``experiments/profile/<name>.yaml`` with the lists that follow.

    What ``dvc exp run -S profile=<name>`` composes: Hydra does it here too, so that a profile may
    name others in its ``defaults``.

    Raises:
        PagodaError: if there is no such profile, or it cannot be composed.
    """
    folder = _experiments(root) / "profile"
    if not is_name(name) or not (folder / f"{name}.yaml").is_file():
        known = ", ".join(sorted(f.stem for f in folder.glob("*.yaml")))
        raise PagodaError(f"no profile {name!r} in {folder}; there are {known or 'none'}")
    tree = _composed(f"profile/{name}", root)
    try:
        return with_derived(for_its_methods(tree))
    except PagodaError as error:
        raise PagodaError(f"experiments/profile/{name}.yaml: {error}") from None


def _experiments(root: Path) -> Path:
    """Where profiles are: the project's; where there is no project, those that came with pagoda."""
    package = Path(pagoda.__file__).parent
    folders = [home / "experiments" for home in (root, package, package.parent)]
    return next((f for f in folders if (f / "base.yaml").is_file()), folders[0])


def _composed(name: str, root: Path) -> dict[str, Any]:
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import load_hydra_plugins
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    load_hydra_plugins(str(root))  # which read YAML as we do
    try:
        with initialize_config_dir(str(_experiments(root).resolve()), version_base=None):
            found: Any = OmegaConf.to_container(compose(name), resolve=True)
    except (DvcException, HydraException, OmegaConfBaseException) as error:
        why = " ".join(str(error).split())
        raise PagodaError(f"experiments/{name}.yaml cannot be composed: {why}") from error
    return dict(found)


def _refuse_edited(path: Path, wanted: dict[str, Any], root: Path) -> None:
    """Refuse to drop values that neither the new profile has nor the one the file came from."""
    tree = read_yaml(path)
    own = _leaves(tree if isinstance(tree, dict) else {})
    name = own.get("name")
    known = is_name(name) and (_experiments(root) / "profile" / f"{name}.yaml").is_file()
    kept = [_leaves(wanted), _leaves(profile_tree(str(name), root)) if known else {}]
    lost = [key for key, value in own.items() if all(key not in k or k[key] != value for k in kept)]
    if lost:
        few = ", ".join(f"{key} = {own[key]!r}" for key in lost[:5])
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        came = f"profile {name}" if known else "any profile"
        raise PagodaError(
            f"{path} would lose values that are not those of {came}: {few}{more}; keep a copy of "
            "the file, then add --reset"
        )


def _leaves(tree: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values; lists are values."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return {k: v for k, v in found.items() if k.split(".")[0] not in DERIVED}


def _write(path: Path, text: str) -> None:
    """Replace a file whole or not at all; through a link, the file that it leads to."""
    outputs.write_text(path.resolve(), text)


def _replace(text: str, key: str, value: str) -> str:
    """Put ``value`` (it begins with a space or a line break) after a top-level key."""
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)  # rewrite looked
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
