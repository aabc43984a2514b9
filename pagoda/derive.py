"""Rewrites the lists of ``params.yaml`` that follow from ``base_res`` and ``target_res``."""

from __future__ import annotations

from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from pagoda.config import derive_growth, derive_resolutions
from pagoda.errors import PagodaError


def rewrite_lists(path: str | Path) -> bool:
    """Put the right ``resolutions`` and ``growth`` into a parameters file; say if that changed it.

    Only the text of the two lists is replaced: comments, order and layout stay as they are.

    Raises:
        PagodaError: if the file, a key or a sensible base_res or target_res is missing.
    """
    path = Path(path)
    try:
        text = path.read_text()
        tree, root = yaml.safe_load(text), yaml.compose(text)
    except FileNotFoundError:
        raise PagodaError(f"no {path} here; run pagoda from the folder that holds it") from None
    except yaml.YAMLError as error:
        raise PagodaError(f"{path} is not valid YAML; mend it and try again") from error
    needed = ("base_res", "target_res", "resolutions", "growth")
    if missing := [k for k in needed if not isinstance(tree, dict) or k not in tree]:
        raise PagodaError(f"{path}: missing key {missing[0]}")
    base, target = tree["base_res"], tree["target_res"]
    try:
        lists = {
            "resolutions": str(derive_resolutions(base, target)),
            "growth": _growth_text(derive_growth(base, target)),
        }
    except PagodaError as error:
        raise PagodaError(f"{path}: {error}") from None
    ...
