"""The site's rule for links that leave its folder: files come along, and none leads nowhere."""

from __future__ import annotations

import importlib.util
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.tiny import ROOT


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Files(list[Any]):
    def get_file_from_path(self, path: str) -> Any:
        return next((file for file in self if file.src_uri == path), None)


def rewritten(hooks: ModuleType, text: str, files: Files) -> str:
    from mkdocs.config.base import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), hooks=[], plugins=[])
    config.plugins._current_plugin = "hooks"  # as while a hook runs
    page = SimpleNamespace(file=SimpleNamespace(src_path="page.md"))
    made: str = hooks.on_page_markdown(text, page=page, config=config, files=files)
    return made


def test_files_come_along_once_and_markdown_becomes_its_path(hooks: ModuleType) -> None:
    files = Files()
    table = "../reports/smoke/b8/results.csv"
    text = f"[a]({table}) [b]({table}) [the readme](../README.md) [in](using.md)"
    assert rewritten(hooks, text, files) == (
        "[a](repository/reports/smoke/b8/results.csv) [b](repository/reports/smoke/b8/results.csv) "
        "the readme (`README.md`) [in](using.md)"
    )
    (file,) = files
    assert file.content_bytes == (ROOT / "reports/smoke/b8/results.csv").read_bytes()


def test_a_link_that_leads_nowhere_stops_the_build(hooks: ModuleType) -> None:
    with pytest.raises(Exception, match=r"page\.md: \.\./reports/none\.csv is not there"):
        rewritten(hooks, "[a](../reports/none.csv)", Files())


def test_every_page_is_in_the_contents() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    told = yaml.safe_dump(yaml.safe_load(text)["nav"])
    assert all(file.name in told for file in (ROOT / "docs").glob("*.md"))


def test_the_readme_is_short_and_shows_a_result_first() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    assert any("reports/smoke" in line for line in lines[:12])
