"""The profiles of the paper's size: where each value comes from, and what they build."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from pagoda.config import parse
from pagoda.pipeline.derive import profile_tree
from pagoda.pipeline.plan.request import planned
from pagoda.pipeline.plan.tables import as_markdown
from pagoda.pipeline.stages.compute import Untrained
from tests.tiny import ROOT

_TAG = re.compile(r"  # \[(paper|code|both|ours)\](.*)$")


def _leaves(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        if key.value == "defaults":  # what it builds on
            continue
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, key.start_mark.line


@pytest.mark.parametrize("profile", ["imagenet", "official"])
def test_every_key_says_where_its_value_comes_from(profile: str) -> None:
    text = (ROOT / "experiments" / "profile" / f"{profile}.yaml").read_text()
    lines = text.splitlines()
    found = {key: _TAG.search(lines[line]) for key, line in _leaves(yaml.compose(text))}
    assert not [key for key, tag in found.items() if tag is None]
    tags = {tag[1] for tag in found.values() if tag}
    assert tags == {"paper", "code", "both", "ours"} or profile == "official"


def test_official_is_imagenet_with_weights_instead_of_training() -> None:
    """A value that is another in the two profiles is one that this profile is about."""
    trees = [dict(_flat(profile_tree(name, ROOT))) for name in ("imagenet", "official")]
    differ = {key for key in trees[0] | trees[1] if trees[0].get(key) != trees[1].get(key)}
    about = {"teacher.imported", "distill.imported", "grow.imported"}
    assert differ == about | {"name", "invert.images"}


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.slow
def test_a_plan_of_official_trains_the_feature_network_only() -> None:
    plan = planned(parse(profile_tree("official", ROOT)))
    stages = {stage.stage: stage for stage in plan.stages}
    taken = {"teacher", "distill", "grow@128", "grow@256", "grow@512"}
    assert {name for name, stage in stages.items() if stage.imported} == taken
    assert {name for name, stage in stages.items() if stage.trainable} == {"features"}
    assert not any(stages[name].flops for name in taken)
    assert stages["grow@512"].parameters == pytest.approx(301.59e6, abs=1e4)
    assert stages["invert"].flops > 0 and stages["evaluate@64"].flops > 0
    assert "imported" in as_markdown(plan)


@pytest.mark.parametrize(
    ("resolution", "millions", "trained"),
    [(64, 295.90, 295.90), (128, 298.34, 27.17), (256, 300.77, 29.61), (512, 301.59, 30.43)],
)
def test_generators_have_the_sizes_of_the_official_architecture(
    resolution: int, millions: float, trained: float
) -> None:
    generator = Untrained(parse(profile_tree("imagenet", ROOT)), 1000, 1).generator(resolution)
    sizes = [(p.numel(), p.requires_grad) for p in generator.parameters()]
    assert sum(n for n, _ in sizes) / 1e6 == pytest.approx(millions, abs=0.01)
    assert sum(n for n, trains in sizes if trains) / 1e6 == pytest.approx(trained, abs=0.01)
