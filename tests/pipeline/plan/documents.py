"""The tables of ``docs/plan.md``: ``python -m tests.pipeline.plan.documents`` writes them anew.

The plans themselves go to ``reports/plans/``, where ``pagoda report --all`` reads them.
"""

from __future__ import annotations

import re
from functools import cache

from pagoda.config import parse
from pagoda.pipeline.derive import profile_tree
from pagoda.pipeline.plan.request import plan_json, planned
from pagoda.pipeline.plan.tables import as_markdown
from pagoda.results.plans import Plan
from tests.tiny import ROOT

PAGE = ROOT / "docs" / "plan.md"
PLANS = ROOT / "reports" / "plans"
_BLOCK = re.compile(r"(<!-- pagoda plan --profile (\w+) -->\n).*?(<!-- end -->)", re.S)


def profiles() -> list[str]:
    """Profiles whose tables the page has."""
    return [name for _, name, _ in _BLOCK.findall(PAGE.read_text())]


@cache
def plan_of(name: str) -> Plan:
    """The plan of a profile as the command makes it."""
    return planned(parse(profile_tree(name, ROOT)))


def rendered() -> str:
    """The page with its tables as the command prints them now."""

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}\n{as_markdown(plan_of(found[2]))}\n{found[3]}"

    return _BLOCK.sub(block, PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(rendered())
    PLANS.mkdir(exist_ok=True)
    for profile in profiles():
        (PLANS / f"{profile}.json").write_text(plan_json(plan_of(profile)))
