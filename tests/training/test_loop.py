"""The training loop: its schedule, and how trouble and signals end it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from pagoda.errors import PagodaError
from pagoda.training import loop
from pagoda.training.draw import GlobalDraw
from pagoda.training.method import Loss, Method
from pagoda.training.player import Player
from pagoda.training.settings import OptimConfig
from tests.methods.small import CPU

STEPS, BATCH = 6, 4


@dataclass(frozen=True)
class _Config:
    optim: OptimConfig


class Toy(Method):
    """Something to train whose loss and signals a test decides."""

    def __init__(self, act: Callable[[int], float]) -> None:
        self.config = _Config(OptimConfig(STEPS * BATCH, BATCH, 0.5, warmup=0.2, decay=0.5, ema=0))
        self.player = Player(nn.Linear(2, 2), self.config.optim, CPU)
        self.players = {"net": self.player}
        self.act, self.rates = act, list[float]()

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        draw.uniform(1)
        assert progress == i / STEPS
        self.rates.append(self.player.rate)
        yield Loss("net", self.player.network(torch.ones(BATCH, 2)).mean() * 0 + self.act(i))


def go(toy: Toy, folder: Path, monkeypatch: pytest.MonkeyPatch, save_every_s: float = -1.0) -> Toy:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", save_every_s)
    loop.train(
        toy, toy.config.optim, name="toy", seed=3, device=CPU, folder=folder / "scratch",
        curves=folder / "h.jsonl",
    )  # fmt: skip
    return toy


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PagodaError) as error:
        go(Toy(lambda i: value if i == 3 else 1.0), tmp_path, monkeypatch)
    message = str(error.value)
    assert "\n" not in message and "toy: loss of the net is not finite at step 3" in message
    assert "grad_norm" not in message
    assert max(p.stem for p in (tmp_path / "scratch").glob("*.safetensors")) == "000000003"


def test_the_first_bad_step_is_told_though_nothing_was_logged_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_ROWS", 2)
    with pytest.raises(PagodaError, match="loss of the net is not finite at step 1 "):
        go(Toy(lambda i: float("nan") if i == 1 else 1.0), tmp_path, monkeypatch, 1e9)


@pytest.mark.parametrize("stop_at", [2, STEPS - 1])
def test_weights_that_are_not_finite_are_never_saved(
    stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last update breaks one average's weights: no statistic of the step can show it."""

    def act(i: int) -> float:
        if i == stop_at:
            with torch.no_grad():
                average.bias[1] = float("inf")
        return 1.0

    toy = Toy(act)
    toy.modules = {"average": (average := nn.Linear(2, 2))}
    with pytest.raises(PagodaError) as error:
        go(toy, tmp_path, monkeypatch)
    assert str(error.value) == (
        f"toy: 1 of 7 tensors of weights are not finite after step {stop_at + 1} (average.bias); "
        f"the last checkpoint is kept in {tmp_path / 'scratch'}; lower the learning rate or use "
        "fp32, then run again"
    )
    newest = max(p.stem for p in (tmp_path / "scratch").glob("*.safetensors"))
    assert newest == f"{stop_at:09d}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_its_step(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def act(i: int) -> float:
        if i == 2:
            os.kill(os.getpid(), number)
        done.append(i)
        return 1.0

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        go(Toy(act), tmp_path, monkeypatch, 1e9)
    assert done == [0, 1, 2]  # the step in hand was finished, and no other began
    assert [p.name for p in (tmp_path / "scratch").glob("*.safetensors")] == [
        "000000003.safetensors"
    ]
    assert signal.getsignal(number) is before
    go(Toy(act), tmp_path, monkeypatch, 1e9)
    assert done == list(range(STEPS))


def test_every_rate_follows_the_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = go(Toy(lambda i: 1.0), tmp_path, monkeypatch)
    optim = toy.config.optim
    assert toy.rates == pytest.approx([0.5 * optim.rate(i / STEPS) for i in range(STEPS)])


def test_schedule_warms_up_stays_and_falls_as_a_root() -> None:
    spec = OptimConfig(1000, 1, 1.0, warmup=0.1, decay=0.4)
    rates = [spec.rate(i / spec.steps) for i in range(spec.steps)]
    assert rates[:100] == pytest.approx([(i + 1) / 100 for i in range(100)])
    assert rates[100:601] == pytest.approx([1.0] * 501)
    assert rates[600:] == pytest.approx([((1000 - i) / 400) ** 0.5 for i in range(600, 1000)])
    assert 0 < rates[-1] < 0.051
    flat = OptimConfig(10, 1, 1.0)
    assert {flat.rate(i / 10) for i in range(10)} == {1.0}
