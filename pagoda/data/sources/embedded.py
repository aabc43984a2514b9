"""The embedded set, drawn when it is asked for. Its fingerprint covers what is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pagoda.artifacts import digest
from pagoda.data.base import ImageSource, Pictures
from pagoda.data.embedded import CLASSES, render
from pagoda.data.registry import Source, Wanted
from pagoda.errors import PagodaError


class Drawn(Pictures):
    """The first ``length`` images of a split of the embedded set."""

    drawn = True

    def __init__(self, length: int, split: str, resolution: int, variety: float, seed: int) -> None:
        super().__init__("the embedded set", length)
        self._how: dict[str, Any] = {
            "resolution": resolution, "variety": variety, "seed": seed, "split": split,
        }  # fmt: skip

    def name(self, row: int) -> str:
        """Split and number."""
        return f"{self._how['split']}/{row:07d}"

    def open(self, row: int) -> Image.Image:
        """Draw one image."""
        return Image.fromarray(self.array(np.array([row]))[0].transpose(1, 2, 0))

    def array(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Images (n, 3, R, R) uint8."""
        return render(rows, **self._how)[0]

    def fingerprint(self, of: ImageSource) -> str:
        """Of what is asked for and of the first image of each class as drawn."""
        first = self.array(of.rows[: len(CLASSES)])
        return digest(["embedded", self._how, len(of), first.tobytes().hex()])


def open_embedded(wanted: Wanted) -> ImageSource:
    """The first images of a split.

    Raises:
        PagodaError: if ``wanted.limit`` does not say how many.
    """
    if wanted.limit is None:
        raise PagodaError(
            f"the embedded set has no end; data.{wanted.split}_images must say how many to draw"
        )
    count = max(wanted.limit, len(CLASSES))
    pictures = Drawn(count, wanted.split, wanted.render_res, wanted.variety, wanted.seed)
    return ImageSource(pictures, wanted, CLASSES, np.arange(count) % len(CLASSES))


SOURCE = Source(open_embedded, drawn=True, classes=10)
