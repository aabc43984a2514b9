"""What the captions of stored images are, by the names that their source gave them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pagoda.data.caption_files import captions_beside, captions_of_coco
from pagoda.data.captions import LENGTHS, MIXED, captions
from pagoda.data.embedded import CLASSES, SEED
from pagoda.errors import PagodaError


def image_captions(
    names: Sequence[str], *, source: str, split: str, kind: str, variety: float,
    path: str | None = None, file: str | None = None,
) -> list[str]:  # fmt: skip
    """One caption an image.

    Args:
        names: as the ``images`` artifact lists them.
        source: of the images; the embedded set has captions.
        split: that they are of.
        kind: ``short``, ``long`` or ``mixed``, of the embedded set; ``own``: beside the images or
            in ``file``.
        variety: of the embedded set.
        path: of the source.
        file: of COCO's captions.

    Raises:
        PagodaError: the source has no captions, or an image has none.
    """
    if kind == "own":
        return captions_of_coco(file, names) if file else captions_beside(path or "", names)
    if source != "embedded":
        raise PagodaError(
            f"text.captions = {kind}, but data.source = {source}; the embedded set has captions "
            "of that length; own: those beside the images"
        )
    indices = np.array([int(name.rpartition("/")[2]) for name in names])
    if kind == MIXED:  # ten classes in turn: of each, every other image
        both = [captions(indices, seed=SEED, split=split, variety=variety, length=length)
                for length in LENGTHS]  # fmt: skip
        return [both[i // len(CLASSES) % 2][row] for row, i in enumerate(indices)]
    return captions(indices, seed=SEED, split=split, variety=variety, length=kind)


def numbered(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Different captions in the order of their first appearance, and the number of each one's."""
    number: dict[str, int] = {}
    rows = [number.setdefault(text, len(number)) for text in texts]
    return list(number), np.array(rows, np.int64)
