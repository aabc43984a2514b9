"""Memory of a step, counted on shapes: by hand, and as it grows with the batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pagoda.networks.layers import Frozen
from pagoda.pipeline.stages.counters import META, kept_bytes
from pagoda.training.draw import GlobalDraw
from pagoda.training.method import Loss, Method
from pagoda.training.player import Player
from pagoda.training.settings import OptimConfig

N, WIDTHS = 7, (3, 5, 2)


class Losses(Method):
    """A two-layer network whose step has the losses that ``together`` says, in turn or at once."""

    def __init__(self, count: int, *, together: bool) -> None:
        ins, hidden, outs = WIDTHS
        with META:
            network = nn.Sequential(nn.Linear(ins, hidden), nn.ReLU(), nn.Linear(hidden, outs))
        self.players = {"network": Player(network, OptimConfig(N, N, 0.1), META)}
        self.count, self.together = count, together

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """Each loss has an input of its own."""
        network = self.players["network"].network

        def one() -> Tensor:
            made: Tensor = network(torch.zeros(N, WIDTHS[0], device=META))
            return made.sum()

        if self.together:
            yield Loss("network", torch.stack([one() for _ in range(self.count)]).sum())
        else:
            for k in range(self.count):
                yield Loss("network", one(), last=k + 1 == self.count)


def test_what_waits_is_the_input_and_the_hidden_layer_once() -> None:
    """The rectifier and the layer after it keep one tensor between them, and weights count not."""
    one = 4 * N * (WIDTHS[0] + WIDTHS[1])
    assert kept_bytes(Losses(1, together=True), 0, 0.5) == one
    assert kept_bytes(Losses(3, together=True), 0, 0.5) == 3 * one
    assert kept_bytes(Losses(3, together=False), 0, 0.5) == one  # freed by each backward pass


def test_weights_of_a_frozen_network_wait_for_nothing() -> None:
    """Behind the trained one, its own weights are kept for the gradient of its input."""
    method = Losses(1, together=True)
    with META:
        frozen = Frozen(nn.Linear(WIDTHS[2], 1))
    network = method.players["network"].network
    assert isinstance(network, nn.Sequential)
    one = kept_bytes(method, 0, 0.5)
    network.append(Behind(frozen))
    assert kept_bytes(method, 0, 0.5) == one


class Behind(nn.Module):
    """Calls a frozen network."""

    def __init__(self, held: Frozen) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: Tensor) -> Tensor:
        """Through it."""
        made: Tensor = self.held.frozen(x)
        return made
