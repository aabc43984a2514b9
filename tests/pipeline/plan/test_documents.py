"""The tables of ``docs/plan.md`` and the plans in ``reports/plans`` are what the command prints."""

from __future__ import annotations

import json

import pytest

from pagoda.pipeline.plan.request import plan_json
from tests.pipeline.plan.documents import PAGE, PLANS, plan_of, profiles, rendered

_SHOWN = ["imagenet", "imagenet_1024", "latent", "imagenette"]


def test_page_and_plans_are_of_the_same_profiles() -> None:
    assert profiles() == _SHOWN
    assert set(_SHOWN) <= {file.stem for file in PLANS.glob("*.json")}


def test_the_page_shows_the_plans_that_are_kept() -> None:
    text = PAGE.read_text()
    for name in _SHOWN:
        plan = json.loads((PLANS / f"{name}.json").read_text())
        sizes = {stage["stage"]: stage["parameters"] for stage in plan["stages"]}
        assert f"| teacher | {sizes['teacher'] / 1e6:.2f} M |" in text


@pytest.mark.slow
def test_tables_are_those_of_the_command_byte_for_byte() -> None:
    assert rendered() == PAGE.read_text()
    for name in _SHOWN:
        assert plan_json(plan_of(name)) == (PLANS / f"{name}.json").read_text()
