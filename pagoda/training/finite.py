"""Where training first went wrong, found without waiting for the device at every step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pagoda import distributed
from pagoda.training.method import Loss

_PLACES = 1 << 12  # losses and gradients of a step that are told apart
_NONE = float("inf")


@dataclass(frozen=True)
class Trouble:
    """The first value that was not finite.

    Attributes:
        what: whose loss or gradient it is.
        step: at which it was met.
    """

    what: str
    step: int


class FirstBad:
    """The first loss, of any player, or gradient of the main one, that was not finite.

    Args:
        players: their names.
    """

    def __init__(self, players: Iterable[str]) -> None:
        self._players = list(players)
        self._found: Tensor | None = None  # place, player, gradient?, lowest and highest level
        self._step, self._count = 0, 0

    def begin(self, step: int) -> None:
        """What is seen from now on is of that step."""
        self._step, self._count = step, 0

    def loss(self, loss: Loss) -> None:
        """See a loss and, where its network sees noise, the noise levels of bad outputs; of all, if
        every output is finite and the loss is not.
        """
        low = high = loss.value.detach().new_zeros((), dtype=torch.float64)
        if loss.noisy:
            sigma = torch.cat([s.detach().double().flatten() for s, _ in loss.noisy])
            bad = ~torch.cat([out.detach().flatten(1).isfinite().all(1) if out.ndim > 1
                              else out.detach().isfinite() for _, out in loss.noisy])  # fmt: skip
            bad = bad | ~bad.any()
            low, high = sigma.masked_fill(~bad, _NONE).min(), sigma.masked_fill(~bad, -_NONE).max()
        self._see(loss.value.detach(), self._players.index(loss.player), 0, low, high)

    def gradient(self, player: str, norm: Tensor) -> None:
        """See the norm of a player's gradient."""
        none = norm.new_zeros((), dtype=torch.float64)
        self._see(norm, self._players.index(player), 1, none, none)

    def _see(self, value: Tensor, player: int, kind: int, low: Tensor, high: Tensor) -> None:
        place = self._step * _PLACES + self._count
        self._count += 1
        facts = [torch.full_like(low, number) for number in (place, player, kind)]
        here = torch.stack([*facts, low, high])
        if self._found is None:
            self._found = torch.full_like(here, _NONE)
        new = self._found[0].isinf() & ~value.to(self._found.device).isfinite().all()
        self._found = torch.where(new, here, self._found)

    def first(self) -> Trouble | None:
        """What was met first, the same on all processes of a group; None: all was finite."""
        mine = [_NONE] * 5 if self._found is None else self._found.tolist()
        place = -distributed.all_reduce_max([-mine[0]])[0]
        if math.isinf(place):
            return None
        here = mine[0] == place
        told = [mine[1], mine[2], -mine[3], mine[4]] if here else [-_NONE] * 4
        player, kind, low, high = distributed.all_reduce_max(told)
        what = f"{'gradient' if kind else 'loss'} of the {self._players[int(player)]}"
        if high > 0:
            low = -low
            levels = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
            what += f" at noise level{'' if low == high else 's'} {levels}"
        return Trouble(what.replace("_", " "), int(place) // _PLACES)
