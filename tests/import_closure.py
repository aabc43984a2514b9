"""Which code a stage of ``dvc.yaml`` depends on, found from import statements, without running it.

``python -m tests.import_closure`` prints the code ``deps`` that every stage should have.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent

# These pass values on or show them; no edit of theirs can change what a stage writes. Parameters
# are watched by value (`params:` in dvc.yaml), and a path that is not the declared one makes DVC
# fail; `root.py` says where interrupted work is kept, under a name that holds its fingerprint.
# `processes.py` shares work out and changes nothing of what is computed (tested: several processes
# equal one), and `outputs.py` puts files into their places. `pagoda/artifacts.py` is not among
# them: it decides what is in the files.
EXEMPT = frozenset(
    {
        "pagoda/__main__.py",
        "pagoda/cli.py",
        "pagoda/errors.py",
        "pagoda/outputs.py",
        "pagoda/processes.py",
        "pagoda/stages/paths.py",
        "pagoda/stages/progress.py",
        "pagoda/stages/root.py",
        *(str(file.relative_to(ROOT)) for file in ROOT.glob("pagoda/config/*.py")),
    }
)


@cache
def closure(module: str) -> frozenset[str]:
    """Files (relative to the root) that importing ``module`` and calling it can execute.

    Imports inside functions count; those under ``if TYPE_CHECKING`` do not. The ``__init__.py`` of
    packages hold no code (tested) and are left out.
    """
    found: dict[str, Path] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        file = _file(name)
        if name in found or file is None:
            continue
        found[name] = file
        pending += _imports(file, name)
        pending += _parents(name)
    files = {str(f.relative_to(ROOT)) for f in found.values() if f.stem != "__init__"}
    return frozenset(files - EXEMPT)


def stage_module(command: str) -> str:
    """``pagoda teacher`` or ``python -m pagoda teacher --x`` -> ``pagoda.stages.teacher``."""
    words = command.split()
    return f"pagoda.stages.{words[words.index('pagoda') + 1]}"


def suggest(files: Iterable[str]) -> list[str]:
    """The ``deps`` that cover ``files``: a package that is used whole by its folder, else files.

    Files, so that an edit of the discriminator does not train the teacher again.
    """
    files = set(files)
    whole = {str(Path(f).parent) for f in files if _modules(Path(f).parent) <= files}
    whole.discard("pagoda")
    return sorted({str(Path(f).parent) if str(Path(f).parent) in whole else f for f in files})


def _modules(folder: Path) -> set[str]:
    return {str(folder / f.name) for f in (ROOT / folder).glob("*.py") if f.stem != "__init__"}


def _file(module: str) -> Path | None:
    stem = ROOT.joinpath(*module.split("."))
    for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _imports(file: Path, module: str) -> Iterator[str]:
    for node in executed(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "pagoda")
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import; the house style is absolute"
            if node.module and node.module.split(".")[0] == "pagoda":
                yield node.module
                yield from (f"{node.module}.{a.name}" for a in node.names)


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from executed(node)


def main() -> None:
    """Print the code deps that each stage of ``dvc.yaml`` should have."""
    import yaml

    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        module = stage_module(stage.get("do", stage)["cmd"])
        print(f"{name}:" + ("" if _file(module) else f"  # {module} does not exist"))
        for dep in suggest(closure(module)):
            print(f"  - {dep}")


if __name__ == "__main__":
    main()
