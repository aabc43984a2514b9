"""Averages of weights over training: exponential, and by a power of time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pagoda import distributed
from pagoda.outputs import new_file
from pagoda.tensors import save_tensors
from pagoda.training import sharding
from pagoda.training.post_hoc import exponent, snapshot_name


class EMA:
    """Keeps ``model``, the average of a module's weights; buffers are copied.

    The decay is ramped, min(decay, (1 + t) / (10 + t)) after t updates, so that a short run does
    not remember its random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(module).eval().requires_grad_(False)
        self._source = module

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take one step towards the weights after optimiser step number ``step``, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        _approach(self.model, self._source, 1 - decay)


class PowerAverages:
    """Averages whose weight of the past grows as a power of time (Karras et al. 2024, section 3.1).

    After t steps the average is the integral of weights(tau) (gamma + 1) tau^gamma / t^(gamma + 1)
    over (0, t], weights being constant during a step: a step's decay is (1 - 1/t)^(gamma + 1).
    ``sigma_rel``, the standard deviation of that density in units of t, names a profile
    (:func:`pagoda.training.post_hoc.exponent`). Snapshots let any other be made afterwards.

    Args:
        module: whose weights are averaged; a copy of it is kept for each profile.
        profiles: sigma_rel of each average.
        steps: length of training.
        snapshots: how many of each average are written, at equal distances, the last at the end.
    """

    def __init__(
        self, module: nn.Module, profiles: Sequence[float], steps: int, snapshots: int
    ) -> None:
        self.folder: Path | None = None
        self.exponents = {sigma: exponent(sigma) for sigma in profiles}
        self.models = {sigma: copy.deepcopy(module).requires_grad_(False) for sigma in profiles}
        self.due = (
            {round(steps * (i + 1) / snapshots) for i in range(snapshots)} if profiles else ()
        )
        self._source = module

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The averages under names for checkpoints."""
        return {f"ema-{sigma:g}": model for sigma, model in self.models.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Go on after optimiser step number ``step``, from 0; write snapshots that are due.

        In a group the first process writes. A snapshot that is there already, from a run that was
        stopped after its last checkpoint, is overwritten with the same values.
        """
        t = step + 1
        for sigma, model in self.models.items():
            decay = (1 - 1 / t) ** (self.exponents[sigma] + 1)
            _approach(model, self._source, 1 - decay)
            if t in self.due and self.folder is not None:
                state = sharding.full_state_on_main(model.state_dict())
                if distributed.is_main_process():
                    _write(state, self.folder / snapshot_name(sigma, t))


def _approach(average: nn.Module, source: nn.Module, fraction: float) -> None:
    """Move an average a fraction of the way to the weights that train; each process its slices."""
    pairs = zip(average.parameters(), source.parameters(), strict=True)
    moving = [(sharding.local(a.data), sharding.local(s.data)) for a, s in pairs if s.requires_grad]
    torch._foreach_lerp_([a for a, _ in moving], [s for _, s in moving], fraction)
    for held, own in zip(average.buffers(), source.buffers(), strict=True):
        held.copy_(own)


def _write(state: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as partial:
        save_tensors(partial, state)
