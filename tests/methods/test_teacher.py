"""Mirrors and labels that are not told: drawn once an image of the training, from its seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pagoda.methods.teacher import Teacher
from pagoda.networks.unet import NO_CLASS
from pagoda.training.batches import ImageBatches
from pagoda.training.draw import GlobalDraw
from tests.methods.small import CPU, make

BATCH, ROWS = 400, 40


class _Spy(nn.Module):
    """A denoiser that keeps what it is shown."""

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        self.seen = (x, sigma, labels)
        return x


def _shown(seed: int, dropout: float) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy images, noise levels and labels that the network is shown in one step."""
    images = np.zeros((ROWS, 3, 8, 8), np.uint8)
    images[..., :4] = 255  # light on the left: dark there only if mirrored
    method = make("teacher", label_dropout=dropout, **{"optim.batch": BATCH, "optim.images": BATCH})
    assert isinstance(method, Teacher)
    method.images = ImageBatches(stores=[images], labels=np.arange(ROWS) % 4, device=CPU)
    method.player.network = spy = _Spy()
    torch.manual_seed(seed)
    next(method.step(GlobalDraw(CPU), 0, 0.0))
    return spy.seen


def test_a_fraction_of_the_labels_is_not_told_and_a_seed_fixes_which() -> None:
    first, again = (_shown(3, 0.25) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    untold = first[2] == NO_CLASS
    assert abs(untold.float().mean().item() - 0.25) < 4 * (0.25 * 0.75 / BATCH) ** 0.5
    assert not torch.equal(untold, _shown(4, 0.25)[2] == NO_CLASS)
    assert torch.equal(first[2][~untold], _shown(3, 0.0)[2][~untold])


def test_without_dropout_nothing_is_drawn_for_it() -> None:
    """The random numbers are those of a training that knows no label dropout, bit for bit."""
    x, sigma, labels = _shown(3, 0.0)
    torch.manual_seed(3)
    rows, mirror = torch.randint(ROWS, (BATCH,)), torch.rand(BATCH) < 0.5
    assert torch.equal(labels, rows % 4)
    assert torch.equal(sigma, (torch.randn(BATCH) * 1.2 - 1.2).exp())
    clean = x - sigma[:, None, None, None] * torch.empty_like(x).normal_()
    assert torch.equal(clean[:, :, :, 0].mean((1, 2)) < 0, mirror)
