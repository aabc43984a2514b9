"""Every benchmark is imported and says what it takes, so that none falls behind the package."""

from __future__ import annotations

import importlib
import sys

import pytest

from tests.tiny import ROOT

MODULES = sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_it_is_imported_and_says_what_it_takes(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    if not hasattr(module, "main"):
        return  # a part of others
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as left:
        module.main()
    assert left.value.code == 0 and f"usage: {name}" in capsys.readouterr().out
