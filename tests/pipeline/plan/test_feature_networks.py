"""Feature networks in a plan: counts against the networks themselves."""

from __future__ import annotations

import pytest
import timm
import torch

from pagoda.pipeline.plan.count import feature_flops
from pagoda.pipeline.plan.request import planned
from pagoda.pipeline.plan.tables import as_markdown
from pagoda.pipeline.stages.counters import forward_flops
from pagoda.results.plans import Plan, Stage
from tests.pipeline.plan.test_plan import of, tiny, tiny_plan


@pytest.mark.longer
@pytest.mark.parametrize(("name", "depth", "width"), [("vits14", 12, 384), ("vitg14", 40, 1536)])
def test_dinov2_is_counted_as_its_design_says(name: str, depth: int, width: int) -> None:
    """Projections, MLP and attention of 257 tokens in every layer, and the patches.

    ViT-g's gated MLP is narrower, so that it costs the same.
    """
    layers = depth * (24 * 257 * width**2 + 4 * 257**2 * width)
    assert feature_flops(f"dinov2:{name}:dgm") == layers + 2 * 256 * 3 * 14**2 * width


@pytest.mark.longer
@pytest.mark.parametrize(("name", "published"), [("vits14", "small"), ("vitg14", "giant")])
def test_dinov2_is_counted_as_timms_network_runs(name: str, published: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(f"vit_{published}_patch14_dinov2", img_size=224).eval()
        x = torch.zeros(2, 3, 224, 224)
    assert feature_flops(f"dinov2:{name}:dgm") == forward_flops(network, x) / 2


def test_inception_is_counted_as_published() -> None:
    """Szegedy et al. 2015, section 6: a cost of five billion multiply-adds at 299x299."""
    every = {feature_flops(f"inception:{mode}") for mode in ("clean", "legacy_tensorflow")}
    (flops,) = every
    assert 5.0e9 < flops / 2 < 6.0e9


@pytest.mark.longer
def test_references_and_evaluations_hold_every_network() -> None:
    names = ["classifier", "inception:clean", "dinov2:vits14:edm2"]
    plain, evaluated = tiny_plan(), planned(tiny(**{"reference.extractors": names}))
    each = sum(map(feature_flops, names))

    def more(stage: str) -> float:
        return of(evaluated, stage).flops - of(plain, stage).flops

    assert more("reference@8") == pytest.approx(200 * each)  # training images
    assert more("evaluate@8") == pytest.approx((4 * 64 + 64) * each)  # with held-out ones
    assert more("evaluate@16") == pytest.approx((2 * 64 + 64) * each)
    assert _without_evaluation(evaluated) == _without_evaluation(plain)
    assert "dinov2:vits14:edm2" in as_markdown(evaluated) and "dinov2" not in as_markdown(plain)


@pytest.mark.longer
def test_a_network_of_ones_own_is_said_not_to_be_counted() -> None:
    names = ["classifier", "custom:mine.pt"]
    plan = planned(tiny(**{"reference.extractors": names}))
    assert plan.uncounted == ["custom:mine.pt"]
    assert of(plan, "evaluate@8").flops == of(tiny_plan(), "evaluate@8").flops
    assert "Not known and not counted: custom:mine.pt." in as_markdown(plan)


def _without_evaluation(plan: Plan) -> list[Stage]:
    return [s for s in plan.stages if s.stage.partition("@")[0] not in ("reference", "evaluate")]
