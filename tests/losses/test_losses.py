"""Every loss against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pagoda.losses.adversarial import (
    discriminator_losses,
    generator_loss,
    r1_penalty,
)
from pagoda.losses.augment import Augmentation, diff_augment
from pagoda.losses.denoising import denoising_loss
from pagoda.losses.distances import PixelDistance, feature_distance


def test_the_posterior_mean_minimises_the_denoising_loss() -> None:
    """x ~ N(m, v I): E || D - x ||^2 = v s^2 / (v + s^2); times lambda it is 1 if v = sd^2."""
    mean, sd, n = 0.2, 0.5, 4000
    images = mean + sd * torch.randn(n, 3, 4, 4, dtype=torch.float64)
    noise = torch.randn_like(images)
    sigma = torch.rand(n, dtype=torch.float64) * 2 + 0.1

    def loss(gain: float, offset: float) -> float:
        def denoiser(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
            s = sigma[:, None, None, None]
            return mean + gain * sd**2 / (sd**2 + s**2) * (x - mean) + offset

        labels = torch.zeros(n, dtype=torch.long)
        return denoising_loss(denoiser, images, labels, sigma, noise, sd).item()

    # The squared errors are chi^2 with 48 n degrees of freedom: relative deviation sqrt(2 / 48 n).
    assert loss(1, 0) == pytest.approx(1, abs=4 * math.sqrt(2 / (n * 48)))
    for gain, offset in ((0.9, 0), (1.1, 0), (1, 0.1), (1, -0.1)):
        assert loss(gain, offset) > loss(1, 0)


def discriminator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    return torch.stack(discriminator_losses(kind, real, fake)).sum()


def test_discriminator_losses() -> None:
    zero = torch.zeros(5)
    assert discriminator_loss("non_saturating", zero, zero).item() == pytest.approx(2 * math.log(2))
    assert discriminator_loss("hinge", zero, zero) == 2
    assert discriminator_loss("hinge", zero + 1.5, zero - 1) == 0
    real, fake = torch.tensor([0.5, 3.0]), torch.tensor([-0.5, 2.0])
    assert discriminator_loss("hinge", real, fake).item() == pytest.approx((0.5 + 0.5 + 3) / 2)
    entropy = -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean())
    torch.testing.assert_close(discriminator_loss("non_saturating", real, fake), entropy)


def test_generator_losses() -> None:
    fake = torch.tensor([-0.5, 2.0])
    assert generator_loss("hinge", fake).item() == pytest.approx(-0.75)
    torch.testing.assert_close(generator_loss("non_saturating", fake), -fake.sigmoid().log().mean())


@pytest.mark.parametrize("kind", ["hinge", "non_saturating"])
def test_gradients_pull_apart_and_the_generator_up(kind: str) -> None:
    real, fake = (torch.zeros(3, requires_grad=True) for _ in range(2))
    discriminator_loss(kind, real, fake).backward()
    assert real.grad is not None and fake.grad is not None
    assert (real.grad < 0).all() and (fake.grad > 0).all()
    logits = torch.zeros(3, requires_grad=True)
    generator_loss(kind, logits).backward()
    assert logits.grad is not None and (logits.grad < 0).all()


def test_r1_of_a_linear_discriminator_is_its_squared_norm() -> None:
    weight = torch.randn(3, 4, 4, requires_grad=True)
    images = torch.randn(6, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty((images * weight).sum((1, 2, 3)), images)
    torch.testing.assert_close(penalty, weight.square().sum())
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, 2 * weight)


def augmented(x: Tensor, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return diff_augment(x, Augmentation.draw(len(x), x.shape[-1], random))


def test_augmentation_is_a_function_of_the_seed() -> None:
    x = torch.rand(8, 3, 16, 16) * 2 - 1
    assert torch.equal(
        augmented(x, 3),
        augmented(x, 3),
    )
    assert not torch.equal(
        augmented(x, 3),
        augmented(x, 4),
    )
    assert augmented(x, 3).shape == x.shape


def test_gradient_passes_through_the_augmentation() -> None:
    x = (torch.rand(4, 3, 8, 8, dtype=torch.float64) * 2 - 1).requires_grad_(True)
    augmented(x, 1).square().sum().backward()
    assert x.grad is not None and (x.grad.flatten(1).abs().sum(1) > 0).all()
    direction, step = torch.randn_like(x), 1e-6
    with torch.no_grad():
        up, down = (augmented(x + h * direction, 1).square().sum() for h in (step, -step))
    slope = (up - down) / (2 * step)
    torch.testing.assert_close(slope, (x.grad * direction).sum(), rtol=1e-5, atol=1e-5)


def test_translation_reaches_an_eighth_of_the_side() -> None:
    """A bright column in flat images; brightness and contrast do not move it."""
    x = torch.zeros(256, 3, 32, 32)
    x[..., 16] = 50.0
    out = augmented(x, 0).mean(1)
    columns = out.amax(1).argmax(1) - 16  # the largest over rows: a hole never hides a column
    assert columns.min() == -4 and columns.max() == 4


@pytest.mark.parametrize(("resolution", "side"), [(32, 6), (64, 13), (128, 26), (28, 6), (10, 2)])
def test_the_hole_has_a_fifth_of_the_side(resolution: int, side: int) -> None:
    """DiffAugment: int(0.2 r + 0.5) pixels, whole where no border cuts it."""
    drawn = Augmentation.draw(400, resolution, torch.Generator().manual_seed(0))
    plain = drawn.map(torch.zeros_like)  # of translation; the colour that changes nothing is 1/2
    held = Augmentation(plain.colour + 0.5, plain.shift, drawn.centre)
    holes = diff_augment(torch.ones(400, 1, resolution, resolution), held)[:, 0] == 0
    assert holes.any(2).sum(1).max() == side and holes.any(1).sum(1).max() == side
    assert (holes.any(2).sum(1) * holes.any(1).sum(1) == holes.sum((1, 2))).all()
    reached = holes.any(0)
    assert reached.all()  # every pixel is hidden now and then, those at the borders too
    assert holes.any(2).sum(1).min() == (side + 1) // 2  # a centre on the border


def test_pixel_distances_are_means_of_squares_and_of_absolute_values() -> None:
    a, b = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), -0.5)
    b[0] = 0.25
    assert PixelDistance()(a, a) == PixelDistance("l1")(a, a) == 0
    assert PixelDistance()(a, b).item() == pytest.approx((0.25**2 + 0.5**2) / 2)
    assert PixelDistance("l1")(a, b).item() == pytest.approx(0.375)


def test_feature_distance() -> None:
    maps = [torch.randn(2, 5, 4, 4), torch.randn(2, 3, 2, 2)]
    other = [torch.randn(2, 5, 4, 4), torch.randn(2, 3, 2, 2)]
    assert feature_distance(maps, maps) == 0
    assert feature_distance(maps, other) > 0.1
    scaled = [m * 7 for m in maps]
    torch.testing.assert_close(feature_distance(scaled, other), feature_distance(maps, other))
    opposite = [-m for m in maps]
    assert feature_distance(maps, opposite).item() == pytest.approx(4, rel=1e-4)
