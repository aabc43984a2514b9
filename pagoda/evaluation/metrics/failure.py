"""Names for the ways in which training a one-step generator goes wrong.

The thresholds are conventions, fixed here before any run, not findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

BLUR = 0.7
"""High-frequency energy below this fraction of real images' is called blur."""

LOST_DETAIL = 0.5
"""Recall below this fraction of real images' is called lost detail."""

GRADIENT_SPREAD = 10.0
"""A largest gradient norm beyond this multiple of the median is called unstable."""

LOGIT_GAP = 8.0
"""A mean gap of the discriminator's logits beyond this says that it has won: unstable."""

SIGNATURES = ("blur", "unstable gradients", "discriminator wins", "lost detail")
"""Every name that :func:`signatures` may give."""


def gradient_spread(history: Sequence[Mapping[str, float]]) -> float:
    """Largest over median gradient norm, over the second half of the rows of a training curve."""
    norms = [row["grad_norm"] for row in history if "grad_norm" in row]
    late = np.array(norms[len(norms) // 2 :])
    return float(late.max() / max(float(np.median(late)), 1e-12)) if late.size else 0.0


def logit_gap(history: Sequence[Mapping[str, float]]) -> float:
    """Mean of real minus generated logits over the last quarter of the rows that have them."""
    gaps = [row["logit_real"] - row["logit_fake"] for row in history if "logit_real" in row]
    return float(np.mean(gaps[-max(1, len(gaps) // 4) :])) if gaps else 0.0


def signatures(
    *, energy_ratio: float, recall_ratio: float, gradient_spread: float, logit_gap: float
) -> list[str]:
    """Which of :data:`SIGNATURES` a run shows; ratios are over (held-out) real images."""
    found = (
        energy_ratio < BLUR,
        gradient_spread > GRADIENT_SPREAD,
        logit_gap > LOGIT_GAP,
        recall_ratio < LOST_DETAIL,
    )
    return [name for name, shown in zip(SIGNATURES, found, strict=True) if shown]
