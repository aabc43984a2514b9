"""How far images are from their captions in the space of a CLIP, as a loss of the images.

``angle`` is that of StyleGAN-T's code (Sauer et al. 2023, arXiv 2301.09515), ``cosine`` takes
PaGoDA's words as they stand, that the similarity is maximised (arXiv 2405.14822).
"""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = "angle", "cosine"
_MOST = 1 - 1e-6  # of a cosine: beyond it the slope of the angle has no bound


def similarity_loss(kind: str, images: Tensor, texts: Tensor) -> Tensor:
    """Mean over n pairs of arccos(c)^2, from 0 to pi^2, or of -c; c = <image, text>.

    Args:
        kind: ``angle`` or ``cosine``.
        images: (n, d), of length 1.
        texts: (n, d), of length 1.

    Raises:
        KeyError: there is no such kind.
    """
    wide = torch.promote_types(images.dtype, torch.float32)
    cosine = (images.to(wide) * texts.to(wide)).sum(1)
    return {
        "angle": lambda: cosine.clamp(-_MOST, _MOST).arccos().square(),
        "cosine": lambda: -cosine,
    }[kind]().mean()
