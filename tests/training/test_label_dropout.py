"""Mirrors and labels that are not told: drawn once an image of the training, from its seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pagoda.diffusion.edm import sample_sigma
from pagoda.networks.unet import NO_CLASS
from pagoda.training.batches import ImageBatches
from tests.training.steps import CPU, teacher_step

BATCH, ROWS = 400, 40


def _shown(seed: int, monkeypatch: pytest.MonkeyPatch, dropout: float) -> tuple[Tensor, ...]:
    """Images, labels, noise levels and noise that the network is shown in one step."""
    images = np.zeros((ROWS, 3, 8, 8), np.uint8)
    images[..., :4] = 255  # light on the left: dark there only if mirrored
    step = teacher_step(label_dropout=dropout)
    step.batch, step.batches = BATCH, ImageBatches(images, np.arange(ROWS) % 4, CPU)
    seen: list[tuple[Tensor, ...]] = []

    def loss(*rows: Any) -> Tensor:
        seen.append(rows[:4])
        return torch.zeros((), requires_grad=True)

    monkeypatch.setattr(step, "_loss", loss)
    torch.manual_seed(seed)
    step(0, 0.0)
    return seen[0]


def test_a_share_of_the_labels_is_not_told_and_a_seed_fixes_which(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, again = (_shown(3, monkeypatch, 0.25) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    untold = first[1] == NO_CLASS
    assert abs(untold.float().mean().item() - 0.25) < 4 * (0.25 * 0.75 / BATCH) ** 0.5
    assert not torch.equal(untold, _shown(4, monkeypatch, 0.25)[1] == NO_CLASS)
    told = _shown(3, monkeypatch, 0.0)
    assert torch.equal(first[0], told[0])  # images and their mirrors stay what they are
    assert torch.equal(first[1][~untold], told[1][~untold])


def test_without_dropout_nothing_is_drawn_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random numbers are those of a training that knows no label dropout, bit for bit."""
    images, labels, sigma, noise = _shown(3, monkeypatch, 0.0)
    torch.manual_seed(3)
    rows = torch.randint(ROWS, (BATCH,))
    mirror = torch.rand(BATCH) < 0.5
    assert torch.equal(labels, rows % 4)
    assert torch.equal(images[:, 0, 0, 0] < 0, mirror)
    assert torch.equal(sigma, sample_sigma(BATCH, -1.2, 1.2))
    assert torch.equal(noise, torch.empty_like(noise).normal_())
