"""The code ``deps`` of stages of ``dvc.yaml``, from what they import (:mod:`pagoda.stages.code`).

``python -m tests.import_closure`` prints those that every stage should have.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pagoda.data import registry
from pagoda.stages.code import ROOT, closure, source_file

CHOSEN = "pagoda/data/sources/${data.source}.py"
"""The one source that is used: a new one cuts no old images again."""


def stage_module(command: str) -> str:
    """``pagoda teacher`` or ``python -m pagoda teacher --x`` -> ``pagoda.stages.teacher``."""
    words = command.split()
    return f"pagoda.stages.{words[words.index('pagoda') + 1]}"


def files_of(command: str) -> frozenset[str]:
    """The :func:`closure` of a stage; of the one that opens sources, with all that those import."""
    module = stage_module(command)
    found = closure(module)
    if module == "pagoda.stages.downsample":
        sources = [closure(f"pagoda.data.sources.{name}") for name in registry.names()]
        found = found.union(*sources)
    return frozenset(CHOSEN if "/sources/" in file and "/data/" in file else file for file in found)


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
        for dep in suggest(files_of(stage.get("do", stage)["cmd"])):
            print(f"  - {dep}")


if __name__ == "__main__":
    main()
