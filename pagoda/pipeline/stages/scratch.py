"""Where an interrupted stage keeps its state."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pagoda import artifacts, distributed
from pagoda.artifacts import Artifact
from pagoda.config.root import project_root
from pagoda.outputs import new_file
from pagoda.pipeline.stages.code import versions
from pagoda.training.checkpoint import scratch_folder
from pagoda.training.method import module_of

_IDENTITY = "identity.json"  # all that the state beside it depends on
_MODULES = {"cascade": "super_resolution"}  # of stages whose name is not their module's

_claims: dict[str, FileLock] = {}  # held until this process ends


def stage_scratch(
    stage: str, sections: dict[str, Any], inputs: dict[str, Artifact], method: str | None = None,
    **facts: Any,
) -> Path:  # fmt: skip
    """Scratch folder of a stage: named after parameters, inputs and code, so none mix.

    If another one of the stage holds unfinished work, one line says what keeps it from being used.

    Args:
        stage: name of the stage.
        sections: configuration sections (dataclasses) that the stage reads; files that they name
            are inputs, too.
        inputs: artifacts that the stage reads.
        method: name of the method that trains.
        facts: anything else that the result depends on, such as the seed.
    """
    first = stage.partition("-")[0]
    module = f"pagoda.pipeline.stages.{_MODULES.get(first, first)}"
    parameters = {name: dataclasses.asdict(s) for name, s in sections.items()} | facts
    named = sorted({value for _, value in _leaves(parameters) if isinstance(value, str)})
    files = {name: artifacts.sha256(Path(name)) for name in named if Path(name).is_file()}
    identity = {
        "parameters": parameters,
        "inputs": {name: artifact.fingerprint for name, artifact in inputs.items()} | files,
        "code": versions(module, *([module_of(method)] if method else [])),
    }
    return Path(
        distributed.broadcast_object(
            _claim(scratch_folder(project_root(), stage, identity), identity)
        )
    )


def _claim(folder: Path, identity: dict[str, Any]) -> str:
    """``folder``, or ``folder.2`` and so on while another running stage works in it.

    Two experiments at once may share a stage; neither may delete the other's checkpoints. The
    system frees the lock of a stage that died. In a group the first process claims for all.
    """
    if not distributed.is_main_process():
        return ""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        slot = str(folder) if number == 1 else f"{folder}.{number}"
        with contextlib.suppress(Timeout):
            if slot not in _claims:
                lock = FileLock(f"{slot}.lock")
                lock.acquire(timeout=0)
                _claims[slot] = lock
            _sign(Path(slot), identity)
            return slot
    raise AssertionError  # the count has no end


def _sign(folder: Path, identity: dict[str, Any]) -> None:
    """Leave the identity in a folder that begins; say what differs from the nearest other one."""
    file = folder / _IDENTITY
    if file.exists():
        return
    work = itertools.chain(folder.parent.glob("*/*.safetensors"), folder.parent.glob("*/*.npy"))
    changes = {f: _changes(_identity_of(f), identity) for f in sorted({w.parent for w in work})}
    if found := [other for other in changes if changes[other]]:
        near = min(found, key=lambda other: len(changes[other]))
        first, more = changes[near][:3], len(changes[near][3:])
        sys.stderr.write(
            f"{folder.parent.name}: starts from the beginning; the unfinished work in {near} "
            f"cannot be used: {'; '.join(first)}{f'; and {more} more changes' if more else ''}\n"
        )
    folder.mkdir(exist_ok=True)
    with new_file(file) as partial:
        artifacts.write_json(partial, identity)


def _identity_of(folder: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((folder / _IDENTITY).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _changes(old: dict[str, Any] | None, new: dict[str, Any]) -> list[str]:
    """What differs between two identities, in words."""
    if old is None:
        return ["another version of pagoda made it"]
    before, now = (dict(_leaves(json.loads(json.dumps(tree)))) for tree in (old, new))
    words = []
    for path in sorted(before.keys() | now.keys(), reverse=True):  # parameters, inputs, code
        kind, name, was, is_now = path[0], ".".join(path[1:]), before.get(path), now.get(path)
        if was != is_now:
            detail = f"was {was} and is {is_now}" if kind == "parameters" else "changed"
            words.append(f"{'its input ' * (kind == 'inputs')}{name} {detail}")
    return words


def _leaves(tree: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(tree, dict):
        yield path, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, *path, key)
