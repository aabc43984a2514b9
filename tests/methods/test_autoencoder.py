"""The terms of an autoencoder's loss, each by what its gradient does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pagoda.training import loop
from pagoda.training.draw import GlobalDraw
from pagoda.training.method import Method
from tests.methods.small import BATCH, CASES, CPU, make, once


def gradients(method: Method, i: int = 0, progress: float = 0.0) -> dict[str, torch.Tensor]:
    """Of the autoencoder, by one step's losses, without the step."""
    torch.manual_seed(0)
    for loss in method.step(GlobalDraw(CPU), i, progress):
        method.players[loss.player].backward(loss.value)
    network = method.players["autoencoder"].network
    return {k: p.grad.clone() for k, p in network.named_parameters() if p.grad is not None}


def test_the_distance_of_features_has_a_gradient() -> None:
    """Everywhere, in proportion to its weight; a public trainer's has none."""
    without, once_, twice = (
        gradients(make("autoencoder", feature_weight=w)) for w in (0.0, 1.0, 2.0)
    )
    for key, gradient in without.items():
        own = once_[key] - gradient
        assert own.abs().max() > 0, key
        torch.testing.assert_close(twice[key] - gradient, 2 * own, rtol=1e-3, atol=1e-7)
    frozen = list(make("autoencoder").modules["distance"].parameters())
    assert not any(p.requires_grad for p in frozen)


def test_l1_alone_is_the_mean_absolute_difference_over_resolutions() -> None:
    method = make("autoencoder", feature_weight=0.0, adversarial_weight=0.0)
    network = method.players["autoencoder"].network
    torch.manual_seed(0)
    *views, _ = GlobalDraw(CPU).images(method.images, BATCH)  # type: ignore[attr-defined]
    with torch.no_grad():
        wanted = sum(F.l1_loss(network(x), x) for x in views) / len(views)
    assert once(method)["loss"] == pytest.approx(float(wanted), rel=1e-6)


def test_the_divergence_is_that_of_diagonal_normals() -> None:
    """Against torch.distributions, for the batch of one step."""
    method = make("autoencoder, kl", feature_weight=0.0, adversarial_weight=0.0)
    network: Any = method.players["autoencoder"].network
    torch.manual_seed(0)
    x = GlobalDraw(CPU).images(method.images, BATCH)[0]  # type: ignore[attr-defined]
    with torch.no_grad():
        mean, log_variance = network.network.moments(x)
    made = torch.distributions.Normal(mean, (log_variance / 2).exp())
    wanted = torch.distributions.kl_divergence(made, torch.distributions.Normal(0.0, 1.0))
    assert once(method)["loss_kl"] == pytest.approx(
        float(wanted.flatten(1).sum(1).mean()), rel=1e-4
    )


def test_the_adversarial_term_begins_when_it_is_told() -> None:
    method = make("autoencoder", feature_weight=0.0)
    start = CASES["autoencoder"].settings["adversarial_start"]
    before, after = (once(method, progress=p) for p in (start - 0.01, start))
    assert "loss_adv" not in before and "loss_d" not in before
    assert "loss_adv" in after and "loss_d" in after


def test_it_learns_the_images_there_are() -> None:
    method = make("autoencoder", **{"feature_weight": 0.0, "adversarial_weight": 0.0,
                                    "optim.lr": 1e-2})  # fmt: skip
    first = once(method)["loss"]
    for i in range(30):
        loop.run_step(method, GlobalDraw(CPU), i, 0.5)
    assert once(method)["loss"] < 0.8 * first
