"""The resizing that published feature networks come with; each changes the features."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

_THREADS = min(8, os.cpu_count() or 1)  # Pillow lets go of the interpreter while it resizes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def one_by_one(resize: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """Apply a function of one (h, w, 3) image to (n, 3, h, w), in threads, in order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        resized = list(pool.map(resize, images.transpose(0, 2, 3, 1)))
    return np.ascontiguousarray(np.stack(resized).transpose(0, 3, 1, 2))


def pil_bicubic(images: np.ndarray, side: int) -> np.ndarray:
    """Pillow's bicubic, antialiased, rounded to uint8: torchvision's ``Resize`` on an image."""
    size = (side, side)
    bicubic = Image.Resampling.BICUBIC
    return one_by_one(lambda x: np.asarray(Image.fromarray(x).resize(size, bicubic)), images)


def torch_bicubic(images: Tensor, side: int) -> Tensor:
    """torch's bicubic with antialiasing on float32, neither clamped nor rounded.

    Images of that side stay as they are; antialiasing matters only where they shrink.
    """
    if images.shape[-2:] == (side, side):
        return images.float()
    return F.interpolate(images.float(), (side, side), mode="bicubic", antialias=True)


def tensorflow_bilinear(images: Tensor, side: int) -> Tensor:
    """TensorFlow 1's ``resize_bilinear``: pixel i reads from ``i * in / out``, no antialiasing.

    The grid starts at the corner instead of half a pixel inside, as in the graph that FID was
    published with. Images (n, c, h, w) of any type -> float32 (n, c, side, side).
    """
    x = images.float()
    for axis in (2, 3):
        length = x.shape[axis]
        at = torch.arange(side, device=x.device, dtype=torch.float32) * (length / side)
        low = at.floor().long()
        high = (low + 1).clamp(max=length - 1)
        weight = (at - low).reshape(-1, 1) if axis == 2 else at - low
        below, above = x.index_select(axis, low), x.index_select(axis, high)
        x = below + (above - below) * weight
    return x


def normalise(
    images: Tensor,
    mean_: Sequence[float] = IMAGENET_MEAN,
    std_: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """0..255 -> a network's mean and standard deviation: ``(x / 255 - mean) / std``."""
    mean, std = (torch.tensor(v, device=images.device) for v in (mean_, std_))
    return (images.float() / 255 - mean[:, None, None]) / std[:, None, None]
