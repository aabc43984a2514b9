"""A stage's optimiser, length and schedule from its configuration."""

from __future__ import annotations

from pagoda.config import OptimConfig
from pagoda.training.loop import LoopSpec
from pagoda.training.optim import OptimSpec


def optim_spec(optim: OptimConfig) -> OptimSpec:
    """The optimiser of a stage."""
    return OptimSpec(optim.optimizer, optim.lr, (optim.beta1, optim.beta2), optim.weight_decay)


def loop_spec(name: str, optim: OptimConfig, seed: int) -> LoopSpec:
    """Length and schedule of a stage's training."""
    return LoopSpec(name, optim.images, optim.batch, optim.warmup, optim.decay, seed)
