"""Every file that passes between stages: its name, shape, dtype, units and checksum.

An artifact is a folder with the files of its kind (:data:`~pagoda.kinds.KINDS`) and a
``manifest.json``: their SHA-256 sums, the configuration they belong to and the fingerprints of
what they were made from. Folders appear whole or not at all, and take the place of an artifact of
their own kind only (:mod:`pagoda.outputs`). Nothing that varies between equal runs is stored: equal
runs, equal bytes.

A file ``x.npy`` of a kind may be in shards, ``x-00000-of-00003.npy``, or ``.webp``, and so on.
Checksums of files of 64 MiB and more are compared once and then trusted while size and time of
change stay as they were: ``.scratch/verified`` of the project says so. Without it all are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np

from pagoda import outputs
from pagoda.errors import PagodaError, denied
from pagoda.kinds import CARD_FILE, KINDS, MODEL_FILE

if TYPE_CHECKING:
    import torch

_M = TypeVar("_M")
MANIFEST = "manifest.json"
FORMAT = 1  # of manifests and of the files of each kind; manifests without one are of format 1
_LARGE = 1 << 26  # bytes from which a checksum, once compared, is trusted while nothing changes


@dataclass(frozen=True)
class Artifact:
    """An artifact read back: its folder and its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the checksums of all files; equal content, equal fingerprint."""
        return str(self.manifest["fingerprint"])

    @property
    def config(self) -> dict[str, Any]:
        """The configuration the artifact belongs to."""
        return dict(self.manifest["config"])

    def array(self, name: str) -> np.ndarray:
        """Memory-map ``<name>.npy``, read-only."""
        file = self.path / f"{name}.npy"
        try:
            array = np.lib.format.open_memmap(file, mode="r")  # refuses pickled objects
        except PermissionError as error:
            raise denied(error) from error
        except Exception as error:  # a crafted header can raise anything
            raise _damaged(file, str(error)) from error
        spec = KINDS[self.manifest["kind"]].get(_whole(file.name))
        if spec and (array.ndim != spec.ndim or array.dtype.name not in spec.dtypes):
            raise _damaged(file, f"{array.dtype} with {array.ndim} axes, expected {spec}")
        return np.asarray(array) if array.nbytes < 1 << 20 else array

    def json(self, name: str) -> Any:
        """Read ``<name>.json``."""
        return _read_json(self.path / f"{name}.json")

    def card(self) -> dict[str, Any]:
        """Read ``card.json``."""
        if not isinstance(card := self.json("card"), dict):
            raise _damaged(self.path / CARD_FILE, "no names in it")
        return card

    def weights(self, name: str = MODEL_FILE) -> dict[str, torch.Tensor]:
        """Read the safetensors weights, on the CPU; ``name``: of another file than the model's."""
        from pagoda.tensors import read_tensors

        return read_tensors(self.path / name)

    def network(self, load: Callable[[dict[str, torch.Tensor], dict[str, Any]], _M]) -> _M:
        """The network of a model, which ``load`` makes from its weights and its card.

        Raises:
            PagodaError: one line if weights and card do not belong together.
        """
        weights, card = self.weights(), self.card()
        try:
            return load(weights, card)
        except PagodaError as error:
            raise _damaged(self.path / MODEL_FILE, str(error)) from error
        except Exception as error:  # whatever a foreign card makes a network raise
            why = f"it describes no network: {type(error).__name__} {error}".splitlines()[0]
            raise _damaged(self.path / CARD_FILE, why) from error


@contextmanager
def create(
    path: str | Path,
    kind: str,
    *,
    config: Mapping[str, Any],
    inputs: Mapping[str, Artifact] | None = None,
    revision: str | None = None,
) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes the artifact ``path``.

    Args:
        path: where it goes; an older artifact of the same kind there is replaced.
        kind: a key of :data:`~pagoda.kinds.KINDS`; all its files must have been written.
        config: what identifies the configuration, e.g. ``{"name": ..., "resolution": ...}``.
        inputs: artifacts this one was made from; their fingerprints are recorded.
        revision: of the code, for networks; no part of the fingerprint.

    Raises:
        PagodaError: if anything else is there, a file is missing, or the disk is full.
    """
    path = Path(path)
    with outputs.new_folder(path, _stranger(kind)) as partial:
        yield partial
        manifest = _manifest(partial, kind, config, inputs or {})
        if missing := _missing(kind, manifest["files"]):
            raise PagodaError(f"{path}: the {kind} artifact lacks {', '.join(missing)}")
        write_json(partial / MANIFEST, manifest | ({"revision": revision} if revision else {}))
    _remember(path, manifest["files"])


def copy(
    source: Artifact,
    path: str | Path,
    *,
    config: Mapping[str, Any],
    inputs: Mapping[str, Artifact] | None = None,
) -> None:
    """:func:`create` an artifact with the files of another, so that it has its fingerprint."""
    kind, revision = source.manifest["kind"], source.manifest.get("revision")
    with create(path, kind, config=config, inputs=inputs, revision=revision) as out:
        for name in source.manifest["files"]:
            shutil.copyfile(source.path / name, out / name)


def check_out(path: str | Path, *kinds: str) -> None:
    """Refuse before any work a place where an artifact of these kinds may not go.

    Raises:
        PagodaError: if there is anything but an empty folder or such an artifact, nothing added.
    """
    outputs.check_folder(Path(path), _stranger(*kinds))


def open_artifact(path: str | Path, kind: str, expect: Mapping[str, Any] | None = None) -> Artifact:
    """Open an artifact and check its kind, every checksum, and configuration entries it must carry.

    Raises:
        PagodaError: one line for a missing, foreign or damaged artifact, and what to do.
    """
    path, artifact = Path(path), peek(path, kind)
    files = artifact.manifest["files"]
    if missing := _missing(kind, files):
        raise _damaged(path / MANIFEST, f"it lists no {', '.join(missing)}")
    for key, value in (expect or {}).items():
        if (found := artifact.config.get(key)) != value:
            raise PagodaError(
                f"{path} belongs to another configuration: {key} = {found!r}, "
                f"params.yaml wants {value!r}; 'dvc repro' rebuilds it"
            )
    for name, entry in files.items():
        if not (path / name).is_file():
            raise _damaged(path / name, "missing")
        if (path / name).stat().st_size != entry["bytes"]:
            raise _damaged(path / name, "truncated or changed, sizes differ")
    doubtful = sorted(set(files) - _trusted(path, files))
    for name, checksum in _checksums(path, doubtful).items():
        if checksum != files[name]["sha256"]:
            raise _damaged(path / name, "checksums differ")
    if any(files[name]["bytes"] >= _LARGE for name in doubtful):
        _remember(path, files)
    return artifact


def peek(path: str | Path, *kinds: str) -> Artifact:
    """An artifact of which the manifest alone was checked: gigabytes for a caption would be waste.

    Raises:
        PagodaError: one line if there is none, its manifest is damaged, or of another kind.
    """
    path = Path(path)
    if not path.exists():
        raise PagodaError(f"{path} is missing; 'dvc repro' makes it and all it needs")
    if not (path / MANIFEST).is_file():
        raise PagodaError(f"{path} is no {' or '.join(kinds)} artifact: it has no {MANIFEST}")
    manifest = _read_manifest(path / MANIFEST)
    if manifest["kind"] not in kinds:
        raise PagodaError(
            f"{path} is an artifact of kind {manifest['kind']}, not {' or '.join(kinds)}"
        )
    return Artifact(path, manifest)


def save_model(folder: Path, module: torch.nn.Module, card: Mapping[str, Any]) -> None:
    """:func:`save_weights` of a module's state."""
    save_weights(folder, module.state_dict(), card)


def save_weights(
    folder: Path, weights: Mapping[str, torch.Tensor], card: Mapping[str, Any]
) -> None:
    """Write weights as safetensors and a model's card as JSON into ``folder``."""
    from pagoda.tensors import save_tensors

    state = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    bad = [k for k, v in state.items() if v.is_floating_point() and not bool(v.isfinite().all())]
    if bad:
        raise PagodaError(
            f"{len(bad)} of {len(state)} weights hold NaN or infinity, {bad[0]} among them; they "
            "are not written: training has diverged, so lower its learning rate (optim.lr)"
        )
    save_tensors(folder / MODEL_FILE, state)
    write_json(folder / CARD_FILE, card)


def write_json(path: Path, tree: Any) -> None:
    """Write JSON with sorted keys, so that equal content gives equal bytes.

    Raises:
        PagodaError: if a number is not finite, or the file cannot be written.
    """
    try:
        text = json.dumps(tree, indent=1, sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise PagodaError(f"{path.name}: a value is NaN or infinite, which is no result") from error
    outputs.write_text(path, text + "\n")


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file.

    Raises:
        PagodaError: it may not be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except PermissionError as error:
        raise denied(error) from error


def digest(tree: Any) -> str:
    """Hex SHA-256 of a JSON-able tree, independent of the order of keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _manifest(
    folder: Path, kind: str, config: Mapping[str, Any], inputs: Mapping[str, Artifact]
) -> dict[str, Any]:
    files: dict[str, dict[str, Any]] = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": checksum}
        for name, checksum in _checksums(folder, sorted(os.listdir(folder))).items()
    }
    for name, entry in files.items():
        if spec := KINDS[kind].get(_whole(name)):
            entry["units"] = spec.units
        if name.endswith(".npy"):
            array = np.load(folder / name, mmap_mode="r", allow_pickle=False)
            entry["shape"], entry["dtype"] = list(array.shape), array.dtype.name
    made_from = {name: artifact.fingerprint for name, artifact in sorted(inputs.items())}
    return {"format": FORMAT, "kind": kind, "config": dict(config), "inputs": made_from,
            "files": files, "fingerprint": _fingerprint(files)}  # fmt: skip


def _fingerprint(files: Mapping[str, Any]) -> str:
    return digest({name: entry["sha256"] for name, entry in files.items()})


def _missing(kind: str, files: Mapping[str, Any]) -> list[str]:
    """Files of a kind that are not among those of an artifact."""
    return [name for name in KINDS[kind] if name not in set(map(_whole, files))]


def _read_manifest(file: Path) -> dict[str, Any]:
    try:
        manifest = _read_json(file)
        found = manifest.get("format", 1)
        if type(found) is int and found > FORMAT:
            raise PagodaError(
                f"{file.parent} is of format {found}, which a newer pagoda wrote; this one reads "
                f"up to {FORMAT}: update it"
            )
        if found != FORMAT:
            raise ValueError(f"format {found!r}")
        str(manifest["kind"]), dict(manifest["config"])
        for name, entry in manifest["files"].items():
            if Path(name).name != name or type(entry["bytes"]) is not int:
                raise ValueError(f"{name!r} is no file of it")
        if manifest["fingerprint"] != _fingerprint(manifest["files"]):
            raise _damaged(file, "its fingerprint is not that of its files")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(file, f"{type(error).__name__} {error}") from error
    return dict(manifest)


def _stranger(*kinds: str) -> outputs.Stranger:
    """What of a folder is no part of an artifact of these kinds."""

    def stranger(folder: Path) -> str | None:
        if not (folder / MANIFEST).is_file():
            return f"is no {' or '.join(kinds)} artifact"
        try:
            manifest = _read_manifest(folder / MANIFEST)
        except PagodaError:
            return f"has a {MANIFEST} that pagoda cannot read"
        if manifest["kind"] not in kinds:
            return f"is an artifact of kind {manifest['kind']}, not {' or '.join(kinds)}"
        return outputs.only(MANIFEST, *map(escape, manifest["files"]))(folder)

    return stranger


def _read_json(file: Path) -> Any:
    def refuse(number: str) -> NoReturn:
        raise ValueError(f"{number} is no number")

    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    except PermissionError as error:
        raise denied(error) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, str(error)) from error


def _whole(name: str) -> str:
    """Name of the array that a shard belongs to: ``a-00001-of-00003.npy`` -> ``a.npy``."""
    return re.sub(r"(-\d{5}-of-\d{5})?\.(npy|webp)$", ".npy", name)


def _checksums(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of files, several at once: hashing leaves the interpreter free."""
    with ThreadPoolExecutor() as threads:
        found = threads.map(sha256, [folder / name for name in names])
        return dict(zip(names, found, strict=True))


def _record(path: Path, files: Mapping[str, Any]) -> tuple[Path | None, dict[str, Any]]:
    """Where is noted that large files were compared with their checksums, and what to note now."""
    here, states = path.resolve(), {}
    root = next((f for f in here.parents if (f / ".dvc").is_dir()), None)
    for name, entry in files.items():
        if entry["bytes"] >= _LARGE:
            stat = (path / name).stat()
            states[name] = [entry["sha256"], stat.st_size, stat.st_mtime_ns, stat.st_ino]
    return root and root / ".scratch" / "verified" / f"{digest(str(here))}.json", states


def _remember(path: Path, files: Mapping[str, Any]) -> None:
    record, states = _record(path, files)
    if record and states:
        with suppress(PagodaError):  # it saves time, nothing else
            outputs.write_text(record, json.dumps(states))


def _trusted(path: Path, files: Mapping[str, Any]) -> set[str]:
    record, states = _record(path, files)
    known: dict[str, Any] = {}
    with suppress(PagodaError):
        known = _read_json(record) if record and states else {}
    return {name for name, state in states.items() if known.get(name) == state}


def _damaged(file: Path, why: str) -> PagodaError:
    return PagodaError(
        f"{file} is damaged ({why}); if a run made its folder, delete that and run 'dvc repro'; "
        "else get it, or export it, once more"
    )
