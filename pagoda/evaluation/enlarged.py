"""Real images of the base, enlarged: what plain upsampling can reach at best."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pagoda.data.pixels import to_uint8
from pagoda.evaluation.samplers import upsample
from pagoda.evaluation.streaming import StoredImages

ENLARGED = "upsampled_real"
"""Name of these images, as result rows have it."""


class Enlarged:
    """Images at another size, bilinear, as a student is enlarged that was not grown.

    A student that draws from the data exactly is this far from them when it is enlarged.

    Attributes:
        labels, fingerprint: of the originals.
    """

    def __init__(self, originals: StoredImages, side: int) -> None:
        self.where, self.resolution = f"{originals.where}, enlarged", (side, side)
        self.originals, self._side = originals, side
        self.labels, self.fingerprint = originals.labels, originals.fingerprint

    def __len__(self) -> int:
        return len(self.originals)

    def card(self) -> dict[str, Any]:
        """What identifies them."""
        return self.originals.card()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 images (n, 3, side, side) of rows."""
        pixels = torch.from_numpy(self.originals.read(rows))
        return np.ascontiguousarray(to_uint8(upsample(pixels, self._side), self.where).numpy())
