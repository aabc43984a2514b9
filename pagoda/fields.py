"""A field with its documentation and rules, and how a plain tree becomes a dataclass of fields.

A section of ``params.yaml``, a study and its variants are dataclasses whose fields :func:`opt`
made. Two hooks are open to such a class:

- ``checks(self, prefix) -> Iterable[Check]``: what its keys demand of each other;
- ``select(cls, tree) -> type``, a class method: the class that reads this section, where one of
  its own keys decides that.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pagoda.errors import PagodaError

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
NAME_RULE = (
    "a name: up to 100 letters a-z, digits and _ - . that begin with a letter, a digit or _ "
    "(folders are named after it), other than plans, published and suite"
)
Check = tuple[bool, str, Any, str]
"""Whether it holds, the key with its prefix, the key's value, what is allowed."""

_LARGEST = 1 << 63  # what DVC, numpy and torch count to
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 200
_SHOWN.maxlist = _SHOWN.maxdict = 20


def is_name(text: Any) -> bool:
    """Whether a text may name a folder of ours: see :data:`NAME_RULE`."""
    taken = text in ("plans", "published", "suite")  # other things below reports/
    rule = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
    return isinstance(text, str) and not taken and bool(re.fullmatch(rule, text))


def opt(
    doc: str,
    *,
    default: Any = dataclasses.MISSING,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] | None = None,
    power_of_two: bool = False,
    name: bool = False,
) -> Any:
    """A dataclass field with its documentation and the values it allows.

    With a ``default`` the key may be missing. Rules for a list hold for each of its items.
    """
    rules = {"ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices, "name": name}
    metadata = {"doc": doc, "power_of_two": power_of_two, **rules}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, list | dict):
        make = type(default)
        return dataclasses.field(
            default_factory=lambda: make(default), metadata=metadata, kw_only=True
        )
    return dataclasses.field(default=default, metadata=metadata, kw_only=True)


def build(cls: type, tree: Any, where: str, prefix: str = "") -> Any:
    """Make a dataclass whose fields :func:`opt` made, and those inside it, from a plain tree.

    Fields that :func:`opt` did not make are no keys: they keep their defaults.

    Args:
        cls: the dataclass.
        tree: dicts and lists, as YAML gives them.
        where: the file, for messages.
        prefix: of the keys' names in messages, with its full stop.

    Raises:
        PagodaError: a key is unknown or missing, has a value that its field does not allow, or
            does not go together with others.
    """
    if not isinstance(tree, Mapping):
        raise refusal(prefix.rstrip(".") or "the file", tree, "a mapping of keys", where)
    if select := getattr(cls, "select", None):
        try:
            cls = select(tree)
        except PagodaError as error:
            raise PagodaError(f"{where}: {prefix}{error}") from error
    hints = _hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if "doc" in f.metadata}
    for key in tree:
        if key not in fields:
            known = ", ".join(sorted(fields))
            raise PagodaError(f"{where}: unknown key {prefix}{key}; known here: {known}")
    values = {}
    for name, spec in fields.items():
        if name in tree:
            values[name] = _value(hints[name], tree[name], f"{prefix}{name}", spec.metadata, where)
        elif spec.default is spec.default_factory is dataclasses.MISSING:
            raise PagodaError(f"{where}: missing key {prefix}{name} ({spec.metadata['doc']})")
    made = cls(**values)
    if checks := getattr(made, "checks", None):
        hold(checks(prefix), where)
    return made


def hold(checks: Iterable[Check], where: str) -> None:
    """Refuse the first check that does not hold."""
    for holds, key, value, allowed in checks:
        if not holds:
            raise refusal(key, value, allowed, where)


def refusal(key: str, value: Any, allowed: str, where: str) -> PagodaError:
    """The line for a value that is not allowed."""
    return PagodaError(f"{where}: {key} = {_SHOWN.repr(value)}; it must be {allowed}")


_hints = functools.cache(typing.get_type_hints)


def _value(hint: Any, value: Any, key: str, rules: Mapping[str, Any], where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where, f"{key}.")
    if origin is types.UnionType:
        inner = next(a for a in args if a is not type(None))
        return None if value is None else _value(inner, value, key, rules, where)
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise refusal(key, value, "a list", where)
        return origin(_value(args[0], v, f"{key}[{i}]", rules, where) for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise refusal(key, value, "a mapping", where)
        return {str(k): _value(args[1], v, f"{key}.{k}", rules, where) for k, v in value.items()}
    return _scalar(hint, value, key, rules, where)


def _scalar(hint: type, value: Any, key: str, rules: Mapping[str, Any], where: str) -> Any:
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise refusal(key, value, "below 2^63", where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint is float and isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)  # YAML 1.1 reads 2e-3 as a string
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise refusal(key, value, names[hint], where)
    if (choices := rules.get("choices")) and value not in choices:
        raise refusal(key, value, "one of " + ", ".join(choices), where)
    if rules.get("power_of_two") and isinstance(value, int) and (value < 1 or value & (value - 1)):
        raise refusal(key, value, "a power of two", where)
    if isinstance(value, float) and not math.isfinite(value):
        raise refusal(key, value, "a finite number", where)
    if rules.get("name") and not is_name(value):
        raise refusal(key, value, NAME_RULE, where)
    signs = {"ge": (">=", lambda a, b: a >= b), "gt": (">", lambda a, b: a > b),
             "le": ("<=", lambda a, b: a <= b), "lt": ("<", lambda a, b: a < b)}  # fmt: skip
    for rule, (sign, holds) in signs.items():
        if (bound := rules.get(rule)) is not None and not holds(value, bound):
            raise refusal(key, value, f"{sign} {bound:g}", where)
    return value
