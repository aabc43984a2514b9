"""Where an interrupted stage keeps its state."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pagoda
from pagoda.artifacts import Artifact
from pagoda.stages.root import project_root
from pagoda.training.checkpoint import scratch_folder

HISTORY = "history.jsonl"
"""Copy of the training curves that belong to the checkpoints beside it."""


def stage_scratch(
    stage: str, sections: dict[str, Any], inputs: dict[str, Artifact], **facts: Any
) -> Path:
    """Scratch folder of a stage: named after parameters, inputs and code, so none mix.

    Args:
        stage: name of the stage.
        sections: configuration sections (dataclasses) that the stage reads.
        inputs: artifacts that the stage reads.
        facts: anything else that the result depends on, such as the seed.
    """
    identity = {
        "sections": {name: dataclasses.asdict(s) for name, s in sections.items()},
        "inputs": {name: artifact.fingerprint for name, artifact in inputs.items()},
        "facts": facts,
        "code": _code_version(),
    }
    return scratch_folder(project_root(), stage, identity)


def _code_version() -> str:
    sources = sorted(Path(pagoda.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(s.read_bytes() for s in sources)).hexdigest()
