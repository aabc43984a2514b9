"""The profile of the paper's size: where each value comes from, and what it builds."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from pagoda.config import parse
from pagoda.derive import profile_tree
from pagoda.stages.compute import Counter
from tests.tiny import ROOT

_FILE = ROOT / "experiments" / "profile" / "imagenet.yaml"
_TAG = re.compile(r"  # \[(paper|code|both|ours)\](.*)$")


def _leaves(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, key.start_mark.line


def test_every_key_says_where_its_value_comes_from() -> None:
    text = _FILE.read_text()
    lines = text.splitlines()
    found = {key: _TAG.search(lines[line]) for key, line in _leaves(yaml.compose(text))}
    assert not [key for key, tag in found.items() if tag is None]
    assert {tag[1] for tag in found.values() if tag} == {"paper", "code", "both", "ours"}


@pytest.mark.parametrize(
    ("resolution", "millions", "trained"),
    [(64, 295.90, 295.90), (128, 298.34, 27.17), (256, 300.77, 29.61), (512, 301.59, 30.43)],
)
def test_generators_have_the_sizes_of_the_official_architecture(
    resolution: int, millions: float, trained: float
) -> None:
    generator = Counter(parse(profile_tree("imagenet", ROOT)), 1000, 1).generator_at(resolution)
    sizes = [(p.numel(), p.requires_grad) for p in generator.parameters()]
    assert sum(n for n, _ in sizes) / 1e6 == pytest.approx(millions, abs=0.01)
    assert sum(n for n, trains in sizes if trains) / 1e6 == pytest.approx(trained, abs=0.01)
