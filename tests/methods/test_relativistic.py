"""The relativistic GAN: its losses and penalties in closed form, and a law that it finds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pagoda.errors import PagodaError
from pagoda.methods.relativistic import Relativistic, relativistic
from pagoda.training.draw import GlobalDraw
from tests.methods.small import CPU, Case, flat, given, make, off_before_and_after, once, section

CASE, DOUBLE = Case("relativistic", "generator"), torch.float64


def test_loss_and_gradient_are_those_of_the_formula() -> None:
    """d/da E softplus(-(a - b)) = -sigmoid(b - a) / n = -d/db."""
    random = np.random.default_rng(0)
    a, b = (torch.from_numpy(random.normal(0, 3, 9)).requires_grad_() for _ in range(2))
    loss = relativistic(a, b)
    difference = (a - b).detach().numpy()
    assert float(loss.detach()) == pytest.approx(np.log1p(np.exp(-difference)).mean(), rel=1e-12)
    above, below = torch.autograd.grad(loss, (a, b))
    expected = -1 / (1 + np.exp(difference)) / 9
    np.testing.assert_allclose(above.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(below.numpy(), -expected, rtol=1e-12)
    assert float(relativistic(a, a).detach()) == pytest.approx(np.log(2), rel=1e-12)


class Linear(nn.Module):
    """D(x, y) = w . x + b_y, whose gradient is w everywhere."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.w = nn.Parameter(torch.randn(3, 8, 8, dtype=DOUBLE))
        self.b = nn.Parameter(torch.randn(4, dtype=DOUBLE))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return (x * self.w).sum((1, 2, 3)) + self.b[labels]


@pytest.mark.parametrize("every", [1, 2])
def test_penalties_of_a_linear_critic(every: int) -> None:
    """R1 = R2 = |w|^2; the gradient of gamma / 2 (R1 + R2) by w is 2 gamma w."""
    gamma = 0.7
    gradients = []
    for weight in (0.0, gamma):
        method = make(CASE, DOUBLE, **{"critic.gamma": weight, "critic.penalty_every": every})
        assert isinstance(method, Relativistic)
        method.critic = critic = Linear()
        torch.manual_seed(0)
        for i in range(every):  # the last of them has no penalty where not all have one
            torch.manual_seed(0)
            loss = next(method.step(GlobalDraw(CPU), i, 0.5))
            if i == 0:
                (gradient,) = torch.autograd.grad(loss.value, critic.w)
                gradients.append(gradient)
                if weight:
                    norm = float(critic.w.detach().square().sum())
                    assert float(loss.stats["r1"]) == pytest.approx(norm, rel=1e-12)
                    assert float(loss.stats["r2"]) == pytest.approx(norm, rel=1e-12)
            else:
                assert "r1" not in loss.stats
    torch.testing.assert_close(gradients[1] - gradients[0], 2 * gamma * every * critic.w.detach())


def test_the_generator_gets_the_mirrored_loss_and_the_critic_no_gradient() -> None:
    """L_G - L_D = E(D(x) - D(G(z))) without penalties: softplus(t) - softplus(-t) = t."""
    method = make(CASE, DOUBLE, **{"critic.gamma": 0.0})
    assert isinstance(method, Relativistic)
    method.critic = Linear()
    torch.manual_seed(0)
    of_critic, of_generator = method.step(GlobalDraw(CPU), 0, 0.5)
    apart = of_critic.stats["logit_real"] - of_critic.stats["logit_fake"]
    found = float(of_generator.value.detach() - of_critic.value.detach())
    assert found == pytest.approx(float(apart), rel=1e-9)
    of_generator.value.backward()
    assert method.critic.w.grad is None
    assert all(p.grad is not None for p in method.generator.trunk.stem.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "gamma", "lr"), [("teacher", 0.01, 1e-3), ("conv", 0.1, 3e-3)])
def test_a_generator_that_is_off_moves_onto_the_data(kind: str, gamma: float, lr: float) -> None:
    """Flat images of one brightness: the generator's mean finds the data's."""
    target, steps = 0.5, 50
    config = section(CASE, **{
        "optim.images": steps * 16, "optim.batch": 16, "optim.lr": 1e-3, "optim.beta1": 0.0,
        "optim.warmup": 0.0, "optim.decay": 0.0, "critic.kind": kind, "critic.channels": 8,
        "critic.gamma": gamma, "critic.lr": lr,
    })  # fmt: skip
    method = Relativistic(config, dataclasses.replace(given(CASE), images=flat(target)))
    before, after = off_before_and_after(method, target, steps)
    assert before > 0.3 and after < before / 3


def test_it_trains_a_grown_generator_with_a_critic_of_its_own() -> None:
    grown = Case("relativistic", "grown", {"critic.kind": "conv", "critic.channels": 4})
    assert np.isfinite(list(once(make(grown)).values())).all()
    with pytest.raises(PagodaError, match=r"of 8x8, the images are 16x16; set critic.kind: conv"):
        make(Case("relativistic", "grown"))


def test_its_card_says_what_it_needs() -> None:
    assert make(CASE).card()["needs"] == ["data", "critic", "teacher's weights"]
    assert make(CASE, **{"critic.kind": "conv"}).card()["needs"] == ["data", "critic"]
