"""Nothing of ours is a pickle: such a file runs code when it is read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.import_closure import ROOT

FILES = sorted((ROOT / "pagoda").rglob("*.py"))
FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_pickle(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            assert not {a.name.split(".")[0] for a in node.names} & FORBIDDEN
        if isinstance(node, ast.ImportFrom):
            harmless = [alias.name for alias in node.names] == ["UnpicklingError"]
            assert harmless or (node.module or "").split(".")[0] not in FORBIDDEN
        if isinstance(node, ast.Call):
            _check(ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords})


def _check(function: str, keywords: dict[str | None, str]) -> None:
    assert function != "torch.save"
    assert keywords.get("allow_pickle") != "True"
    if function in ("np.load", "numpy.load"):
        assert keywords.get("allow_pickle", "False") == "False"  # numpy's default
    if function == "torch.load":
        assert keywords.get("weights_only") == "True"
