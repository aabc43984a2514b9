"""Variants of studies, run for real at a tiny size."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from pagoda import artifacts
from pagoda.config import Config, parse, read_yaml, with_derived
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.evaluation.samplers import Draws, Sampler
from pagoda.pipeline.stages import (
    distill,
    downsample,
    features,
    grow,
    invert,
    study,
    super_resolution,
    teacher,
    variant,
)
from pagoda.pipeline.stages.compute import training_compute, with_compute
from pagoda.pipeline.stages.measure import draw
from pagoda.pipeline.stages.measurement import write_measurement
from pagoda.pipeline.stages.study_spec import Variant, load_study, variant_config
from pagoda.results.studies import read_study, study_folder
from pagoda.rows import Row
from pagoda.training.history import read_rows
from pagoda.training.sharding import SHARD
from tests.group import log, run_group
from tests.pipeline.stages.prepared import prepare
from tests.tiny import ROOT, copy_studies, tiny_tree

_SEEDS = {"studies.usual.seeds": [0], "studies.samples": 64}


@pytest.mark.parametrize(("n", "timed"), [(7, True), (4, False), (3, False)])
def test_a_time_an_image_needs_a_call_after_the_first(n: int, timed: bool) -> None:
    draws = Draws(0, n, 4, torch.device("cpu"))
    sampler = Sampler("made", "made", lambda: (lambda z, *_: z.clamp(-1, 1), 0), 8, 8, 2, 1, draws)
    images, seconds = draw(sampler)
    assert images.shape == (n, 3, 8, 8)
    assert (seconds is not None and seconds > 0) if timed else seconds is None


@pytest.fixture
def tiny_study(tiny_config: Callable[..., Config]) -> Callable[..., Config]:
    """A tiny experiment whose folder sees the studies."""

    def make(**overrides: object) -> Config:
        config = tiny_config(**(_SEEDS | overrides))
        copy_studies(Path())
        return config

    return make


def _prepare(config: Config) -> None:
    prepare(config)
    teacher.run(config)
    invert.run(config)


def _run(config: Config, name: str) -> tuple[Row, ...]:
    found = load_study(name)
    for member in found.variants.values():
        for seed in found.seeds(config, member):
            variant.run(config, found, member, seed)
    study.run(config, found)
    return read_study(study_folder(config.name, name)).rows


def test_runs_that_are_missing_and_what_makes_them(tiny_study: Callable[..., Config]) -> None:
    config = tiny_study(**{"studies.usual.seeds": [4, 5]})
    found = load_study("growth_loss")
    first = next(iter(found.variants))
    runs = sum(len(found.seeds(config, member)) for member in found.variants.values())
    with pytest.raises(
        PagodaError,
        match=rf"^{runs} of the {runs} runs of study growth_loss are missing, variant {first} with "
        r"seed 4 first; 'dvc --cd experiments repro growth_loss/dvc.yaml'",
    ):
        study.run(config, found)


@pytest.mark.longer
def test_results_of_runs_that_are_not_here_are_kept(tiny_study: Callable[..., Config]) -> None:
    """A study of which a part has gone, collected again, is the study as it was."""
    config = tiny_study()
    _prepare(config)
    distill.run(config)
    whole = _run(config, "growth_loss")
    folder = study_folder(config.name, "growth_loss")
    card, pictures = read_study(folder).card, {p.name: p.read_bytes() for p in folder.glob("*.png")}
    found = load_study("growth_loss")
    first, second = found.variants.values()
    shutil.rmtree(found.folder(config, second, 0))
    with pytest.raises(PagodaError, match=r"^1 of the 2 runs of study growth_loss are missing"):
        study.run(config, found)
    study.run(config, found, True)
    again = read_study(folder)
    assert again.rows == whole and again.card.figures == card.figures
    assert {p.name: p.read_bytes() for p in folder.glob("*.png")} == pictures
    of_second = [failure for failure in card.failures if failure.variant == second.name]
    assert [f for f in again.card.failures if f.variant == second.name] == of_second
    table = (folder / "results.csv").read_text()
    real = next(row.reference for row in whole if row.metric == "fd")
    (folder / "results.csv").write_text(table.replace(str(real), "0" * 64))
    with pytest.raises(PagodaError, match=r"classifier_64 at 16 pixels in features of another"):
        study.run(config, found, True)
    (folder / "results.csv").write_text(table)
    text = (folder / "study.json").read_text()
    (folder / "study.json").write_text(text.replace(card.data, "other images"))
    with pytest.raises(PagodaError, match=r"results on other images \(other images\)"):
        study.run(config, found, True)
    assert (folder / "results.csv").exists()
    (folder / "study.json").write_text(text)
    shutil.rmtree(found.folder(config, first, 0))
    with pytest.raises(PagodaError, match=r"^2 of the 2 runs"):
        study.run(config, found, True)
    # A later seed adds rows and leaves the pictures of the first.
    later = dataclasses.replace(config.studies.usual, seeds=[1])
    config = dataclasses.replace(config, studies=dataclasses.replace(config.studies, usual=later))
    for member in found.variants.values():
        variant.run(config, found, member, 1)
    study.run(config, found, True)
    rows = read_study(folder).rows
    assert [row for row in rows if row.training_seed == 0] == list(whole)
    assert {row.training_seed for row in rows} == {0, 1}
    assert pictures and {p.name: p.read_bytes() for p in folder.glob("*.png")} == pictures


def test_a_row_of_another_network_keeps_its_fingerprint(
    tiny_study: Callable[..., Config],
) -> None:
    """What names no network was measured without one, or by the classifier."""
    config = tiny_study()
    downsample.run(config, 32)
    features.run(config)
    found = load_study("growth_loss")
    chosen = next(iter(found.variants.values()))
    own = variant_config(config, found, chosen, 0)
    row = Row(metric="fd", protocol="fd_classifier_64", value=1.0, n=64, resolution=8)
    other = dataclasses.replace(row, protocol="fd_other_64", features="f" * 64)
    write_measurement(own, found, chosen, [row, other], {}, {})
    kept = artifacts.open_artifact(own.places["measured"], "measurement").json("rows")["rows"]
    classifier = artifacts.open_artifact(Paths(config).features, "features").fingerprint
    assert [r["features"] for r in kept] == [classifier, "f" * 64]


def test_random_pairs_are_standard_normal_and_keep_images_and_labels(
    tiny_study: Callable[..., Config],
) -> None:
    config = tiny_study(**{"invert.images": 200})
    downsample.run(config, 8)
    found = load_study("inversion")
    made = variant_config(config, found, found.variants["random-pairs"], 0)
    variant.pair_randomly(made)
    latents = artifacts.open_artifact(made.places["latents"], "latents")
    z = latents.array("latents")
    assert z.shape == (200, 3, 8, 8)
    assert abs(z.std() - 1) < 0.02 and abs(z.mean()) < 0.02
    data = artifacts.open_artifact("runs/tiny/data/8", "images")
    np.testing.assert_array_equal(latents.array("labels"), data.array("train_labels")[:200])
    np.testing.assert_array_equal(latents.array("indices"), np.arange(200))


class _Means(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3))


@pytest.mark.longer
def test_a_study_measures_in_every_feature_network_of_the_profile(
    tiny_study: Callable[..., Config], tmp_path: Path
) -> None:
    torch.jit.script(_Means()).save(str(tmp_path / "means.pt"))
    networks = ["classifier", f"custom:{tmp_path}/means.pt"]
    config = tiny_study(**{"reference.extractors": networks, "target_res": 16})
    prepare(config)
    teacher.run(config)
    found = load_study("robustness")
    variant.run(config, found, found.variants["teacher-full"], 0)
    folder = found.folder(config, found.variants["teacher-full"], 0) / "measured"
    rows = artifacts.open_artifact(folder, "measurement").json("rows")["rows"]
    assert {row["protocol"] for row in rows if row["metric"] == "fd"} == {
        "fd_classifier_64", "fd_custom_means_64",
    }  # fmt: skip
    assert len([row for row in rows if row["metric"] == "high_frequency"]) == 1  # of pixels


@pytest.mark.longer
def test_compute_grows_with_the_images_and_frozen_parts_cost_less(
    tiny_study: Callable[..., Config],
) -> None:
    once = training_compute(tiny_study(), ("teacher", "invert"), 10, 200)
    twice = training_compute(
        _again(**{"teacher.optim.images": 512}), ("teacher", "invert"), 10, 200
    )
    assert twice == {"teacher": pytest.approx(2 * once["teacher"]), "invert": once["invert"]}
    one = {"target_res": 16}
    frozen = training_compute(_again(**one), ("grow",), 10, 200)
    loose = training_compute(
        _again(**one, **{"grow.trainable_base_blocks": 99}), ("grow",), 10, 200
    )
    quiet = training_compute(_again(**one, **{"grow.loss.adversarial": "none"}), ("grow",), 10, 200)
    apart = training_compute(
        _again(**one, **{"grow.loss.separate_update": True}), ("grow",), 10, 200
    )
    assert apart["grow-16"] > frozen["grow-16"] and loose["grow-16"] > frozen["grow-16"]
    assert frozen["grow-16"] > quiet["grow-16"]


def _again(**overrides: object) -> Config:
    return parse(tiny_tree(**(_SEEDS | overrides)))


@pytest.mark.longer
@pytest.mark.parametrize("batch", [4, 12])
def test_an_upper_stage_of_a_cascade_trains_in_batches_of_its_own(
    tiny_study: Callable[..., Config], batch: int
) -> None:
    config = tiny_study(**{"studies.cascade.batch": batch, "teacher.optim.precision": "fp32"})
    prepare(config)
    super_resolution.run(config, 8, 16)
    last = json.loads(read_rows(Paths(config).history("cascade-16"))[-1])
    assert last["images"] == batch * last["step"]
    assert abs(last["images"] - config.teacher.optim.images) <= batch / 2


def _share_a_variant(tree: dict[str, Any], name: str) -> None:
    os.environ[SHARD] = "1"
    found = load_study("growth_baselines")
    variant.run(parse(tree), found, found.variants[name], 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cascade", "growth"])
def test_processes_share_a_variant(
    tiny_study: Callable[..., Config], tmp_path: Path, name: str
) -> None:
    """Two with cut weights train what one does, and the first alone measures it."""
    settings: dict[str, object] = {
        f"{section}.optim.precision": "fp32" for section in ("teacher", "grow")
    }
    config = tiny_study(**settings)
    _prepare(config)
    distill.run(config)
    pair = tmp_path / "pair"
    shutil.copytree(Path.cwd(), pair, symlinks=True, ignore=shutil.ignore_patterns("pair"))
    found = load_study("growth_baselines")
    variant.run(config, found, found.variants[name], 0)
    tree = tiny_tree(**(_SEEDS | settings))
    ended = run_group(2, _share_a_variant, tree, name, folder=pair, limit=600)
    assert ended == [0, 0], log(pair)
    whole = sorted(Path("experiments/runs/tiny").rglob("*.safetensors"))
    assert len(whole) == 2
    for file in whole:
        left, right = (safetensors.torch.load_file(f) for f in (file, pair / file))
        assert left.keys() == right.keys()
        assert max((left[k] - right[k]).abs().max().item() for k in left) < 1e-3  # float32
    measured = f"experiments/runs/tiny/growth_baselines/{name}/s0/measured"
    rows, of_pair = (
        artifacts.open_artifact(folder / measured, "measurement").json("rows")["rows"]
        for folder in (Path.cwd(), pair)
    )
    kinds = [(row["metric"], row.get("generator"), row["resolution"]) for row in rows]
    assert kinds == [(row["metric"], row.get("generator"), row["resolution"]) for row in of_pair]


@pytest.mark.slow
def test_whole_studies(tiny_study: Callable[..., Config]) -> None:
    config = tiny_study()
    _prepare(config)
    distill.run(config)
    for step in config.growth.values():
        grow.run(config, step["from"], step["to"])
    rows = _run(config, "growth_baselines")
    at_target = {r.generator: r.nfe for r in rows if r.resolution == 32 and r.metric == "fd"}
    assert at_target["grown"] == 1
    assert at_target["cascade"] == 7 + 2 * 15  # Heun on 4 levels, then on 8 twice
    assert {r.metric for r in rows} >= {"drift", "high_frequency", "recall", "stage_flops"}
    rows = _run(config, "robustness")
    of_one = [r for r in rows if r.variant == "dstl-eighth" and r.metric == "fd"]
    assert {r.generator for r in of_one} == {
        "teacher",
        "student",
    }  # its teacher's distance beside it
    found = {r.variant: r.value for r in _run(config, "pairs") if r.metric == "fd"}
    assert len(found) == 4


_STUDENTS = ("class-ratio", "matching", "consistency", "relativistic", "mean-flow", "drifting")


@pytest.mark.longer
@pytest.mark.parametrize(
    ("base", "study_name", "other", "steps", "members"),
    [
        (16, "objectives", "pagoda", ("distill",), tuple(f"{m}-compute" for m in _STUDENTS)),
        (8, "latent_space", "codes", None, ("pixels_equal_compute",)),
    ],
)
def test_variants_of_equal_compute_have_it_at_every_size(
    base: int, study_name: str, other: str, steps: tuple[str, ...] | None,
    members: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """To a step: the images are whole batches. Students have that of PaGoDA's, not its growth."""
    monkeypatch.chdir(ROOT)
    tree = read_yaml("params.yaml") | {"base_res": base}
    tree["studies"]["whole"]["scale"] = 0.5
    tree["teacher"]["network"] |= {"lowest_res": base, "channel_mult": [1]}  # quick to count
    config, found = parse(with_derived(tree)), load_study(study_name)
    monkeypatch.setattr(variant, "training_set", lambda _: (10, 8192))

    def compute(member: str, steps: tuple[str, ...] | None = None) -> float:
        chosen = found.variants[member]
        own = variant.config_of(config, found, chosen, 0)
        return sum(training_compute(own, steps or chosen.steps, 10, 8192).values())

    assert {n for n, v in found.variants.items() if v.compute_of} == {*members}
    wanted = compute(other, steps)
    # Few steps are left where one takes five of the critic: rounded, they are farther off.
    near = {n: pytest.approx(1, abs=0.05 if n == "matching-compute" else 0.01) for n in members}
    assert {n: compute(n) / wanted for n in members} == near


def test_compute_that_a_variant_cannot_have_is_one_line(
    tiny_study: Callable[..., Config],
) -> None:
    """What it inverts does not follow its training images."""
    config = tiny_study()
    with pytest.raises(PagodaError, match=r"takes more than the 1 FLOPs .* invert fewer images$"):
        with_compute(
            variant_config(config, load_study("growth_loss"), Variant("x"), 0),
            ("teacher", "invert"), 1.0, 10, 200,
        )  # fmt: skip
