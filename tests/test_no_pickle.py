"""Nothing of ours is a pickle: such a file runs code when it is read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pagoda.pipeline.stages.code import ROOT

FILES = sorted((ROOT / "pagoda").rglob("*.py"))
READER = ROOT / "pagoda" / "weights" / "pickles.py"
FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_pickle(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = {a.name.split(".")[0] for a in node.names} & FORBIDDEN
            assert not found or (file, found) == (READER, {"pickle"})
        if isinstance(node, ast.ImportFrom):
            harmless = [alias.name for alias in node.names] == ["UnpicklingError"]
            assert harmless or (node.module or "").split(".")[0] not in FORBIDDEN
        if isinstance(node, ast.Call):
            _check(ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords})


def test_the_one_reader_of_pickles_imports_no_name_that_a_pickle_holds() -> None:
    tree = ast.parse(READER.read_text())
    used = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    assert [u for u in used if u.startswith("pickle.")] == ["pickle.Unpickler"]
    assert not [u for u in used if u.endswith((".import_module", "super().find_class"))]
    functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    assert {"find_class", "persistent_load"} <= functions


def _check(function: str, keywords: dict[str | None, str]) -> None:
    assert function != "torch.save"
    assert keywords.get("allow_pickle") != "True"
    if function in ("np.load", "numpy.load"):
        assert keywords.get("allow_pickle", "False") == "False"  # numpy's default
    if function == "torch.load":
        assert keywords.get("weights_only") == "True"
