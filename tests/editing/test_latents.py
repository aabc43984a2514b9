"""Arcs and shells in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pagoda.editing.latents import Shell, norms, shell_of, slerp


def test_the_arc_between_orthogonal_latents() -> None:
    a, b = torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 1, 1)
    a[:, 0], b[:, 1] = 5.0, 5.0
    for t in (0.0, 0.25, 0.5, 1.0):
        z = slerp(a, b, torch.tensor([t, t]))[:, :, 0, 0]
        wanted = 5 * torch.tensor([math.cos(t * math.pi / 2), math.sin(t * math.pi / 2), 0.0])
        torch.testing.assert_close(z, wanted.expand(2, 3))


def test_an_arc_keeps_the_norm_that_a_straight_line_loses() -> None:
    z = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    z = Shell(0.9, 0.9).keep(z)
    a, b = z[:4], z[4:]
    for t in (0.1, 0.5, 0.8):
        np.testing.assert_allclose(norms(slerp(a, b, torch.full((4,), t))), 0.9, rtol=1e-9)
    assert norms((a + b) / 2).max() < 0.75  # 0.9 / sqrt(2) for nearly orthogonal ends


def test_the_arc_from_a_latent_to_itself_stays_there() -> None:
    z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(slerp(z, z, torch.tensor(0.3).expand(2)), z)
    torch.testing.assert_close(slerp(z, 3 * z, torch.tensor(0.5).expand(2)), 2 * z)


def test_a_shell_moves_only_what_is_outside_along_its_direction() -> None:
    ones = torch.ones(3, 3, 2, 2)
    kept = Shell(0.8, 1.1).keep(ones * torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1, 1))
    assert norms(kept).tolist() == pytest.approx([0.8, 1.0, 1.1])
    torch.testing.assert_close(kept[1], ones[1])
    torch.testing.assert_close(Shell().keep(7 * ones), ones)


def test_the_shell_of_latents_leaves_out_both_tails() -> None:
    z = torch.ones(101, 3, 2, 2) * torch.arange(101).view(-1, 1, 1, 1)
    found = shell_of(z, outside=0.05)
    assert (found.low, found.high) == pytest.approx((5.0, 95.0))
