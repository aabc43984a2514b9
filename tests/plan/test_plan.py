"""``pagoda plan``: counts against closed forms, real modules and the files that stages write."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pagoda.config import Config, parse
from pagoda.derive import profile_tree
from pagoda.errors import PagodaError
from pagoda.networks.flops import forward_flops, training_flops
from pagoda.networks.generator import generator_from_teacher, grow
from pagoda.plan.request import planned
from pagoda.plan.rows import CARDS, THIS_MACHINE, Plan, Stage
from pagoda.plan.shapes import SeenBefore
from pagoda.plan.sizes import image_bytes, image_counts, latent_bytes
from pagoda.plan.tables import as_markdown
from pagoda.stages.compute import Counter, Draws, counted
from pagoda.stages.grow import freeze, level_channels
from tests.tiny import ROOT, tiny_tree

_HOUR = 3600


def tiny(**overrides: object) -> Config:
    return parse(tiny_tree(**overrides))


def of(plan: Plan, stage: str) -> Stage:
    return next(s for s in plan.stages if s.stage == stage)


def test_convolutions_and_matrix_products_are_counted_in_closed_form() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 5))
        x = torch.zeros(4, 3, 6, 6)
    conv, linear = 2 * 4 * 36 * 3 * 9 * 8, 2 * 4 * (8 * 36) * 5
    assert forward_flops(net, x) == conv + linear
    # Backward: gradients of weights and of inputs, but none of the image.
    assert training_flops(net, x) == 2 * conv + 3 * linear
    net[0].requires_grad_(False)
    assert training_flops(net, x) == conv + 2 * linear


def test_counts_on_the_meta_device_are_those_of_real_tensors() -> None:
    config = tiny()
    meta, real = Counter(config, 10, 64), Counter(config, 10, 64, torch.device("cpu"))
    assert meta.denoiser_training() == real.denoiser_training() > 0
    assert meta.growth(16) == real.growth(16) > 0


def test_parameters_are_those_of_the_modules_that_stages_build() -> None:
    config = tiny()
    plan, counter = planned(config), Counter(config, 10, 64, torch.device("cpu"))
    denoiser = counter.denoiser
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


def test_counts_follow_what_trains() -> None:
    config = tiny(**{"grow.train_lower_levels": True, "grow.trainable_base_blocks": 1})
    highest = tiny(**{"grow.trainable": "highest"})
    for resolution in (16, 32):
        widest, fewest = (of(planned(c), f"grow@{resolution}") for c in (config, highest))
        generator = Counter(highest, 10, 64).generator_at(resolution)
        expected = {id(p) for p in generator.parameters() if p.requires_grad}
        generator.freeze_below_top()
        assert {id(p) for p in generator.parameters() if p.requires_grad} == expected
        # The official set reaches below the paper's, and its gradients have further to go.
        assert fewest.trainable != widest.trainable
        assert fewest.flops != widest.flops and fewest.forward_flops == widest.forward_flops


def test_shapes_found_once_change_no_count() -> None:
    counter = Counter(tiny(), 10, 64)
    alone = counter.denoiser_training(), counter.growth(16), counter.distillation()
    with SeenBefore():
        first = counter.denoiser_training(), counter.growth(16), counter.distillation()
        again = counter.denoiser_training(), counter.growth(16), counter.distillation()
    assert alone == first == again


def test_a_probe_foretells_hours_of_every_stage_from_its_own_networks() -> None:
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


def test_hours_are_flops_over_the_reached_share_of_the_peak() -> None:
    plan = planned(tiny(), utilisation=0.5, tflops=10.0)
    teacher = of(plan, "teacher")
    assert teacher.hours["10 TFLOP/s"] == pytest.approx(teacher.flops / 5e12 / _HOUR)
    assert teacher.hours["A100"] == pytest.approx(teacher.flops / (312e12 * 0.5) / _HOUR)
    assert teacher.hours.keys() == {*CARDS, "10 TFLOP/s"}


def test_stages_are_those_of_the_pipeline() -> None:
    names = [s.stage for s in planned(tiny()).stages]
    assert names == [
        "downsample@8", "downsample@16", "downsample@32", "features",
        "reference@8", "reference@16", "reference@32", "teacher", "invert", "distill",
        "grow@16", "grow@32", "evaluate@8", "evaluate@16", "evaluate@32",
    ]  # fmt: skip


def test_bytes_are_those_of_the_arrays() -> None:
    config = tiny(**{"invert.dtype": "fp16"})
    assert image_bytes(config, 16, 5) == 5 * (16 * 16 * 3 + 8)
    assert latent_bytes(config, 7) == 7 * (3 * 8 * 8 * 2 + 17)
    assert image_counts(config) == (200, 100)
    assert image_counts(config, (50, 500)) == (50, 100)


def test_draws_follow_what_the_discriminator_judges() -> None:
    def draws(fakes: str, **more: object) -> Draws:
        return Draws.of(counted(tiny(**{"distill.loss.fakes": fakes, **more}).distill))

    late: dict[str, object] = {"distill.loss.adversarial_start": 0.5, "distill.prior_batch": 8}
    assert draws("prior", **late) == Draws(128, 32, 32, 32)
    assert draws("reconstructions", **late) == Draws(128, 0, 32, 64)
    assert draws("both", **late) == Draws(128, 32, 32, 96)
    assert draws("prior", **{"distill.loss.adversarial": "none"}) == Draws(128, 0, 0, 0)


def test_diffusion_at_the_base_is_the_teacher_and_costs_fourfold_a_doubling() -> None:
    plan = planned(tiny())
    base, *higher = plan.growth
    assert base.flops == of(plan, "teacher").flops
    assert base.times_base == base.rule == 1
    assert [d.rule for d in higher] == [4, 16]
    parts = ("teacher", "invert", "distill", "grow@16", "grow@32")
    assert higher[-1].reached_flops == pytest.approx(sum(of(plan, p).flops for p in parts))


def test_every_option_of_the_losses_is_counted() -> None:
    def cost(**overrides: object) -> float:
        changed = {f"distill.{k}": v for k, v in overrides.items()}
        return Counter(tiny(**changed), 10, 64).distillation()

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
    tree = json.loads(json.dumps(dataclasses.asdict(planned(tiny())), allow_nan=False))
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
