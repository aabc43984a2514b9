"""The training loop: its schedule, and how trouble and signals end it."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pagoda.errors import PagodaError
from pagoda.training.loop import LoopSpec
from tests.training.steps import BATCH, LOOP, STEPS, go


class Toy:
    """Something to train whose statistics and signals a test decides."""

    def __init__(self, act: Callable[[int], float]) -> None:
        self.net = nn.Linear(2, 2)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.5)
        self.modules: dict[str, nn.Module] = {"net": self.net}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"net": self.optimizer}
        self.act, self.rates = act, list[float]()

    def __call__(self, step: int, progress: float) -> dict[str, Tensor | float]:
        assert progress == step / STEPS
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        return {"loss": self.act(step), "grad_norm": 1.0}

    def rows(self) -> np.ndarray:
        return torch.randint(100, (BATCH,)).numpy()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training(value: float, tmp_path: Path) -> None:
    with pytest.raises(PagodaError) as error:
        go(lambda: Toy(lambda i: value if i == 3 else 1.0), tmp_path)
    message = str(error.value)
    assert "\n" not in message and "toy: loss is not finite at step 3" in message
    assert "grad_norm" not in message
    assert max(p.stem for p in (tmp_path / "scratch").glob("*.safetensors")) == "000000003"


@pytest.mark.parametrize("stop_at", [2, STEPS - 1])
def test_weights_that_are_not_finite_are_never_saved(stop_at: int, tmp_path: Path) -> None:
    """The last update breaks one player's weights: no statistic of the step can show it."""
    toy = Toy(lambda i: 1.0)
    toy.modules["average"] = average = nn.Linear(2, 2)

    def act(i: int) -> float:
        if i == stop_at:
            with torch.no_grad():
                average.bias[1] = float("inf")
        return 1.0

    toy.act = act
    with pytest.raises(PagodaError) as error:
        go(lambda: toy, tmp_path)
    assert str(error.value) == (
        f"toy: 1 of 4 tensors of weights are not finite after step {stop_at + 1} (average.bias); "
        f"the last checkpoint is kept in {tmp_path / 'scratch'}; lower the learning rate or use "
        "fp32, then run again"
    )
    newest = max(p.stem for p in (tmp_path / "scratch").glob("*.safetensors"))
    assert newest == f"{stop_at:09d}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_its_step(number: signal.Signals, tmp_path: Path) -> None:
    done: list[int] = []

    def act(i: int) -> float:
        if i == 2:
            os.kill(os.getpid(), number)
        done.append(i)
        return 1.0

    before = signal.getsignal(number)
    never = dataclasses.replace(LOOP, save_every_s=1e9)
    with pytest.raises(KeyboardInterrupt):
        go(lambda: Toy(act), tmp_path, spec=never)
    assert done == [0, 1, 2]  # the step in hand was finished, and no other began
    assert [p.name for p in (tmp_path / "scratch").glob("*.safetensors")] == [
        "000000003.safetensors"
    ]
    assert signal.getsignal(number) is before
    go(lambda: Toy(act), tmp_path, spec=never)
    assert done == list(range(STEPS))


def test_every_rate_follows_the_schedule(tmp_path: Path) -> None:
    step = go(lambda: Toy(lambda i: 1.0), tmp_path)
    assert isinstance(step, Toy)
    assert step.rates == pytest.approx([0.5 * LOOP.rate(i / STEPS) for i in range(STEPS)])


def test_schedule_warms_up_stays_and_falls_as_a_root() -> None:
    spec = LoopSpec("x", images=1000, batch=1, warmup=0.1, decay=0.4, seed=0)
    rates = [spec.rate(i / spec.steps) for i in range(spec.steps)]
    assert rates[:100] == pytest.approx([(i + 1) / 100 for i in range(100)])
    assert rates[100:601] == pytest.approx([1.0] * 501)
    assert rates[600:] == pytest.approx([((1000 - i) / 400) ** 0.5 for i in range(600, 1000)])
    assert 0 < rates[-1] < 0.051
    flat = LoopSpec("x", images=10, batch=1, warmup=0.0, decay=0.0, seed=0)
    assert {flat.rate(i / 10) for i in range(10)} == {1.0}
