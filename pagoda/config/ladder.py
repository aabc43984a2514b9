"""The lists of ``params.yaml`` that follow from its two resolutions."""

from __future__ import annotations

import itertools
from typing import Any

from pagoda.errors import PagodaError


def derive_resolutions(base_res: int, target_res: int) -> list[int]:
    """``base_res``, doubled until ``target_res``: 8, 32 -> [8, 16, 32].

    Raises:
        PagodaError: if either is no power of two or base_res exceeds target_res.
    """
    for key, value in (("base_res", base_res), ("target_res", target_res)):
        if not isinstance(value, int) or value < 4 or value & (value - 1):
            raise PagodaError(f"{key} = {value!r}; it must be a power of two of at least 4")
    if base_res > target_res:
        raise PagodaError(f"base_res = {base_res}; it must be at most target_res = {target_res}")
    return [base_res << i for i in range((target_res // base_res).bit_length())]


def derive_growth(base_res: int, target_res: int) -> dict[str, dict[str, int]]:
    """The growth steps, keyed by the resolution each reaches (as text: DVC needs text keys)."""
    ladder = derive_resolutions(base_res, target_res)
    return {str(b): {"from": a, "to": b} for a, b in itertools.pairwise(ladder)}


def with_lists(tree: dict[str, Any]) -> dict[str, Any]:
    """A copy of a parameter tree with the lists that follow from its ends.

    Raises:
        PagodaError: if one of the ends is missing or impossible.
    """
    for key in ("base_res", "target_res"):
        if not isinstance(tree, dict) or key not in tree:
            raise PagodaError(f"missing key {key}")
    ends = tree["base_res"], tree["target_res"]
    return tree | {"resolutions": derive_resolutions(*ends), "growth": derive_growth(*ends)}
