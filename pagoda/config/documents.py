"""The one reader of YAML: parameters, profiles, studies and claims.

YAML 1.1 reads ``010`` as eight, ``1:30`` as ninety, ``2024-01-01`` as a date, and of two equal keys
the last. Nobody means that: it is refused by its key, and read as nothing else.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from pagoda.errors import PagodaError
from pagoda.fields import NUMBER, refusal


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds: dicts, lists and scalars.

    Raises:
        PagodaError: one line, with the file and where possible line and key: it cannot be read, is
            not UTF-8 or YAML, or holds a key twice, a number that is not finite or not written in
            plain decimal digits, or a date.
    """
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PagodaError(f"{path} line {line} is not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise PagodaError(f"cannot read {path}: {error.strerror or error}") from error


def parse_yaml(text: str, where: str) -> Any:
    """As :func:`read_yaml`, of a text; ``where`` is its file, for messages."""
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, "", where, set())
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or "characters that YAML does not allow"
        raise PagodaError(f"{where}{line} is not valid YAML ({why}); mend it") from error
    except RecursionError:
        raise PagodaError(f"{where} is nested too deeply to be read; mend it") from None


def _check(node: Any, key: str, where: str, seen: set[int]) -> None:
    """Refuse what YAML 1.1 reads as something else than it looks like, in a node and below it."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if node.id == "scalar":
        _check_scalar(node, key, where)
    elif node.id == "sequence":
        for i, item in enumerate(node.value):
            _check(item, f"{key}[{i}]", where, seen)
    else:
        keys: set[str] = set()
        for name, value in node.value:
            path = f"{key}.{name.value}" if key else str(name.value)
            if path in keys:
                line = name.start_mark.line + 1
                raise PagodaError(f"{where} line {line}: {path} is there twice; keep one of them")
            keys.add(path)
            _check(value, path, where, seen)


def _check_scalar(node: Any, key: str, where: str) -> None:
    kind, text = node.tag.rpartition(":")[2], node.value
    allowed = {
        "int": (re.fullmatch(r"[-+]?(0|[1-9]\d{0,18})", text), "below 2^63 and in plain digits"),
        "float": (NUMBER.fullmatch(text) and math.isfinite(float(text)), "a finite decimal number"),
        "timestamp": (None, "text, in quotes if it is meant: YAML reads it as a date"),
    }
    holds, rule = allowed.get(kind, (True, ""))
    if not holds:
        raise refusal(key, text, rule, f"{where} line {node.start_mark.line + 1}")
