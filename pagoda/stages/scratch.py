"""Where an interrupted stage keeps its state."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import pagoda
from pagoda import processes
from pagoda.artifacts import Artifact
from pagoda.stages.root import project_root
from pagoda.training.checkpoint import scratch_folder

HISTORY = "history.jsonl"
"""Copy of the training curves that belong to the checkpoints beside it."""

SNAPSHOTS = "snapshots"
"""Folder beside the checkpoints for averages that go into the artifact."""

_claims: dict[str, FileLock] = {}  # held until this process ends


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
    return Path(processes.tell(_claim(scratch_folder(project_root(), stage, identity))))


def _claim(folder: Path) -> str:
    """``folder``, or ``folder.2`` and so on while another running stage works in it.

    Two experiments at once may share a stage; neither may delete the other's checkpoints. The
    system frees the lock of a stage that died. In a group the first process claims for all.
    """
    if not processes.first():
        return ""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        slot = str(folder) if number == 1 else f"{folder}.{number}"
        if slot in _claims:
            return slot
        lock = FileLock(f"{slot}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            _claims[slot] = lock
            return slot
    raise AssertionError  # the count has no end


def _code_version() -> str:
    sources = sorted(Path(pagoda.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(s.read_bytes() for s in sources)).hexdigest()
