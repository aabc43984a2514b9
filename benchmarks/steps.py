"""Training steps outside of a stage, for measurements."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from pagoda.networks.denoiser import Denoiser
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.draw import GlobalDraw
from pagoda.training.loop import run_step
from pagoda.training.method import Given, Method, find_method
from pagoda.training.settings import DiffusionConfig, OptimConfig

_DIFFUSION = DiffusionConfig(0.5, 0.002, 80.0, 7.0, -1.2, 1.2)


@dataclass
class Steps:
    """A method whose steps are taken one by one."""

    method: Method
    device: torch.device

    def __call__(self, i: int, progress: float) -> float:
        """Take step ``i``; its loss, for which the device is waited."""
        return float(run_step(self.method, GlobalDraw(self.device), i, progress)[0]["loss"])


def steps(
    name: str, network: torch.nn.Module, images: ImageBatches, optim: dict[str, Any],
    pairs: PairBatches | None = None, teacher: Denoiser | None = None, **settings: Any,
) -> Steps:  # fmt: skip
    """A method on a network; optimiser and settings beyond the defaults."""
    method = find_method(name)
    own = OptimConfig(**{"images": optim["batch"] * 1000, "lr": 1e-4} | optim)
    asked = None if teacher is None else lambda: copy.deepcopy(teacher)
    given = Given(network, images, images.device, 0, _DIFFUSION, pairs, asked)
    return Steps(method(method.Config(own, **settings), given), images.device)
