"""Every file that passes between stages: its name, shape, dtype, units and checksum.

An artifact is a folder with the files of its kind (:data:`KINDS`) and a ``manifest.json`` that
holds their SHA-256 sums, the configuration they belong to and the fingerprints of what they were
made from. Folders appear whole or not at all: files are written beside the destination and moved
there with one rename. Nothing that varies between equal runs (times, host names) is stored, so
equal runs give equal bytes.

A file ``x.npy`` of a kind may be in shards, ``x-00000-of-00003.npy``, or ``.webp``, and so on.
Checksums of files of 64 MiB and more are compared once and then trusted while size and time of
change stay as they were: a record of that is kept in ``.scratch/verified`` of the project. Without
it, or without a project, every opening reads everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pagoda.errors import PagodaError

if TYPE_CHECKING:
    import torch

MANIFEST = "manifest.json"
_LARGE = 1 << 26  # bytes from which a checksum, once compared, is trusted while nothing changes
MODEL_FILE = "model.safetensors"
CARD_FILE = "card.json"


@dataclass(frozen=True)
class FileSpec:
    """What one file of an artifact holds. ``ndim`` and ``dtypes`` are checked for ``.npy``."""

    units: str
    ndim: int | None = None
    dtypes: tuple[str, ...] = ()


_LABELS = FileSpec("class index", 1, ("int64",))
_PIXELS = FileSpec("pixels 0..255, NCHW, RGB", 4, ("uint8",))
_MODEL = {
    MODEL_FILE: FileSpec("weights of the exponential moving average"),
    CARD_FILE: FileSpec("architecture and training facts"),
}

KINDS: dict[str, dict[str, FileSpec]] = {
    "images": {
        "train_images.npy": _PIXELS,
        "train_labels.npy": _LABELS,
        "test_images.npy": _PIXELS,
        "test_labels.npy": _LABELS,
        "train_names.txt": FileSpec("name of each image in its source, a line each, escaped"),
        "test_names.txt": FileSpec("name of each image in its source, a line each, escaped"),
        "card.json": FileSpec("class names, recipe, source and its fingerprint"),
    },
    "features": _MODEL,
    "reference": {
        "mean.npy": FileSpec("mean of features", 1, ("float64",)),
        "covariance.npy": FileSpec("covariance of features, ddof 1", 2, ("float64",)),
        "manifold.npy": FileSpec("features of real images for precision and recall", 2,
                                 ("float32", "float64")),
        "card.json": FileSpec("split, n, extractor and data fingerprints"),
    },
    "teacher": _MODEL,
    "latents": {
        "latents.npy": FileSpec("latents in the units of card.json, NCHW", 4,
                                ("float32", "float16")),
        "indices.npy": FileSpec("row of train_images", 1, ("int64",)),
        "flips.npy": FileSpec("1 where the image was mirrored first", 1, ("uint8",)),
        "labels.npy": _LABELS,
        "card.json": FileSpec("units, solver, grid, round-trip error, moments of the latents"),
    },
    "generator": _MODEL,
    "super_resolution": _MODEL,
    "measurement": {"rows.json": FileSpec("one row a value; failures by resolution")},
    "evaluation": {
        "results.json": FileSpec("one row a value, with its protocol"),
        "samples.npy": FileSpec("sample sheet (generators, classes, columns, C, H, W)", 6,
                                ("uint8",)),
        "neighbours.npy": FileSpec("nearest training images of one sample sheet", 6, ("uint8",)),
    },
}  # fmt: skip


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
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise _damaged(file, str(error)) from error
        spec = KINDS[self.manifest["kind"]].get(_whole(file.name))
        if spec and (
            (spec.ndim is not None and array.ndim != spec.ndim)
            or (spec.dtypes and array.dtype.name not in spec.dtypes)
        ):
            raise _damaged(file, f"{array.dtype} with {array.ndim} axes, expected {spec}")
        return np.asarray(array) if array.nbytes < 1 << 20 else array

    def json(self, name: str) -> Any:
        """Read ``<name>.json``."""
        file = self.path / f"{name}.json"
        try:
            return json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise _damaged(file, str(error)) from error

    def card(self) -> dict[str, Any]:
        """Read ``card.json``."""
        return dict(self.json("card"))

    def weights(self) -> dict[str, torch.Tensor]:
        """Read the safetensors weights, on the CPU."""
        import safetensors.torch

        file = self.path / MODEL_FILE
        try:
            return safetensors.torch.load_file(file)
        except Exception as error:  # safetensors raises its own private types
            raise _damaged(file, str(error)) from error


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
        path: where the artifact goes; an older one there is replaced.
        kind: a key of :data:`KINDS`; all its files must have been written.
        config: what identifies the configuration, e.g. ``{"name": ..., "resolution": ...}``.
        inputs: artifacts this one was made from; their fingerprints are recorded.
        revision: of the code, for networks; no part of the fingerprint.

    Raises:
        PagodaError: if a file of the kind is missing, or the disk is full. Nothing is left behind.
    """
    path = Path(path)
    partial = path.parent / f".{path.name}.partial-{platform.node()}-{os.getpid()}"
    try:
        _remove_orphans(path)
        partial.mkdir(parents=True)
        yield partial
        written = {_whole(file.name) for file in partial.iterdir()}
        missing = [file for file in KINDS[kind] if file not in written]
        if missing:
            raise PagodaError(f"{path}: the {kind} artifact lacks {', '.join(missing)}")
        made = {"revision": revision} if revision else {}
        write_json(partial / MANIFEST, _manifest(partial, kind, config, inputs or {}) | made)
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
        _remember(path, json.loads((path / MANIFEST).read_text())["files"])
    except OSError as error:
        raise PagodaError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_artifact(path: str | Path, kind: str, expect: Mapping[str, Any] | None = None) -> Artifact:
    """Open an artifact and check kind, configuration and every checksum.

    Args:
        path: folder of the artifact.
        kind: the kind it must be.
        expect: configuration entries it must carry, e.g. ``{"resolution": 16}``.

    Raises:
        PagodaError: one line for a missing, foreign or damaged artifact, and what to do.
    """
    path = Path(path)
    file = path / MANIFEST
    if not file.is_file():
        raise PagodaError(f"{path} is missing; 'dvc repro' makes it and all it needs")
    try:
        manifest = json.loads(file.read_text())
        found, files, config = manifest["kind"], manifest["files"], manifest["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(file, str(error)) from error
    if found != kind:
        raise PagodaError(f"{path} is a {found} artifact, expected {kind}")
    for key, value in (expect or {}).items():
        if config.get(key) != value:
            raise PagodaError(
                f"{path} belongs to another configuration: {key} = {config.get(key)!r}, "
                f"params.yaml wants {value!r}; 'dvc repro' rebuilds it"
            )
    for name, entry in files.items():
        if not (path / name).is_file():
            raise _damaged(path / name, "missing")
        if (path / name).stat().st_size != entry["bytes"]:
            raise _damaged(path / name, "truncated or changed, sizes differ")
    trusted = _trusted(path, files)
    doubtful = [name for name in files if name not in trusted]
    for name, found in zip(doubtful, _checksums([path / name for name in doubtful]), strict=True):
        if found != files[name]["sha256"]:
            raise _damaged(path / name, "checksums differ")
    if any(files[name]["bytes"] >= _LARGE for name in doubtful):
        _remember(path, files)
    return Artifact(path, manifest)


def create_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A writable, memory-mapped ``.npy`` file whose space is taken at once.

    Writing to a mapping of a sparse file on a full disk kills the process.

    Raises:
        OSError: if the disk is too full.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        array.flush()
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array


def save_model(folder: Path, module: torch.nn.Module, card: Mapping[str, Any]) -> None:
    """Write a module's state as safetensors and its card as JSON into ``folder``."""
    save_weights(folder, module.state_dict(), card)


def save_weights(
    folder: Path, weights: Mapping[str, torch.Tensor], card: Mapping[str, Any]
) -> None:
    """Write weights as safetensors and a model's card as JSON into ``folder``."""
    import safetensors.torch

    state = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    safetensors.torch.save_file(state, folder / MODEL_FILE)
    write_json(folder / CARD_FILE, card)


def write_json(path: Path, tree: Any) -> None:
    """Write JSON with sorted keys, so that equal content gives equal bytes."""
    path.write_text(json.dumps(tree, indent=1, sort_keys=True, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(tree: Any) -> str:
    """Hex SHA-256 of a JSON-able tree, independent of the order of keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _manifest(
    folder: Path, kind: str, config: Mapping[str, Any], inputs: Mapping[str, Artifact]
) -> dict[str, Any]:
    found = sorted(folder.iterdir())
    files: dict[str, dict[str, Any]] = {
        f.name: {"bytes": f.stat().st_size, "sha256": checksum}
        for f, checksum in zip(found, _checksums(found), strict=True)
    }
    for name, entry in files.items():
        if spec := KINDS[kind].get(_whole(name)):
            entry["units"] = spec.units
        if name.endswith(".npy"):
            array = np.load(folder / name, mmap_mode="r", allow_pickle=False)
            entry["shape"], entry["dtype"] = list(array.shape), array.dtype.name
    return {
        "kind": kind,
        "config": dict(config),
        "inputs": {name: artifact.fingerprint for name, artifact in sorted(inputs.items())},
        "files": files,
        "fingerprint": digest({name: entry["sha256"] for name, entry in files.items()}),
    }


def _whole(name: str) -> str:
    """Name of the array that a shard belongs to: ``a-00001-of-00003.npy`` -> ``a.npy``."""
    return re.sub(r"(-\d{5}-of-\d{5})?\.(npy|webp)$", ".npy", name)


def _checksums(files: list[Path]) -> list[str]:
    """SHA-256 of files, several at once: hashing leaves the interpreter free."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(sha256, files))


def _remove_orphans(path: Path) -> None:
    """Remove what processes of this machine left half-written when they were killed."""
    for orphan in path.parent.glob(f".{path.name}.partial-{platform.node()}-*"):
        try:
            os.kill(int(orphan.name.rsplit("-", 1)[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(orphan, ignore_errors=True)
        except (PermissionError, ValueError):
            continue  # another user's, or not ours at all


def _record(path: Path) -> Path | None:
    """Where is noted that an artifact's large files were compared with their checksums."""
    here = path.resolve()
    root = next((f for f in here.parents if (f / ".dvc").is_dir()), None)
    return root and root / ".scratch" / "verified" / f"{digest(str(here))}.json"


def _state(path: Path, entry: Mapping[str, Any]) -> list[Any]:
    stat = path.stat()
    return [entry["sha256"], stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _remember(path: Path, files: Mapping[str, Any]) -> None:
    large = {name: _state(path / name, entry) for name, entry in files.items()
             if entry["bytes"] >= _LARGE}  # fmt: skip
    record = _record(path)
    if record is None or not large:
        return
    partial = record.with_suffix(f".{platform.node()}-{os.getpid()}")
    with suppress(OSError):  # it saves time, nothing else
        record.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(large))
        partial.replace(record)


def _trusted(path: Path, files: Mapping[str, Any]) -> set[str]:
    record = _record(path)
    try:
        known = json.loads(record.read_text()) if record else {}
    except (OSError, ValueError):
        return set()
    return {name for name, entry in files.items() if known.get(name) == _state(path / name, entry)}


def _damaged(file: Path, why: str) -> PagodaError:
    return PagodaError(f"{file} is damaged ({why}); delete its folder and run 'dvc repro'")
