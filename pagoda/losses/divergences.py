"""Weights of f-divergences between noised laws, by the log ratio of their densities.

For D_f = E_q f(r), r = p / q, the gradient that reaches a sample of q is
- h(r) grad log r, h(r) = r^2 f''(r): one table serves class-ratio training and f-distill
(Xu et al. 2025, arXiv 2502.15681), whose table it equals up to constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "reverse_kl": lambda x, a: x.new_ones(x.shape),
    "forward_kl": lambda x, a: x.exp(),
    "js": lambda x, a: x.sigmoid() / 2,
    "softened_reverse_kl": lambda x, a: (-x).sigmoid(),
    "hellinger": lambda x, a: (x / 2).exp() / 4,
    "jeffreys": lambda x, a: 1 + x.exp(),
    "neyman": lambda x, a: (-x).exp(),
    "skew_js": lambda x, a: a * (1 - a) * x.exp() / (a * x.exp() + 1 - a),
}
"""h(r) of a divergence from l = log r, and from alpha where it has one.

``js`` is Jensen and Shannon's, the saturating loss of GANs; ``softened_reverse_kl`` is minimised by
their usual, non-saturating loss; ``skew_js`` is alpha KL(p, m) + (1 - alpha) KL(q, m) with
m = alpha p + (1 - alpha) q, js at 1/2.
"""
