"""Finding weight files: a given path, then the usual places, then an explicit download."""

from __future__ import annotations

import urllib.error
from dataclasses import dataclass
from pathlib import Path

import torch

from pagoda.errors import PagodaError


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights.

    Attributes:
        what: for messages, e.g. ``Inception weights``.
        name: file name as published.
        url: where it is published.
        places: folders to look in, besides the checkpoints of ``torch.hub``.
    """

    what: str
    name: str
    url: str
    places: tuple[Path, ...] = ()


def find_weights(file: WeightFile, given: Path | None, download: bool) -> Path:
    """Path of a weight file.

    Args:
        file: which.
        given: the file itself, or a folder that holds it under its published name.
        download: fetch it into the checkpoints of ``torch.hub`` if it is in no usual place.

    Raises:
        PagodaError: one line: what is missing, where it was looked for, how to get it.
    """
    if given is not None:
        path = given / file.name if given.is_dir() else given
        if not path.is_file():
            raise PagodaError(
                f"there is no {path}; the weights given must be {file.name} from {file.url}"
            )
        return path
    folders = [*file.places, hub_checkpoints()]
    for folder in folders:
        if (folder / file.name).is_file():
            return folder / file.name
    if download:
        return _download(file, folders[-1] / file.name)
    raise PagodaError(
        f"no {file.what}: {file.name} is not in {' or '.join(map(str, folders))}; get it from "
        f"{file.url} and name it with --weights FILE, or let --download fetch it (a pipeline: "
        "reference.weights, reference.download)"
    )


def hub_checkpoints() -> Path:
    """Where ``torch.hub`` keeps weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _download(file: WeightFile, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(file.url, str(path), progress=True)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise PagodaError(
            f"cannot download {file.what} from {file.url} ({reason}); get {file.name} on a machine "
            "with internet and name it with --weights FILE (a pipeline: reference.weights)"
        ) from error
    return path
