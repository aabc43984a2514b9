"""Counting in seconds: shapes that the meta device has found once are not found again."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class SeenBefore(TorchDispatchMode):
    """Answers operations on the meta device as it answered them on equal shapes before.

    The meta device finds the shapes of many operations by Python code, a millisecond each, and a
    network repeats a few hundred operations thousands of times.
    """

    def __init__(self) -> None:
        super().__init__()
        self._answers: dict[Any, Any] = {}
        self._kinds: dict[int, str] = {}  # by identity: hashing an operation is slow

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Empty tensors of the known shapes, or what the operation itself returns."""
        kwargs = kwargs or {}
        if (kind := self._kinds.get(id(func))) is None:
            kind = self._kinds[id(func)] = _kind(func)
        if kind == "in place" and args[0].is_meta:
            return args[0]
        if kind != "new tensors":
            return func(*args, **kwargs)
        try:
            key = id(func), _signature(args), _signature(tuple(kwargs.items()))
        except _NotMeta:
            return func(*args, **kwargs)
        if key in self._answers:
            return _empty(self._answers[key])
        out = func(*args, **kwargs)
        with contextlib.suppress(_NotMeta):
            self._answers[key] = _shapes(out)
        return out


class _NotMeta(Exception):
    """A value is neither a plain one nor a tensor of the meta device."""


def _kind(func: Any) -> str:
    """Whether an operation only returns new tensors, or only changes values of its first."""
    schema = func._schema
    if torch.Tag.pointwise in func.tags and schema.name.endswith("_"):
        return "in place"
    aliased = any(part.alias_info for part in (*schema.arguments, *schema.returns))
    return "other" if aliased else "new tensors"


def _signature(value: Any) -> Any:
    """What the shapes of results depend on."""
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise _NotMeta
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(_signature(v) for v in value)
    return type(value), value


def _shapes(out: Any) -> Any:
    if isinstance(out, Tensor):
        return _signature(out)
    if isinstance(out, (list, tuple)):
        return [_shapes(part) for part in out]
    if out is None:
        return None
    raise _NotMeta


def _empty(shapes: Any) -> Any:
    if isinstance(shapes, tuple):
        size, stride, dtype = shapes
        return torch.empty_strided(size, stride, dtype=dtype, device="meta")
    return None if shapes is None else tuple(_empty(part) for part in shapes)
