"""``dvc.yaml``: what it declares against what the code does."""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pagoda.config import DERIVED, NO_WEIGHTS, Config
from pagoda.pipeline.derive import profile_tree
from pagoda.pipeline.dvc_stages import chosen, code_of, with_code
from pagoda.pipeline.stages.code import EXEMPT, ROOT, closure, executed
from tests.tiny import override, smoke_tree

STAGES: dict[str, dict[str, Any]] = {
    name: stage.get("do", stage)
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
}


def stage_module(command: str) -> str:
    """``python -m pagoda teacher --x`` -> ``pagoda.pipeline.stages.teacher``."""
    words = command.split()
    return f"pagoda.pipeline.stages.{words[words.index('pagoda') + 1]}"


def _code(stage: str) -> frozenset[str]:
    return closure(stage_module(STAGES[stage]["cmd"]))


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_what_the_stage_imports(stage: str) -> None:
    """A change of what it imports reruns it: files of its own, and folders of the library."""
    module = stage_module(STAGES[stage]["cmd"])
    assert ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file()
    declared = [d for d in STAGES[stage]["deps"] if d.startswith("pagoda/")]
    deps = [d for d in declared if "$" not in d]
    assert deps == code_of(stage, *chosen(STAGES[stage]["deps"])), "run 'pagoda derive --stages'"
    files = _code(stage)
    assert files and not [f for f in files if not any(Path(f).is_relative_to(d) for d in deps)]


def test_the_code_that_comes_after_never_trains_again() -> None:
    later = ("pagoda/results", "pagoda/pipeline/cli", "pagoda/pipeline/commands")
    for stage in ("features", "teacher", "invert", "distill", "grow", "evaluate"):
        assert not [f for f in _code(stage) if f.startswith(later)], stage
    for stage in ("teacher", "invert", "distill", "grow"):
        assert not [f for f in _code(stage) if f.startswith("pagoda/evaluation")], stage
    assert not [f for f in closure("pagoda.pipeline.stages.variant") if f.startswith(later)]


def test_stages_are_written_again_when_imports_change() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert with_code(text) == text
    odd = re.sub(r"( +)- pagoda/tensors\.py\n", r"\1- pagoda/old\n", text)
    assert odd != text and with_code(odd) == text


NAMES = "pagoda/pipeline/stages/made.py"
"""Names artifacts: which keys it reads is decided by the artifact that a stage asks for."""

NOT_ITS_OWN = {"features": {"base_res", "diffusion", "seed"}}
"""Read in train.py for generators; the classifier has no noise, and its seed is features.seed."""


def _sections_read(stage: str) -> set[str]:
    """Fields of ``Config`` read in the stage's closure, other stages' own modules left out."""
    own = stage_module(STAGES[stage]["cmd"])
    others = {stage_module(s["cmd"]).replace(".", "/") + ".py" for s in STAGES.values()}
    files = (_code(stage) - others - {NAMES}) | {own.replace(".", "/") + ".py"}
    fields = {f.name for f in dataclasses.fields(Config)}
    return fields & {
        node.attr
        for file in files
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == "config"
    }


@pytest.mark.parametrize("stage", STAGES)
def test_every_section_a_stage_reads_is_a_parameter(stage: str) -> None:
    # The derived keys follow from others.
    missed = _sections_read(stage) - set(DERIVED) - set(STAGES[stage]["params"])
    missed -= NOT_ITS_OWN.get(stage, set())
    assert not missed, f"{stage} reads {sorted(missed)}; without them in params it would not rerun"


def test_closure_finds_lazy_imports_and_skips_type_checking() -> None:
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import hidden\n"
        "def f():\n    import lazy\n"
    )
    names = [n.names[0].name for n in executed(ast.parse(source)) if isinstance(n, ast.Import)]
    assert names == ["lazy"]


def test_closure_agrees_with_what_python_imports() -> None:
    """What importing the teacher stage loads, really, is in the closure found by reading."""
    program = (
        "import sys, pagoda.pipeline.stages.teacher as m\n"
        "print(*(x.__file__ for n, x in sys.modules.items() if n.split('.')[0] == 'pagoda'))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = {str(Path(f).relative_to(ROOT)) for f in done.stdout.split()}
    assert "pagoda/pipeline/stages/teacher.py" in loaded
    modules = {f for f in loaded if not f.endswith("__init__.py")}
    sections = {
        "pagoda/methods/autoencoder.py",
        "pagoda/methods/clip.py",
        "pagoda/methods/guided.py",
        "pagoda/methods/one_step.py",
    }  # parameters are watched by value
    assert modules - EXEMPT - sections <= closure("pagoda.pipeline.stages.teacher")


def test_packages_hold_no_code() -> None:
    """Why ``__init__.py`` files need not be dependencies, but for those that nothing depends on."""
    files = {str(file.relative_to(ROOT)) for file in ROOT.glob("pagoda/*/**/__init__.py")}
    for file in sorted(files - EXEMPT):
        body = ast.parse((ROOT / file).read_text()).body
        assert all(isinstance(n, ast.Expr | ast.Assign | ast.ImportFrom) for n in body), file
        assert not [n for n in body if isinstance(n, ast.ImportFrom) and n.module != "__future__"]


def _repo(folder: Path, tree: dict[str, Any]) -> Any:
    """A DVC repository with the real ``dvc.yaml`` and the given parameters."""
    from dvc.repo import Repo

    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    shutil.copy(ROOT / "dvc.yaml", folder)
    return Repo.init(str(folder), no_scm=True)


@pytest.fixture(params=[8, 16, 32], scope="module")
def resolved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, Any]]:
    """The pipeline as DVC resolves it for one base resolution."""
    folder = tmp_path_factory.mktemp(f"base{request.param}")
    with _repo(folder, smoke_tree(base_res=request.param)) as repo:
        yield request.param, repo


def _inputs_without_a_stage(repo: Any) -> set[str]:
    made = {str(out.def_path) for stage in repo.index.stages for out in stage.outs}
    read = {str(dep.def_path) for stage in repo.index.stages for dep in stage.deps}
    artifacts = {path for path in read if path.startswith(("runs/", "reports/"))}
    return {p for p in artifacts - made if not any(m.startswith(p + "/") for m in made)}


def test_stages_follow_the_base_resolution(resolved: tuple[int, Any]) -> None:
    base, repo = resolved
    ladder = [r for r in (8, 16, 32) if r >= base]
    names = {stage.name for stage in repo.index.stages}
    for group in ("downsample", "reference", "evaluate"):
        assert {n for n in names if n.startswith(group + "@")} == {f"{group}@{r}" for r in ladder}
    assert {n for n in names if n.startswith("grow@")} == {f"grow@{r}" for r in ladder[1:]}
    assert {"features", "teacher", "invert", "distill", "report"} <= names


def test_every_input_is_made_by_a_stage(resolved: tuple[int, Any]) -> None:
    _, repo = resolved
    repo.index.check_graph()
    assert not _inputs_without_a_stage(repo)


def _weights_read(repo: Any) -> dict[str, str]:
    return {
        stage.name: str(dep.def_path)
        for stage in repo.index.stages
        for dep in stage.deps
        if str(dep.def_path).startswith("weights/")
    }


def test_a_stage_reruns_when_the_weights_it_takes_change(tmp_path: Path) -> None:
    """Every stage that can take weights depends on their folder, whatever it is named."""
    tree = profile_tree("official", ROOT)
    with _repo(tmp_path, tree) as repo:
        repo.index.check_graph()
        assert _weights_read(repo) == {
            "teacher": "weights/teacher",
            "distill": "weights/generator/64",
            **dict.fromkeys(("grow@128", "grow@256", "grow@512"), "weights/generator"),
            "features": NO_WEIGHTS,
            **dict.fromkeys((f"reference@{r}" for r in (64, 128, 256, 512)), NO_WEIGHTS),
        }


def test_the_folder_of_no_weights_is_in_the_repository(resolved: tuple[int, Any]) -> None:
    assert set(_weights_read(resolved[1]).values()) == {NO_WEIGHTS}
    command = ["git", "ls-files", "--error-unmatch", NO_WEIGHTS]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("base_res", [4, 16, 48, 64])
def test_a_hand_edit_of_base_res_reaches_pagoda(base_res: int, tmp_path: Path) -> None:
    """With the lists left as they were, DVC has no complaint of its own and runs a stage.

    That stage reads ``params.yaml`` and says which command mends it.
    """
    with _repo(tmp_path, override(smoke_tree(), {"base_res": base_res})) as repo:
        repo.index.check_graph()
        assert not _inputs_without_a_stage(repo)
    assert "base_res" in STAGES["teacher"]["params"]


def test_commands_name_real_commands(resolved: tuple[int, Any]) -> None:
    """Each resolved ``cmd`` parses as a command line of pagoda, options included."""
    from typer.main import get_command

    from pagoda.pipeline.cli import app

    _, repo = resolved
    group = get_command(app)
    for stage in repo.index.stages:
        words = stage.cmd.split()
        name, *options = words[words.index("pagoda") + 1 :]
        command = group.commands[name]  # type: ignore[attr-defined]
        command.make_context(name, list(options), resilient_parsing=False)
