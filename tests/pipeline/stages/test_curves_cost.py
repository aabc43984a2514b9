"""What a study's variant cost is read from the last row of every curve."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.evaluation.samplers import Draws, Sampler
from pagoda.pipeline.stages.measure import Curves
from pagoda.pipeline.stages.study_spec import load_study, variant_config
from tests.tiny import copy_studies


def made(name: str, side: int) -> Sampler:
    """Only what a cost depends on."""
    draws = Draws(0, 1, 1, torch.device("cpu"))
    return Sampler(name, name, lambda: (lambda z, *_: z, 0), side, 8, 10, 1, draws)


def test_cost_is_that_of_the_whole_training(tiny_config: Callable[..., Config]) -> None:
    """Images and seconds are running totals: the last row has them, and none is left out."""
    config = tiny_config()
    copy_studies(Path())
    study = load_study("pairs")
    variant = next(iter(study.variants.values()))
    own = variant_config(config, study, variant, 0)
    curves = {
        "teacher": [(200, 3.0)],
        "invert": [(64, 0.5)],  # which trains nothing: its time counts, its images do not
        "distill": [(100, 2.0), (250, 5.0), (300, 6.5)],
        "grow-16": [(40, 1.0), (90, 3.0)],
        "grow-32": [(10, 1.0), (70, 4.0)],
    }
    for stage, rows in curves.items():
        path = Paths(own).history(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({"images": n, "seconds": s, "grad_norm": 1.0, "logit_real": 1.0 * n,
                        "logit_fake": 0.0}) for n, s in rows
        ]  # fmt: skip
        path.write_text("\n".join(lines) + "\n")
    cost = Curves(
        own, {"teacher": 5e8, "invert": 1e8, "distill": 1e9, "grow-16": 2e9, "grow-32": 4e9}
    )
    expected = {"student": (8, 500, 1.6e9, 10.0), "grown": (16, 590, 3.6e9, 13.0)}
    expected |= {"teacher": (8, 200, 5e8, 3.0), "upsampled_base": (32, 500, 1.6e9, 10.0)}
    for name, (side, images, flops, seconds) in expected.items():
        up_to = cost.up_to(made(name, side))
        assert up_to == {"images_seen": images, "train_flops": flops, "train_seconds": seconds}
    assert cost.up_to(made("grown", 32))["images_seen"] == 660
    assert cost.up_to(made("student", 4)) == {}
    found = {(r.metric, r.resolution): (r.value, r.n) for r in cost.rows()}
    assert found["stage_seconds", 8] == (6.5, 300) and found["stage_flops", 32] == (4e9, 70)
    assert found["stage_seconds", 32] == (4.0, 70) and ("logit_gap", 8) not in found
    assert found["logit_gap", 16] == (90.0, 90)  # of the last quarter
