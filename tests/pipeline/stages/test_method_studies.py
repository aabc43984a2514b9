"""The studies of one-step methods: a variant of each for real, tiny, and what each method holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from pagoda import artifacts
from pagoda.config import Config, VariantConfig
from pagoda.pipeline.stages import invert, variant
from pagoda.pipeline.stages.compute import Untrained, training_held
from pagoda.pipeline.stages.counters import parameters
from pagoda.pipeline.stages.study_spec import load_study, variant_config
from pagoda.rows import Row, from_json
from tests.pipeline.stages.prepared import prepare
from tests.pipeline.stages.untrained import write_models
from tests.tiny import copy_studies

SMALL = {"studies.usual.seeds": [0], "studies.costly.seeds": [0], "studies.samples": 64,
         "target_res": 16, "distill.optim.images": 32, "grow.optim.images": 32}  # fmt: skip
HELD = {"pagoda": 2, "class-ratio": 2, "matching": 3, "consistency": 1, "relativistic": 2,
        "mean-flow": 2, "drifting": 2}  # fmt: skip


def made(config: Config, name: str, member: str) -> VariantConfig:
    study = load_study(name)
    return variant_config(config, study, study.variants[member], 0)


@pytest.mark.longer
def test_a_method_holds_its_networks_once(tiny_config: Callable[..., Config]) -> None:
    """Consistency trains the generator alone; matching holds two denoisers beside it."""
    config = tiny_config(**SMALL)
    copy_studies(Path())
    found = {name: training_held(made(config, "objectives", name), ("distill",), 10, 200)
             for name in HELD}  # fmt: skip
    assert {name: held["distill"].networks for name, held in found.items()} == HELD
    untrained = Untrained(config, 10, 200)
    generator, denoiser = parameters(untrained.generator(8)), parameters(untrained.denoiser())
    memory = {name: held["distill"].memory for name, held in found.items()}
    states = 4 * 5 * generator  # weights, average, gradients and two moments
    assert memory["consistency"] > states
    twice = dataclasses.replace(config.distill.optim, batch=2 * config.distill.optim.batch)
    wider = dataclasses.replace(config, distill=dataclasses.replace(config.distill, optim=twice))
    wider = made(wider, "objectives", "consistency")
    more = training_held(wider, ("distill",), 10, 200)["distill"].memory - states
    assert more == pytest.approx(2 * (memory["consistency"] - states), rel=0.02)
    assert memory["matching"] > memory["consistency"] + 4 * denoiser
    held = {name: held["distill"].parameters for name, held in found.items()}
    assert held["consistency"] == generator
    head = held["matching"] - generator - 2 * denoiser
    assert 0 < head < denoiser / 4
    assert generator < held["class-ratio"] < generator + denoiser
    assert held["drifting"] > generator + denoiser  # though it is no part of its encoder's state


@pytest.mark.longer
def test_every_start_and_divergence_of_the_studies_is_one(
    tiny_config: Callable[..., Config],
) -> None:
    """Each variant's method is built as its study says, on shapes alone."""
    config = tiny_config(**SMALL)
    copy_studies(Path())
    for name in ("divergences", "initialisation"):
        study = load_study(name)
        for member in study.variants:
            own = made(config, name, member)
            card = Untrained(own, 10, 200).method("distill").card()
            assert card["divergence"] == own.distill.divergence  # type: ignore[attr-defined]
            assert card["start"] == own.distill.start  # type: ignore[attr-defined]


@pytest.fixture
def ran(tiny_config: Callable[..., Config]) -> Callable[[str, str], list[Row]]:
    """Runs a variant and reads its rows."""
    config = tiny_config(**SMALL)
    copy_studies(Path())
    prepare(config)
    write_models(config)
    invert.run(config)

    def run(name: str, member: str) -> list[Row]:
        study = load_study(name)
        variant.run(config, study, study.variants[member], 0)
        folder = study.folder(config, study.variants[member], 0) / "measured"
        tree = artifacts.open_artifact(folder, "measurement").json("rows")
        return from_json(tree["rows"], member)

    return run


@pytest.mark.longer
def test_a_variant_of_each_study_runs(ran: Callable[[str, str], list[Row]]) -> None:
    rows = ran("objectives", "drifting")
    fd = {(r.generator, r.resolution) for r in rows if r.metric == "fd"}
    assert fd == {("student", 8), ("grown", 16), ("upsampled_base", 16), ("upsampled_real", 16),
                  ("real", 8), ("real", 16)}  # fmt: skip
    compute = {r.generator: r.train_flops for r in rows if r.metric == "fd"}
    assert compute["real"] is None  # which took no training
    assert compute["upsampled_base"] == compute["student"] < compute["grown"]  # type: ignore[operator]
    held = {r.protocol: r.value for r in rows if r.metric == "held_networks"}
    assert held == {"held_networks_distill": 2.0, "held_networks_grow": 2.0}
    for name, member in (("divergences", "skew-0_9"), ("initialisation", "map")):
        rows = ran(name, member)
        assert {"fd", "precision", "recall"} <= {r.metric for r in rows}
        assert {r.variant for r in rows} == {member}
    trained = ran("objectives", "consistency")
    rows = ran("objectives", "consistency-steps")  # which reads what that one trained
    calls = {r.generator: r.nfe for r in rows if r.metric == "fd"}
    assert calls == {"student": 1, "student_two_steps": 2, "real": None}
    (before,), (again,) = (
        [r.value for r in found if r.metric == "fd" and r.generator == "student"]
        for found in (trained, rows)
    )
    assert before == again
    rows = ran("verifier", "class-ratio")
    calls = {r.generator: r.nfe for r in rows if r.metric == "fd"}
    counts = 2, 4, 8
    chosen = {f"best_of_{n}": n for n in counts} | {f"random_of_{n}": 1 for n in counts}
    assert calls == {"student": 1, "real": None} | chosen
    assert not [r for r in rows if r.metric == "seconds_per_image"]  # choosing was not timed
