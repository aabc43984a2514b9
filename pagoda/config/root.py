"""The project's root folder."""

from __future__ import annotations

from pathlib import Path


def project_root(start: Path | None = None) -> Path:
    """Folder that holds ``.dvc``, the working folder if there is none.

    Queued experiments run in copies under ``<root>/.dvc/tmp/exps/``; for those it is ``<root>``,
    so that scratch and the MLflow store outlive the copy.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2]
    return next((f for f in (here, *here.parents) if (f / ".dvc").is_dir()), here)
