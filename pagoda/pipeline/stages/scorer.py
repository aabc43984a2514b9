"""Before the evaluation, with captions: train the second CLIP, which scores samples and no more."""

from __future__ import annotations

from dataclasses import replace

from pagoda.config import Config
from pagoda.methods.clip import ClipConfig
from pagoda.pipeline.stages.clip import train_clip

SEED = 1 << 32
"""Added to the seed of the first CLIP: other weights to begin with, other batches."""


def run(config: Config) -> None:
    """Train the CLIP of ``clip_score`` and write ``scorer``.

    It has other sizes, weights and batches than the one whose text encoder networks are told by, so
    that no score is by a network that training saw. Their tokenizer is the same.
    """
    train_clip(replace(config, seed=config.seed + SEED), "scorer", section_of(config))


def section_of(config: Config) -> ClipConfig:
    """The first CLIP's section with the second one's width."""
    return replace(config.text, width=config.text.scorer_width)
