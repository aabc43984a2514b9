"""``pagoda plan``: counts against closed forms, real modules and the files that stages write."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from pagoda.config import Config, parse
from pagoda.errors import PagodaError
from pagoda.networks.generator import generator_from_teacher, grow
from pagoda.pipeline.derive import profile_tree
from pagoda.pipeline.plan.count import THIS_MACHINE, image_bytes, latent_bytes
from pagoda.pipeline.plan.request import image_counts, planned
from pagoda.pipeline.plan.shapes import SeenBefore
from pagoda.pipeline.plan.tables import CARDS, as_markdown
from pagoda.pipeline.stages.compute import CLIPS, Untrained
from pagoda.pipeline.stages.counters import FlopCounter, forward_flops, parameters, step_flops
from pagoda.pipeline.stages.grow import freeze, level_channels
from pagoda.pipeline.stages.super_resolution import cascade_optim
from pagoda.results.plans import Plan, Stage
from pagoda.training.draw import GlobalDraw
from pagoda.training.loop import run_step
from tests.pipeline.stages.test_latent import config as latent_config
from tests.tiny import ROOT, tiny_tree

_HOUR = 3600


def tiny(**overrides: object) -> Config:
    return parse(tiny_tree(**overrides))


@cache
def tiny_plan() -> Plan:
    return planned(tiny())


def of(plan: Plan, stage: str) -> Stage:
    return next(s for s in plan.stages if s.stage == stage)


def test_convolutions_and_matrix_products_are_counted_in_closed_form() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 5))
        x = torch.zeros(4, 3, 6, 6)
    assert forward_flops(net, x) == 2 * 4 * 36 * 3 * 9 * 8 + 2 * 4 * (8 * 36) * 5


@pytest.mark.parametrize("stage", ["teacher", "distill", "grow-16", "cascade-16", "clip", "scorer"])
def test_counts_on_the_meta_device_are_those_of_a_real_step(stage: str) -> None:
    if stage in CLIPS:
        pytest.importorskip("open_clip")
    config, cpu = tiny(), torch.device("cpu")
    meta = Untrained(config, 10, 64).method(stage, images=4)
    real = Untrained(config, 10, 64, cpu).method(stage, images=4)
    with FlopCounter() as counter:
        run_step(real, GlobalDraw(cpu), 1, 0.9)
    # The kernel of attention, which differs between devices, counts a little differently.
    assert step_flops(meta, 1, 0.9) == pytest.approx(counter.flops, rel=0.02)


def test_a_count_is_the_same_whatever_was_drawn_before() -> None:
    method = Untrained(tiny(**{"teacher.augment": 0.5}), 10, 64).method("teacher")
    counts = set()
    for seed in range(3):
        torch.manual_seed(seed)
        counts.add(step_flops(method, 0, 0.0))
    assert len(counts) == 1


@pytest.mark.longer
def test_a_cascade_sees_the_teachers_images_in_batches_of_its_own() -> None:
    """So its compute is the same whatever the batch, and what a step holds is not."""
    small, large = (Untrained(tiny(**{"studies.cascade.batch": batch}), 10, 64) for batch in (4, 8))
    assert small.training("cascade-16") == pytest.approx(large.training("cascade-16"), rel=1e-6)
    assert small.held("cascade-16").memory < large.held("cascade-16").memory
    optim, teacher = cascade_optim(tiny(**{"studies.cascade.batch": 6})), tiny().teacher.optim
    assert (optim.batch, optim.images) == (6, 6 * round(teacher.images / 6))
    assert dataclasses.replace(optim, batch=teacher.batch, images=teacher.images) == teacher


def test_a_frozen_network_costs_its_forward_pass_and_what_goes_through_it() -> None:
    method = Untrained(tiny(), 10, 64).method("teacher", images=4)
    network = method.players["denoiser"].network
    whole = step_flops(method, 0, 0.0)
    network.requires_grad_(False)
    next(network.parameters()).requires_grad_(True)
    forward = Untrained(tiny(), 10, 64).denoiser_call * 4
    assert forward < step_flops(method, 0, 0.0) < whole <= 3 * forward


def test_parameters_are_those_of_the_modules_that_stages_build() -> None:
    config = tiny()
    plan = tiny_plan()
    denoiser = Untrained(config, 10, 64, torch.device("cpu")).denoiser()
    assert of(plan, "teacher").parameters == sum(p.numel() for p in denoiser.parameters())
    generator = generator_from_teacher(denoiser, sigma_max=80.0, output="raw")
    for resolution in (16, 32):
        width = level_channels(config.grow, resolution)
        generator = grow(generator, channels=width, blocks=config.grow.blocks)
        freeze(generator, config.grow)
        found = of(plan, f"grow@{resolution}")
        assert found.parameters == sum(p.numel() for p in generator.parameters())
        trained = sum(p.numel() for p in generator.parameters() if p.requires_grad)
        assert found.trainable == trained


@pytest.mark.longer
def test_counts_follow_what_trains() -> None:
    config = tiny(**{"grow.train_lower_levels": True, "grow.trainable_base_blocks": 1})
    highest = tiny(**{"grow.trainable": "highest"})
    for resolution in (16, 32):
        widest, fewest = (Untrained(c, 10, 64) for c in (config, highest))
        trained = [parameters(u.generator(resolution), trained=True) for u in (widest, fewest)]
        assert trained[0] != trained[1]
        # The official set reaches below the paper's, and its gradients have further to go.
        stage = f"grow-{resolution}"
        assert widest.training(stage) != fewest.training(stage)


@pytest.mark.longer
def test_shapes_found_once_change_no_count() -> None:
    def counts() -> list[float]:
        untrained = Untrained(tiny(), 10, 64)
        return [untrained.training(stage) for stage in ("teacher", "distill", "grow-16")]

    alone = counts()
    with SeenBefore():
        assert alone == counts() == counts()


@pytest.mark.slow
def test_a_probe_predicts_hours_of_every_stage_from_its_own_networks() -> None:
    plan = planned(tiny(), probed=True)
    assert plan.probed_on is not None and plan.probed_on.startswith("cpu")
    assert plan.reached_tflops.keys() == {
        "features", "invert", "teacher", "distill", "grow@16", "grow@32"
    }  # fmt: skip
    for name, reached in plan.reached_tflops.items():
        stage = of(plan, name)
        assert stage.hours[THIS_MACHINE] == pytest.approx(stage.flops / (reached * 1e12) / _HOUR)
    assert all(s.hours[THIS_MACHINE] > 0 for s in plan.stages if s.flops)
    assert f"{THIS_MACHINE} hours" in as_markdown(plan)


@pytest.mark.slow
def test_a_latent_experiment_is_probed_on_codes() -> None:
    plan = planned(latent_config(), probed=True)
    assert {"invert", "teacher", "distill", "autoencoder"} <= plan.reached_tflops.keys()


@pytest.mark.longer
def test_guidance_doubles_the_teachers_part_of_an_evaluation() -> None:
    config, denoiser = tiny(), Untrained(tiny(), 10, 200).denoiser_call
    plain, guided = (
        of(planned(tiny(**{"evaluate.guidance": w})), "evaluate@8").flops for w in (1.0, 2.0)
    )
    calls = 2 * config.evaluate.teacher_steps - 1
    assert guided - plain == pytest.approx(denoiser * calls * config.evaluate.samples)


@pytest.mark.longer
def test_hours_are_flops_over_the_reached_share_of_the_peak() -> None:
    plan = planned(tiny(), utilisation=0.5, tflops=10.0)
    teacher = of(plan, "teacher")
    assert teacher.hours["10 TFLOP/s"] == pytest.approx(teacher.flops / 5e12 / _HOUR)
    assert teacher.hours["A100"] == pytest.approx(teacher.flops / (312e12 * 0.5) / _HOUR)
    assert teacher.hours.keys() == {*CARDS, "10 TFLOP/s"}


def test_stages_are_those_of_the_pipeline() -> None:
    names = [s.stage for s in tiny_plan().stages]
    assert names == [
        "downsample@8", "downsample@16", "downsample@32", "features",
        "reference@8", "reference@16", "reference@32", "teacher", "invert", "distill",
        "grow@16", "grow@32", "evaluate@8", "evaluate@16", "evaluate@32",
    ]  # fmt: skip


@pytest.mark.longer
def test_an_experiment_of_captions_trains_two_clips_and_reads_captions() -> None:
    pytest.importorskip("open_clip")
    text = {"text.captions": "short", "text.width": 32, "text.scorer_width": 16}
    plan = planned(tiny(**text), probed=True)
    names = [s.stage for s in plan.stages]
    first = names.index("clip")
    assert names[first : first + 6] == [
        "clip", "scorer", "caption@8", "caption@16", "caption@32", "teacher"
    ]  # fmt: skip
    clip, scorer, caption = (of(plan, s) for s in ("clip", "scorer", "caption@8"))
    assert clip.flops > 2 * scorer.flops > 0 and {"clip", "scorer"} <= plan.reached_tflops.keys()
    assert caption.forward_flops is not None
    assert caption.flops == caption.forward_flops * (plan.train_images + plan.test_images)
    other = planned(tiny(**text, **{"text.encoder": "t5:folder"}))
    assert "clip" not in [s.stage for s in other.stages] and not of(other, "caption@8").flops


def test_bytes_are_those_of_the_arrays() -> None:
    config = tiny(**{"invert.dtype": "fp16"})
    assert image_bytes(config, 16, 5) == 5 * (16 * 16 * 3 + 8)
    assert latent_bytes(config, 7) == 7 * (3 * 8 * 8 * 2 + 17)
    assert image_counts(config) == (200, 100)
    assert image_counts(config, (50, 500)) == (50, 100)


@pytest.mark.slow
def test_the_adversarial_part_is_counted_from_its_start_and_rare_penalties_by_their_rate() -> None:
    def counted(**overrides: object) -> tuple[float, list[float]]:
        config = tiny(**{f"distill.{k}": v for k, v in overrides.items()})
        untrained = Untrained(config, 10, 64)
        method = untrained.method("distill")
        steps = [step_flops(method, i, progress) for i, progress in ((0, 0.1), (0, 0.9), (1, 0.9))]
        return untrained.training("distill"), steps

    # 8 steps, the last 4 with the adversarial loss
    total, (before, after, _) = counted(**{"loss.adversarial_start": 0.5})
    assert before < after and total == 4 * before + 4 * after
    every = {"discriminator.r1": 1.0, "discriminator.r1_every": 4, "loss.adversarial_start": 0.0}
    total, (_, penalised, usual) = counted(**every)
    assert penalised > usual and total == 2 * penalised + 6 * usual


def test_diffusion_at_the_base_is_the_teacher_and_costs_fourfold_a_doubling() -> None:
    plan = tiny_plan()
    base, *higher = plan.growth
    assert base.flops == of(plan, "teacher").flops
    assert base.times_base == base.rule == 1
    assert [d.rule for d in higher] == [4, 16]
    parts = ("teacher", "invert", "distill", "grow@16", "grow@32")
    assert higher[-1].reached_flops == pytest.approx(sum(of(plan, p).flops for p in parts))


@pytest.mark.slow
def test_every_option_of_the_losses_is_counted() -> None:
    def cost(**overrides: object) -> float:
        changed = {f"distill.{k}": v for k, v in overrides.items()}
        return Untrained(tiny(**changed), 10, 64).training("distill")

    usual = cost()
    assert cost(**{"discriminator.r1": 1.0}) > usual
    assert cost(**{"loss.feature_weight": 1.0}) > usual
    assert cost(**{"loss.weighting": "adaptive"}) > usual
    assert cost(**{"discriminator.kind": "encoder"}) not in (0, usual)
    assert cost(**{"loss.distance": "lpips"}) > usual
    assert cost(**{"loss.regression": "noise_to_data"}) > usual


def test_what_cannot_be_is_said_in_one_line(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(**{"data.source": "zip", "data.path": "nowhere.zip",
                            "data.train_images": None})  # fmt: skip
    with pytest.raises(PagodaError, match="--images TRAIN,TEST"):
        planned(config)
    with pytest.raises(PagodaError, match="two counts"):
        planned(config, images="12")
    with pytest.raises(PagodaError, match="--utilisation"):
        planned(config, utilisation=1.5)
    with pytest.raises(PagodaError, match="no profile 'huge'"):
        profile_tree("huge", ROOT)


def test_the_plan_is_json() -> None:
    tree = json.loads(json.dumps(dataclasses.asdict(tiny_plan()), allow_nan=False))
    assert tree["schema"] == 1
    assert tree.keys() == {f.name for f in dataclasses.fields(Plan)}
    for stage in tree["stages"]:
        assert stage.keys() == {f.name for f in dataclasses.fields(Stage)}
        assert stage["flops"] >= 0 and stage["hours"].keys() == CARDS.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(f.stem for f in (ROOT / "experiments" / "profile").glob("*.yaml"))
)
def test_every_profile_plans(name: str) -> None:
    plan = planned(parse(profile_tree(name, ROOT)))
    for stage in (of(plan, s) for s in ("teacher", "invert", "distill")):
        assert (stage.flops > 0) != stage.imported  # what is imported costs nothing
    assert [d.resolution for d in plan.growth] == plan.resolutions
