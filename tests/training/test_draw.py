"""Draws of a step: their distribution, and what processes of a group have in common."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch.nn import functional as F

from pagoda import distributed
from pagoda.training.draw import GlobalDraw
from tests.group import log, run_group
from tests.methods.small import CPU


def test_training_noise_is_log_normal() -> None:
    torch.manual_seed(0)
    log = GlobalDraw(CPU).sigma(40_000, p_mean=-1.2, p_std=0.7).log().double()
    # Four standard errors of mean and standard deviation.
    assert abs(log.mean().item() + 1.2) < 4 * 0.7 / 200
    assert abs(log.std().item() - 0.7) < 4 * 0.7 / math.sqrt(2 * 40_000)
    fraction = (log < -1.2 + 0.7).double().mean().item()
    assert abs(fraction - 0.5 * (1 + math.erf(1 / math.sqrt(2)))) < 4 * math.sqrt(0.84 * 0.16) / 200


def _draw_around_dropout() -> None:
    """Batches before and after dropout of as many numbers as a process has rows."""
    with distributed.group():
        torch.manual_seed(5)
        draw = GlobalDraw(CPU)
        first = draw.normal(7, 3)
        mask = F.dropout(torch.ones(len(first), 1000), 0.5)
        later = draw.uniform(7, 3), draw.sigma(7, 0.0, 1.0)
        kept = {"first": first, "mask": mask, "later": later}
        torch.save(kept, f"{distributed.world_size()}-{distributed.rank()}.pt")


def test_processes_share_their_draws_and_not_their_dropout(tmp_path: Path) -> None:
    for world in (1, 2):
        statuses = run_group(world, _draw_around_dropout, folder=tmp_path)
        assert statuses == [0] * world, log(tmp_path)
    alone, *parts = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    assert torch.equal(torch.cat([part["first"] for part in parts]), alone["first"])
    a, b = (part["later"] for part in parts)
    assert [len(x) for x in a] == [3, 3] and [len(x) for x in b] == [4, 4]
    # Other masks were drawn in between alone, so later batches are others than those of a group.
    torch.manual_seed(5)
    torch.randn(7, 3)
    for mine, other, expected in zip(a, b, (torch.rand(7, 3), torch.randn(7).exp()), strict=True):
        assert torch.equal(torch.cat([mine, other]), expected)
    masks = [part["mask"][:3] > 0 for part in parts]
    assert abs((masks[0] == masks[1]).double().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(3000)
