"""Images of a ``generator`` artifact, each a function of (seed, index)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pagoda.artifacts import Artifact
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_uint8
from pagoda.networks.generator import load_generator


class GeneratorImages:
    """One-step samples; image i has class ``i % classes`` and the latent of (seed, i).

    The generator is always called with ``batch`` latents (the last call is padded): an image has
    the same bits however many there are and whichever process makes it.

    Args:
        artifact: a ``generator`` artifact.
        seed: of the latents.
        n: number of images.
        batch: images a call.
        device: where it runs.
    """

    def __init__(
        self, artifact: Artifact, seed: int, n: int, batch: int, device: torch.device
    ) -> None:
        network = artifact.network(load_generator)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._seed, self._n, self._batch, self._device = seed, n, batch, device
        self._fingerprint = artifact.fingerprint
        self.where = str(artifact.path)
        self.resolution = (network.resolution, network.resolution)
        self.base_res = network.base_res
        self.labels = np.arange(n) % network.spec.num_classes

    def __len__(self) -> int:
        return self._n

    @torch.inference_mode()
    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 images (n, 3, r, r) of the given indices.

        Raises:
            PagodaError: a pixel is not finite.
        """
        parts = []
        for start in range(0, len(rows), self._batch):
            indices = rows[start : start + self._batch]
            padded = np.resize(indices, self._batch)
            shape = (3, self.base_res, self.base_res)
            z = torch.from_numpy(standard_normal(self._seed, padded, shape)).to(self._device)
            labels = torch.from_numpy(self.labels[padded]).to(self._device)
            images = self._network(z.contiguous(memory_format=torch.channels_last), labels)
            parts.append(to_uint8(images, self.where)[: len(indices)].cpu().numpy())
        return np.ascontiguousarray(np.concatenate(parts))

    def card(self) -> dict[str, Any]:
        """Fingerprint of the generator, and the seed."""
        return {"generator": self._fingerprint, "seed": self._seed, "n": self._n}
