"""Baselines that evaluations show beside generators."""

from __future__ import annotations

from pathlib import Path

import torch

from pagoda import artifacts
from pagoda.evaluation.samplers import teacher_weights
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.generator import generator_from_teacher
from pagoda.networks.unet import UNetSpec


def test_the_teachers_weights_serve_a_generator_that_is_told_the_weight(tmp_path: Path) -> None:
    """As the map that distillation starts at, whose embedding of the weight is asleep."""
    torch.manual_seed(0)
    denoiser = Denoiser(UNetSpec(8, 8, (1, 2), 1, (4,), 8, 0.0, 3, 1.0), 0.5)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    with artifacts.create(tmp_path / "teacher", "teacher", config={}) as out:
        artifacts.save_model(out, denoiser, denoiser.card())
    start = generator_from_teacher(denoiser, sigma_max=80.0, output="denoiser")
    start.take_weights(1.0, 4.0)
    baseline = teacher_weights(
        artifacts.open_artifact(tmp_path / "teacher", "teacher"), start.card()
    )
    z, labels = torch.randn(3, 3, 8, 8), torch.tensor([0, 2, 1])
    torch.testing.assert_close(baseline(z, labels), start(z, labels))
