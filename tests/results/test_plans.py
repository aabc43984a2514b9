"""Plans on the page: the numbers of ``pagoda plan --json``, and one line for what is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pagoda.config import parse
from pagoda.errors import PagodaError
from pagoda.pipeline.plan.request import planned
from pagoda.results.numbers import number
from pagoda.results.plans import FOLDER, plan_tables
from tests.tiny import tiny_tree


@pytest.mark.longer
def test_the_tables_hold_what_was_counted(tmp_path: Path) -> None:
    plan = planned(parse(tiny_tree()))
    (tmp_path / FOLDER).mkdir()
    text = json.dumps(dataclasses.asdict(plan))
    (tmp_path / FOLDER / "tiny.json").write_text(text)
    made = plan_tables(tmp_path)
    stages = {row[0].text: [c.text for c in row] for row in made["plan-tiny-stages"].rows}
    for stage in (s for s in plan.stages if s.flops):
        assert number(stage.flops / 1e15) in stages[stage.stage]
    assert stages["**all**"][4] == number(sum(s.flops for s in plan.stages) / 1e15)
    growth = made["plan-tiny-growth"].rows
    assert [row[0].text for row in growth] == [f"{r}×{r}" for r in plan.resolutions]
    last = plan.growth[-1]
    assert growth[-1][-1].text == f"{last.reached_flops / last.flops:.1%}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no plan"),
        ("[]", "is no plan"),
        ('{"schema": 1}', "is no plan"),
        ('{"schema": 0}', "version 0"),
    ],
)
def test_a_damaged_plan_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "tiny.json").write_text(text)
    with pytest.raises(PagodaError, match=message) as caught:
        plan_tables(tmp_path)
    assert "\n" not in str(caught.value)
    assert "pagoda plan --profile tiny --json" in str(caught.value)


def test_without_plans_there_are_no_tables(tmp_path: Path) -> None:
    assert plan_tables(tmp_path) == {}
