"""Learned perceptual distance of pairs of images (LPIPS, Zhang et al. 2018), by their package.

Version 0.1 with its linear heads, which the package holds. The network under them is torchvision's,
trained on ImageNet: from a file that is given, or from torch.hub's cache or the net.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import PairMetric, PairValues
from pagoda.evaluation.metrics.image_pairs import check_pairs

NETWORKS = ("alex", "vgg", "squeeze")


class Lpips:
    """The distance with its network loaded once.

    Args:
        network: ``alex`` (the authors' default for evaluation), ``vgg`` or ``squeeze``.
        weights: torchvision's file of that network's weights; None to let torch.hub find it.
        device: where torch runs it.

    Raises:
        PagodaError: if the network is unknown, or its weights cannot be had or do not fit.
    """

    def __init__(
        self, network: str = "alex", weights: Path | None = None, device: str = "cpu"
    ) -> None:
        if network not in NETWORKS:
            raise PagodaError(f"LPIPS has no network '{network}'; use alex, vgg or squeeze")
        import lpips

        from pagoda.weight_files import LPIPS as FILES
        from pagoda.weight_files import find_weights, load_lpips

        path = find_weights(FILES[network], weights, download=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's old names for its arguments
            model = lpips.LPIPS(net=network, verbose=False, pnet_rand=True)
        load_lpips(model.net, path, network)
        self._model, self._device = model.to(device).eval(), device

    def __call__(self, images: np.ndarray, references: np.ndarray, batch: int = 64) -> np.ndarray:
        """Distance of each pair of uint8 images ``(n, 3, h, w)``, (n,); 0 for equal ones."""
        import torch

        first, second = check_pairs(images, references)
        if first.shape[1] != 3:
            raise PagodaError(f"LPIPS takes 3 channels; images have {first.shape[1]}")
        found = []
        with torch.inference_mode():
            for start in range(0, len(first), batch):
                x, y = (
                    torch.from_numpy(i[start : start + batch]).to(self._device).float() / 127.5 - 1
                    for i in (first, second)
                )
                found.append(self._model(x, y).flatten().cpu().numpy())
        return np.concatenate(found).astype(np.float64)


def _open(network: str, weights: Path | None, device: str) -> PairValues:
    distance = Lpips(network, weights, device)
    return lambda x, y: {"lpips": distance(x, y)}


LPIPS = PairMetric("lpips", _open, 4, learned=True)
