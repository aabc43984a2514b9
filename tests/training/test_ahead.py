"""Batches read ahead are the batches that would have been read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pagoda.training.ahead import Ahead, Read
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.checkpoint import Scratch
from pagoda.training.history import History
from pagoda.training.loop import LoopSpec, train
from tests.training.steps import BATCH, CPU, LOOP, one_step, pixels, state, teacher_step


class Counted(Ahead):
    """Counts the batches that the thread had been told of."""

    hits = 0

    def take(self, rows: np.ndarray, read: Read) -> tuple[Tensor, ...]:
        self.hits += rows.tobytes() in self._reading
        return super().take(rows, read)


def test_a_forecast_is_used_and_a_wrong_one_is_not() -> None:
    images = pixels(50, 4)
    ahead = Counted()
    batches = ImageBatches(images, np.arange(50), CPU, ahead)
    plain = ImageBatches(images, np.arange(50), CPU)
    for told, asked, hits in ((3, 3, 1), (4, 5, 1), (6, 6, 2)):
        batches.prefetch(8, told)
        drawn = []
        for source in (batches, plain):
            torch.manual_seed(asked)
            drawn.append(source.draw(8))
        assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])
        assert ahead.hits == hits


def _trained(kind: str, folder: Path, ahead: Ahead | None) -> dict[str, torch.Tensor]:
    step = teacher_step() if kind == "teacher" else one_step()
    if kind == "teacher":
        step.batches = dataclasses.replace(step.batches, ahead=ahead)  # type: ignore[union-attr]
    else:
        step.pairs = dataclasses.replace(step.pairs, ahead=ahead)  # type: ignore[union-attr]
    spec: LoopSpec = dataclasses.replace(LOOP, images=4 * BATCH, save_every_s=1e9)
    scratch = Scratch(folder / "scratch", step.modules, step.optimizers)
    train(step, spec, scratch, lambda kept: History(folder / "h.jsonl", kept), lambda n: None,
          step.prefetch)  # fmt: skip
    return state(step)


def test_training_that_reads_ahead_gives_the_same_bits(tmp_path: Path) -> None:
    for kind in ("teacher", "one step"):
        ahead = Counted()
        plain = _trained(kind, tmp_path / kind / "plain", None)
        other = _trained(kind, tmp_path / kind / "ahead", ahead)
        assert all(torch.equal(value, other[key]) for key, value in plain.items())
        assert ahead.hits == 3  # all steps but the first


def test_pairs_are_read_by_rows() -> None:
    pairs = PairBatches(
        np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1), np.arange(6)[::-1].copy(),
        np.zeros(6, np.uint8), pixels(6, 2), np.arange(6), CPU,
    )  # fmt: skip
    latents, images = pairs.read(np.array([4, 0]))
    assert latents.flatten().tolist() == [4.0, 0.0]
    assert np.array_equal(images.numpy(), pixels(6, 2)[[1, 5]])
