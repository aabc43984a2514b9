"""What a study's variant cost is read from the last row of every curve."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.pipeline.stages.measure import Curves
from pagoda.pipeline.stages.study_spec import load_study, variant_config
from tests.tiny import copy_studies


def test_cost_is_that_of_the_whole_training(tiny_config: Callable[..., Config]) -> None:
    """Images and seconds are running totals: the last row has them, and none is left out."""
    config = tiny_config()
    copy_studies(Path())
    study = load_study("pairs")
    variant = next(iter(study.variants.values()))
    own = variant_config(config, study, variant, 0)
    curves = {
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
    cost = Curves(own, {"distill": 1e9, "grow-16": 2e9, "grow-32": 4e9})
    assert cost.up_to(16) == {"images_seen": 390, "train_flops": 3e9, "train_seconds": 9.5}
    assert cost.up_to(32) == {"images_seen": 460, "train_flops": 7e9, "train_seconds": 13.5}
    assert cost.up_to(4) == {}
    found = {(r.metric, r.resolution): (r.value, r.n) for r in cost.rows()}
    assert found["stage_seconds", 8] == (6.5, 300) and found["stage_flops", 32] == (4e9, 70)
    assert found["stage_seconds", 32] == (4.0, 70) and ("logit_gap", 8) not in found
    assert found["logit_gap", 16] == (90.0, 90)  # of the last quarter
