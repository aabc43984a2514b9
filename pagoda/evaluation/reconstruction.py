"""How much of images an autoencoder loses: the floor of everything that is decoded by it.

Whatever models an autoencoder's codes perfectly makes images like those that come back of real
ones. Their distance from the reference stands in the same column as every generator's; beside it
are the errors of pairs, and the distance of what came back from what went in (rFID's idea, in the
features at hand).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pagoda.calls import in_calls
from pagoda.data.pixels import to_float, to_uint8
from pagoda.evaluation.features.base import Extractor
from pagoda.evaluation.metrics.base import protocol
from pagoda.evaluation.metrics.frechet import frechet_distance
from pagoda.evaluation.metrics.ssim import WINDOW
from pagoda.evaluation.pairs import compare
from pagoda.evaluation.streaming import Images, StoredImages, collect
from pagoda.networks.autoencoder import Autoencoder
from pagoda.rows import Row

AUTOENCODER = "autoencoder"
"""Name of the images that came back, as result rows have it."""


class Reconstructed:
    """Images after an autoencoder: encoded, decoded, rounded to uint8.

    Attributes:
        labels, fingerprint: of the originals.
    """

    nfe = 0

    def __init__(
        self, originals: StoredImages, autoencoder: Autoencoder, device: torch.device, batch: int
    ) -> None:
        self.where = f"{originals.where} after the autoencoder"
        self.originals, self.resolution = originals, originals.resolution
        self.labels, self.fingerprint = originals.labels, originals.fingerprint
        self._network = autoencoder.to(device).eval()
        self._device, self._batch = device, batch

    def __len__(self) -> int:
        return len(self.originals)

    def card(self) -> dict[str, Any]:
        """What identifies them."""
        return self.originals.card()

    @torch.inference_mode()
    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 images (n, 3, r, r) of rows.

        The network is always called with ``batch`` images (the last call is padded): an image has
        the same bits whatever is encoded beside it.
        """

        def back(part: torch.Tensor) -> torch.Tensor:
            x = to_float(part.to(self._device)).contiguous(memory_format=torch.channels_last)
            return to_uint8(self._network(x), self.where).cpu()

        pixels = torch.from_numpy(self.originals.read(rows))
        return np.ascontiguousarray(in_calls(back, self._batch, pixels).numpy())


def reconstruction_rows(
    originals: Images, back: Images, extractor: Extractor, facts: Mapping[str, Any]
) -> list[Row]:
    """PSNR, SSIM, and distances in features between images and what came back of them.

    SSIM of images that its window fits into.

    ``fd_reconstruction``: the Frechet distance between the two sets. ``feature_distance``: the mean
    over pairs of |f(x) - f(x')|^2 / |f(x)|^2.
    """
    metrics = ("psnr", "ssim") if min(originals.resolution) >= WINDOW else ("psnr",)
    rows = compare(back, originals, metrics)
    seen = [collect(images, [(extractor, {"features"})])[0] for images in (originals, back)]
    a, b = (sample.moments for sample in seen)
    distance = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    f, g = (sample.features.astype(np.float64) for sample in seen)
    pairs = np.square(f - g).sum(1) / np.maximum(np.square(f).sum(1), 1e-12)
    n = len(f)
    for metric, value in (("fd_reconstruction", distance), ("feature_distance", pairs.mean())):
        name = protocol(metric, extractor.name, n)
        rows.append(Row(metric=metric, protocol=name, value=float(value), n=n,
                        features=extractor.fingerprint))  # fmt: skip
    return [replace(row, generator=AUTOENCODER, nfe=0, **facts) for row in rows]
