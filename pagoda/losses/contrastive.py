"""The contrastive loss of CLIP (Radford et al. 2021, arXiv 2103.00020, figure 3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Mean of the cross-entropies of finding each image's text and each text's image.

    logits = scale images texts^T; the right answer of row i is column i. Features that say nothing
    give ln n, and a batch of one gives 0.

    Args:
        images: (n, d), of length 1.
        texts: (n, d), of length 1.
        scale: the inverse temperature.
    """
    logits = scale * images.float() @ texts.float().mT
    answers = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, answers) + F.cross_entropy(logits.mT, answers)) / 2
