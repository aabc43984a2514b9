"""A batch in parts, so that memory holds the activations of a few images, not of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_parts(network: Callable[..., Tensor], most: int | None, *rows: Tensor) -> Tensor:
    """``network(*rows)``, at most ``most`` rows at a time; None: all at once.

    Only inputs and outputs of the parts are kept; each part is computed again, with the same random
    numbers, when its gradient is due. Losses that mix the rows of a batch stay what they are. For
    networks whose rows know nothing of each other.
    """
    if most is None or len(rows[0]) <= most:
        return network(*rows)
    parts = zip(*(r.split(most) for r in rows), strict=True)
    return torch.cat([checkpoint(network, *part, use_reentrant=False) for part in parts])


def slices(n: int, most: int | None) -> Iterator[slice]:
    """``n`` rows in order, ``most`` at a time; None: all at once."""
    step = n if most is None else most
    return (slice(start, min(n, start + step)) for start in range(0, n, max(1, step)))
