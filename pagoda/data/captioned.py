"""What the captions of stored images are, by the names that their source gave them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pagoda.data.captions import captions
from pagoda.data.embedded import SEED
from pagoda.errors import PagodaError


def image_captions(
    names: Sequence[str], *, source: str, split: str, length: str, variety: float
) -> list[str]:
    """One caption an image.

    Args:
        names: as the ``images`` artifact lists them.
        source: of the images; the embedded set has captions.
        split: that they are of.
        length: ``short`` or ``long``.
        variety: of the embedded set.

    Raises:
        PagodaError: the source has no captions.
    """
    if source != "embedded":
        raise PagodaError(
            f"text.captions = {length}, but data.source = {source}; the embedded set has captions "
            "of that length"
        )
    indices = np.array([int(name.rpartition("/")[2]) for name in names])
    return captions(indices, seed=SEED, split=split, variety=variety, length=length)


def numbered(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Different captions in the order of their first appearance, and the number of each one's."""
    number: dict[str, int] = {}
    rows = [number.setdefault(text, len(number)) for text in texts]
    return list(number), np.array(rows, np.int64)
