"""Which code a stage's result depends on, found from import statements, without running it."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pagoda

ROOT = Path(pagoda.__file__).parent.parent

# These pass values on or show them; no edit of theirs can change what a stage writes. Parameters
# are watched by value (`params:` in dvc.yaml), and a path that is not the declared one makes DVC
# fail; `root.py` and this file say where interrupted work is kept, under a name that holds its
# fingerprint. `distributed.py` shares work out and changes nothing of what is computed (tested:
# several processes equal one), and `outputs.py` puts files into their places.
# `pagoda/artifacts.py` is not among them: it decides what is in the files.
EXEMPT = frozenset(
    {
        "pagoda/__main__.py",
        "pagoda/pipeline/cli.py",
        "pagoda/errors.py",
        "pagoda/fields.py",
        "pagoda/outputs.py",
        "pagoda/distributed.py",
        "pagoda/pipeline/stages/code.py",
        "pagoda/pipeline/stages/progress.py",
        "pagoda/data/registry.py",  # what sources there are; the one used is depended on by name
        *(str(file.relative_to(ROOT)) for file in ROOT.glob("pagoda/config/*.py")),
    }
)


APART = ("pagoda/pipeline/", "pagoda/methods/", "pagoda/data/", "pagoda/losses/")
"""Folders of which a stage depends on the files that it can run, not on the whole."""


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
        file = source_file(name)
        if name in found or file is None:
            continue
        found[name] = file
        if str(file.relative_to(ROOT)) not in EXEMPT:  # nor what these are made of
            pending += _imports(file)
        pending += _parents(name)
    files = {str(f.relative_to(ROOT)) for f in found.values() if f.stem != "__init__"}
    return frozenset(files - EXEMPT)


def dependencies(module: str) -> list[str]:
    """The code that a stage of ``dvc.yaml`` depends on: folders of the library, else files.

    Files of :data:`APART` stand for themselves, so that an edit of one stage, method or source
    reruns no other.
    """
    files = closure(module)
    return sorted({f if f.startswith(APART) else "/".join(Path(f).parts[:2]) for f in files})


def versions(*code: str | Path) -> dict[str, str]:
    """The :func:`version` of every file that modules, or files of a user's, can execute."""
    modules = {m for c in code for m in ([c] if isinstance(c, str) else _imports(c))}
    files = {name: ROOT / name for name in sorted(set().union(*map(closure, modules)))}
    files |= {str(c): c for c in code if isinstance(c, Path)}
    return {name: _version_of(file.resolve()) for name, file in files.items()}


def version(source: str) -> str:
    """Hex digest of what a file of code does: comments, docstrings and layout do not count."""
    tree = _Undocumented().visit(ast.parse(source))
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def source_file(module: str) -> Path | None:
    """Where the source of a module or package is, None if it is none of ours."""
    stem = ROOT.joinpath(*module.split("."))
    for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements, and what holds them, but those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.expr):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from executed(node)


class _Undocumented(ast.NodeTransformer):
    """Removes strings that stand as statements."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else node


@cache
def _version_of(file: Path) -> str:
    return version(file.read_text(encoding="utf-8"))


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


@cache
def _imports(file: Path) -> tuple[str, ...]:
    found: list[str] = []
    for node in executed(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += (a.name for a in node.names if a.name.split(".")[0] == "pagoda")
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import; the house style is absolute"
            if node.module and node.module.split(".")[0] == "pagoda":
                found += (node.module, *(f"{node.module}.{a.name}" for a in node.names))
    return tuple(found)
