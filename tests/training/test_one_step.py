"""A step of the one-step generator's training: what moves, and what the loss is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.training.steps import STEPS, one_step, state


def test_frozen_parameters_keep_their_bits_and_the_others_move() -> None:
    step = one_step()
    before = {n: p.detach().clone() for n, p in step.generator.named_parameters()}
    average = {n: p.detach().clone() for n, p in step.ema.model.named_parameters()}
    for i in range(3):
        step(i, i / STEPS)
    averaged = dict(step.ema.model.named_parameters())
    for name, parameter in step.generator.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name
        assert (not torch.equal(averaged[name], average[name])) == parameter.requires_grad, name


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        ({"adversarial": "none"}, {"loss_rec"}, {"loss_adv", "loss_d", "lambda"}),
        ({"regression": "none"}, {"loss_adv", "loss_d"}, {"loss_rec", "loss_features"}),
        ({"regression": "noise_to_data"}, {"loss_dstl", "loss_adv"}, {"loss_rec"}),
        ({"feature_weight": 0.0}, {"loss_rec", "loss_adv"}, {"loss_features"}),
        ({"adversarial_start": 0.6}, {"loss_rec"}, {"loss_adv", "loss_d", "lambda"}),
        ({"precision": "bf16"}, {"loss_rec", "loss_adv", "loss_features"}, set()),
    ],
)
def test_every_variant_trains_what_it_says(
    changes: dict[str, Any], present: set[str], absent: set[str]
) -> None:
    step = one_step(**changes)
    before = state(step)
    stats = step(0, 0.5)
    assert present | {"loss", "grad_norm", "lr"} <= stats.keys() and not absent & stats.keys()
    assert all(np.isfinite(float(value)) for value in stats.values())
    after = state(step)
    moved = {k.split(".")[0] for k in after if not torch.equal(after[k], before[k])}
    judged = "loss_d" in present or "loss_adv" in present
    assert moved == {"generator", "ema"} | ({"discriminator"} if judged else set())


def test_lambda_ramps_up_from_the_start_of_the_adversarial_loss() -> None:
    step = one_step(weighting="fixed", adversarial_start=0.2, adversarial_ramp=0.4)
    assert "lambda" not in step(0, 0.1)
    weights = [float(step(1, progress)["lambda"]) for progress in (0.2, 0.3, 0.4, 0.6, 0.9)]
    assert weights == pytest.approx([0.0, 0.075, 0.15, 0.3, 0.3])


def test_total_loss_is_the_weighted_sum() -> None:
    stats = {k: float(v) for k, v in one_step(weighting="fixed")(0, 0.5).items()}
    total = stats["loss_rec"] + 0.1 * stats["loss_features"] + stats["lambda"] * stats["loss_adv"]
    assert stats["loss"] == pytest.approx(total, rel=1e-5)
