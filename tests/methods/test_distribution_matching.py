"""Distribution matching: its pull between known laws, and a law that it finds."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pagoda.errors import PagodaError
from pagoda.methods.distribution_matching import DistributionMatching, pull
from pagoda.training.draw import GlobalDraw
from tests.methods.small import (
    CPU,
    Case,
    flat,
    given,
    make,
    off_before_and_after,
    once,
    section,
    state,
)

GENERATOR = Case("distribution_matching", "generator")


def test_between_gaussians_the_pull_points_along_the_score_difference() -> None:
    """D = m + s^2 / (s^2 + sigma^2) (x - m) for N(m, s^2), so D_fake - D_real is
    sigma^2 (score_q - score_p).
    """
    torch.manual_seed(0)
    made, sigma = torch.randn(6, 3, 4, 4, dtype=torch.float64), 0.7
    noisy = made + sigma * torch.randn_like(made)
    laws = {"real": (0.2, 0.5), "fake": (-0.3, 0.8)}
    denoised = {k: m + s**2 / (s**2 + sigma**2) * (noisy - m) for k, (m, s) in laws.items()}
    scores = {k: -(noisy - m) / (s**2 + sigma**2) for k, (m, s) in laws.items()}
    found = pull(made, denoised["real"], denoised["fake"])
    size = (made - denoised["real"]).abs().mean((1, 2, 3), keepdim=True)
    expected = sigma**2 * (scores["fake"] - scores["real"]) / size
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_equal_scores_pull_nowhere() -> None:
    method = make(GENERATOR, torch.float64, **{"critic.weight": 0.0})
    assert isinstance(method, DistributionMatching)
    method.critic = method.teacher.double()
    torch.manual_seed(0)
    loss = method._generator_loss(GlobalDraw(CPU))
    assert float(loss.value.detach()) == 0.0


@pytest.mark.longer
@pytest.mark.parametrize("divergence", ["js", pytest.param("reverse_kl", marks=pytest.mark.slow)])
def test_a_generator_that_is_off_moves_onto_the_teachers_law(divergence: str) -> None:
    """The teacher knows flat images of one brightness only."""
    target, steps = 0.5, 40
    own = given(GENERATOR)
    config = section(GENERATOR, **{
        "divergence": divergence, "optim.images": steps * 16, "optim.batch": 16, "optim.lr": 1e-3,
        "optim.beta1": 0.0, "optim.warmup": 0.0, "optim.decay": 0.0, "critic.steps": 2,
        "normalise": True,
    })  # fmt: skip
    method = DistributionMatching(config, dataclasses.replace(own, images=flat(target)))

    class Knows(torch.nn.Module):
        sigma_data = 0.5

        def forward(self, x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x, target)

    method.teacher = Knows()
    before, after = off_before_and_after(method, target, steps)
    assert before > 0.3 and after < before / 3


def test_teacher_and_critic_are_told_apart() -> None:
    """The critic trains, the teacher does not; both begin with the same weights."""
    method = make(GENERATOR, **{"critic.steps": 2})
    assert isinstance(method, DistributionMatching)
    start = {k: v.clone() for k, v in method.teacher.state_dict().items()}
    before = state(method)
    assert all(torch.equal(before[f"critic.network.denoiser.{k}"], v) for k, v in start.items())
    once(method)
    assert all(torch.equal(method.teacher.state_dict()[k], v) for k, v in start.items())
    moved = {k for k, v in state(method).items() if not torch.equal(v, before[k])}
    assert any("critic.network.denoiser" in k for k in moved)


def test_a_teacher_of_another_resolution_is_one_line() -> None:
    case = Case("distribution_matching", "grown")
    with pytest.raises(PagodaError, match=r"resolution 16x16; this one knows 8x8: use it in dist"):
        DistributionMatching(section(case), given(case))


def test_a_ratio_without_its_discriminator_is_refused() -> None:
    with pytest.raises(PagodaError, match=r"critic\.weight = 0\.0; it must be above 0 where diver"):
        section(GENERATOR, **{"divergence": "js", "critic.weight": 0.0})
