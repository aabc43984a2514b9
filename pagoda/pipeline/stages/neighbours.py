"""The training image nearest to a sample: a look for memorised images."""

from __future__ import annotations

import numpy as np
import torch

from pagoda.data.store import Images

_CHUNK_BYTES = 1 << 23  # of training pixels looked at together: 64 MiB in float64


@torch.inference_mode()
def nearest_images(samples: np.ndarray, images: Images, device: torch.device) -> np.ndarray:
    """The image nearest to each sample by Euclidean distance of pixels, mirror images included.

    Distances are of whole numbers, whose products and sums float64 holds exactly.

    Args:
        samples: (..., 3, r, r) uint8.
        images: (n, 3, r, r) uint8, possibly memory-mapped; read once, in chunks.
        device: where distances are computed.

    Returns:
        Array like ``samples``; an image found in its mirror image is returned mirrored.
    """
    flat = torch.from_numpy(samples.reshape(-1, *samples.shape[-3:])).to(device)
    asked = torch.cat([flat, flat.flip(-1)]).double().flatten(1)
    best = torch.full((len(asked),), torch.inf, dtype=torch.float64, device=device)
    where = torch.zeros(len(asked), dtype=torch.int64, device=device)
    step = max(1, _CHUNK_BYTES // int(np.prod(images.shape[1:])))
    for start in range(0, len(images), step):
        chunk = torch.from_numpy(np.array(images[start : start + step])).to(device)
        known = chunk.double().flatten(1)
        norms = asked.square().sum(1)[:, None] + known.square().sum(1)
        nearest, rows = (norms - 2 * asked @ known.T).min(dim=1)
        closer = nearest < best
        best = torch.where(closer, nearest, best)
        where = torch.where(closer, rows + start, where)
    plain, mirrored = best.cpu().numpy().reshape(2, -1)
    rows_plain, rows_mirrored = where.cpu().numpy().reshape(2, -1)
    found = np.array(images[rows_plain])
    flipped = mirrored < plain
    found[flipped] = images[rows_mirrored[flipped]][..., ::-1]
    return found.reshape(samples.shape)
