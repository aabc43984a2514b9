"""The code ``deps`` of stages of ``dvc.yaml``, from what they import (:mod:`pagoda.stages.code`).

``python -m tests.import_closure`` prints those that every stage should have.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pagoda.stages.code import ROOT, closure, source_file


def stage_module(command: str) -> str:
    """``pagoda teacher`` or ``python -m pagoda teacher --x`` -> ``pagoda.stages.teacher``."""
    words = command.split()
    return f"pagoda.stages.{words[words.index('pagoda') + 1]}"


def stage_code(name: str, command: str) -> frozenset[str]:
    """Files that a stage can execute, those of the method that trains included."""
    method = _parameters().get(name, {}).get("method")
    return closure(stage_module(command)) | (
        closure(f"pagoda.methods.{method}") if method else set()
    )


@cache
def _parameters() -> dict[str, Any]:
    import yaml

    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    return {name: section for name, section in tree.items() if isinstance(section, dict)}


def with_method(name: str, dep: str) -> str:
    """A dependency with the method's name in its place."""
    return dep.replace(f"${{{name}.method}}", str(_parameters().get(name, {}).get("method")))


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


def main() -> None:
    """Print the code deps that each stage of ``dvc.yaml`` should have."""
    import yaml

    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        module = stage_module(stage.get("do", stage)["cmd"])
        print(f"{name}:" + ("" if source_file(module) else f"  # {module} does not exist"))
        for dep in suggest(stage_code(name, stage.get("do", stage)["cmd"])):
            print(f"  - {dep}")


if __name__ == "__main__":
    main()
