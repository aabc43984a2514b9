"""The weight of the guidance as an input of networks: closed forms and special cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pagoda.errors import PagodaError
from pagoda.networks.discriminators import ConvDiscriminator
from pagoda.networks.generator import Generator, build_generator, grow, load_generator
from pagoda.networks.guidance import GuidedDiscriminator, WeightEstimator, build_estimator
from pagoda.networks.layers import WeightEmbedding
from pagoda.networks.unet import UNetSpec

SPEC = UNetSpec(8, 8, (1, 2), 1, (4,), 8, 0.0, 4, 1.0)


def generator(guidance: tuple[float, float] | None = (1.0, 4.0)) -> Generator:
    torch.manual_seed(0)
    made = Generator(SPEC, [], sigma_max=80.0, sigma_data=0.5, output_scale=1.0, guidance=guidance)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return made.eval()


def test_the_embedding_is_that_of_a_hundred_times_the_weight() -> None:
    embedding = WeightEmbedding(4, 6, asleep=False).double()
    omega = torch.tensor([1.0, 2.5], dtype=torch.float64)
    waves = torch.tensor([
        [math.cos(100 * w), math.cos(w), math.sin(100 * w), math.sin(w)] for w in omega.tolist()
    ], dtype=torch.float64)  # fmt: skip
    expected = embedding.weight_out(torch.nn.functional.silu(embedding.weight_in(waves)))
    torch.testing.assert_close(embedding(omega), expected)
    assert not WeightEmbedding(4, 6)(omega.float()).any()


def test_a_generator_without_weights_has_the_card_and_parameters_of_old() -> None:
    plain = generator(None)
    assert "told_weights" not in plain.card()
    assert not [name for name in plain.state_dict() if "weight_embedding" in name]
    with pytest.raises(PagodaError, match="told no weight of guidance"):
        plain(torch.randn(1, 3, 8, 8), torch.tensor([0]), omega=torch.ones(1))


def test_weights_change_images_each_its_own() -> None:
    made, z, y = generator(), torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 2])
    omega = torch.tensor([1.0, 2.0, 4.0])
    out = made(z, y, omega=omega)
    alone = [made(z[i : i + 1], y[i : i + 1], omega=omega[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(out, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert (out[1] - made(z, y)[1]).abs().max() > 1e-3
    torch.testing.assert_close(made(z, y)[0], out[0], rtol=1e-4, atol=1e-5)  # 1 unless it is told


@pytest.mark.parametrize(
    ("known", "usual"), [((1.0, 4.0), 1.0), ((2.0, 4.0), 2.0), ((0.0, 0.5), 0.5)]
)
def test_the_usual_weight_is_none_or_the_nearest_to_it(
    known: tuple[float, float], usual: float
) -> None:
    assert generator(known).usual_weight == usual


def test_growth_and_files_keep_the_weights() -> None:
    made, z, y = generator(), torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    again = load_generator(made.state_dict(), made.card())
    omega = torch.tensor([1.5, 3.0])
    assert torch.equal(again(z, y, omega=omega), made(z, y, omega=omega))
    grown = grow(made, channels=8, blocks=1)
    grown.freeze_base(1)
    assert grown.guidance == (1.0, 4.0)
    assert not [p for p in grown.weight_embedding.parameters() if p.requires_grad]
    upsampled = made(z, y, omega=omega).repeat_interleave(2, 2).repeat_interleave(2, 3)
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))  # the last convolution pads
    low = torch.nn.functional.avg_pool2d(grown(z, y, omega=omega), 2)
    assert (low - made(z, y, omega=omega)).abs().mean() < (
        low - made(z, y, omega=omega.flip(0))
    ).abs().mean()
    assert grown(z, y, omega=omega)[inner].shape == upsampled[inner].shape


@pytest.mark.parametrize("wrong", [[3, 1], [-1, 2], [1, math.inf]])
def test_a_card_with_impossible_weights_is_refused(wrong: list[float]) -> None:
    with pytest.raises(PagodaError, match="two rising weights"):
        build_generator(generator().card() | {"told_weights": wrong})


def test_a_discriminator_deaf_to_the_weight_is_the_plain_one() -> None:
    torch.manual_seed(0)
    plain, told = ConvDiscriminator(8, 8, 16, 4), GuidedDiscriminator(8, 8, 16, 4)
    told.load_state_dict(plain.state_dict(), strict=False)
    x, y = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0])
    low, high = torch.ones(5), torch.full((5,), 3.0)
    assert (told(x, y, low) - told(x, y, high)).abs().max() > 1e-3
    for path in (told.of_image, told.of_class):
        path.weight_out.requires_grad_(False)
        for parameter in path.weight_out.parameters():
            parameter.zero_()
    assert torch.equal(told(x, y, low), plain(x, y))
    assert torch.equal(told(x, y, high), plain(x, y))


def test_an_estimate_is_in_its_range_and_of_one_image_alone() -> None:
    torch.manual_seed(0)
    estimator = WeightEstimator(8, 8, 4, 1.0, 3.0)
    x, y = 5 * torch.randn(6, 3, 8, 8), torch.arange(6) % 4

    def rows(n: int) -> Tensor:
        with torch.no_grad():
            made: Tensor = estimator(x[:n], y[:n])
        return made

    assert ((rows(6) > 1) & (rows(6) < 3)).all()
    torch.testing.assert_close(rows(6)[:2], rows(2))
    again = build_estimator(estimator.card())
    again.load_state_dict(estimator.state_dict())
    assert torch.equal(again(x, y), estimator(x, y))
