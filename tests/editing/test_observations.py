"""Observations against the algebra of a pseudo-inverse, masks against what they keep."""

from __future__ import annotations

import pytest
import torch

from pagoda.editing.observations import (
    Observation,
    averaged,
    boxes,
    check_kept,
    luminance,
    masked,
    mean_filled,
    pasted,
    smoothly_filled,
)
from pagoda.errors import PagodaError

ALL = [averaged(4), luminance(), masked(boxes("random", 3, 16, 1))]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("observation", ALL, ids=lambda o: o.name)
def test_the_pseudo_inverse_is_one(observation: Observation) -> None:
    """Moore and Penrose: A A+ A = A, A+ A A+ = A+, and A+ A is symmetric (also linear)."""
    x, other = noise(3, 3, 16, 16), noise(3, 3, 16, 16).flip(3)
    see, back = observation.apply, observation.pseudo_inverse
    torch.testing.assert_close(see(back(see(x))), see(x))
    torch.testing.assert_close(back(see(back(see(x)))), back(see(x)))
    torch.testing.assert_close((back(see(x)) * other).sum(), (x * back(see(other))).sum())
    torch.testing.assert_close(see(2 * x - other), 2 * see(x) - see(other))


@pytest.mark.parametrize("observation", ALL, ids=lambda o: o.name)
def test_a_consistent_image_is_seen_as_y_and_is_the_nearest(observation: Observation) -> None:
    x, seen = noise(3, 3, 16, 16), observation.apply(noise(3, 3, 16, 16).flip(2))
    made = observation.consistent(x, seen)
    assert observation.errors(made, seen).max() < 1e-12 < observation.errors(x, seen).min()
    torch.testing.assert_close(observation.consistent(made, seen), made)
    other = noise(3, 3, 16, 16).transpose(2, 3)  # any other one that is seen as y is further away
    other = observation.consistent(other, seen)
    assert ((made - x).square().sum((1, 2, 3)) < (other - x).square().sum((1, 2, 3))).all()


def test_an_average_is_the_mean_of_its_box() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    wanted = torch.tensor([[2.5, 4.5], [10.5, 12.5]]).expand(1, 3, 2, 2)
    torch.testing.assert_close(averaged(2).apply(x), wanted)
    errors = averaged(2).errors(x, wanted + torch.tensor(0.25))
    torch.testing.assert_close(errors, torch.tensor([0.25]))


def test_each_mask_is_of_its_images_in_a_row() -> None:
    kept = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    seen = masked(kept).apply(torch.ones(6, 3, 2, 2))
    assert seen.sum((1, 2, 3)).tolist() == [0, 0, 0, 12, 12, 12]


@pytest.mark.parametrize("seam", [0, 2])
def test_a_mask_of_ones_gives_the_images_back(seam: int) -> None:
    x, wrong = noise(2, 3, 8, 8), noise(2, 3, 8, 8).flip(0) * 1e9
    assert torch.equal(pasted(wrong, x, torch.ones(1, 1, 8, 8).double(), seam), x)


def test_a_seam_rises_inside_what_is_kept() -> None:
    kept = torch.ones(1, 1, 1, 8)
    kept[..., :3] = 0
    made = pasted(torch.zeros(1, 3, 1, 8), torch.ones(1, 3, 1, 8), kept, seam=2)
    torch.testing.assert_close(made[0, 0, 0], torch.tensor([0, 0, 0, 1 / 3, 2 / 3, 1, 1, 1]))
    hard = pasted(torch.zeros(1, 3, 1, 8), torch.ones(1, 3, 1, 8), kept)
    assert hard[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_fillings_keep_what_is_kept_and_continue_one_colour() -> None:
    kept = boxes("centre", 2, 9) * boxes("random", 2, 9, 3)
    x = noise(2, 3, 9, 9)
    for fill in (mean_filled, smoothly_filled):
        made = fill(x, kept.double())
        held = kept.expand_as(x) > 0
        assert torch.equal(made[held], x[held]) and made.isfinite().all()
        grey = torch.full_like(x, 0.3)
        torch.testing.assert_close(fill(grey * kept, kept.double()), grey)
    torch.testing.assert_close(
        mean_filled(x, kept.double())[1, :, 4, 4], x[1][:, kept[1, 0] > 0].mean(1)
    )


def test_a_smooth_filling_follows_a_slope_that_a_mean_cuts_off() -> None:
    ramp = torch.linspace(-1, 1, 32, dtype=torch.float64).expand(1, 3, 32, 32)
    kept = boxes("centre", 1, 32).double()
    off = [(fill(ramp, kept) - ramp).abs().max() for fill in (smoothly_filled, mean_filled)]
    assert off[0] < off[1] / 2


def test_masks_hide_what_they_say() -> None:
    assert (1 - boxes("centre", 1, 32)).sum() == 16 * 16
    assert (1 - boxes("half", 1, 32))[..., 16:].all() and boxes("half", 1, 32)[..., :16].all()
    drawn = boxes("random", 3, 32, seed=5)
    assert (1 - drawn).sum((1, 2, 3)).tolist() == [int(0.7 * 1024)] * 3
    assert not torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(boxes("random", 3, 32, seed=5), drawn)
    with pytest.raises(PagodaError, match="no mask 'star'; there are centre, half and random"):
        boxes("star", 1, 8)


def test_masks_of_another_size_or_of_nothing_are_refused() -> None:
    x = torch.zeros(2, 3, 8, 8)
    for shape in ((8, 8), (1, 1, 8, 8), (2, 8, 8), (2, 1, 8, 8)):
        assert check_kept(torch.ones(shape, dtype=torch.bool), x).shape[1:] == (1, 8, 8)
    for shape in ((8, 7), (3, 8, 8), (2, 3, 8, 8)):
        with pytest.raises(PagodaError, match="the mask is of shape"):
            check_kept(torch.ones(shape), x)
    with pytest.raises(PagodaError, match="keeps no pixel"):
        check_kept(torch.zeros(8, 8), x)
