"""Exported models on the Hugging Face hub, through ``huggingface_hub``.

``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_CACHE`` and ``HF_HUB_OFFLINE`` mean what they mean to it.
What was fetched once is there without the network. No code comes from the hub: an artifact is
numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pagoda.artifacts import MANIFEST, peek
from pagoda.errors import PagodaError, first_line
from pagoda.provenance import EXPORTED, INDEX, ONNX, PROGRAM, README, SAMPLES, open_model

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_BESIDE = {".gitattributes", README, SAMPLES}  # of any repository, or replaceable


def is_name(text: str) -> bool:
    """Whether a text can be ``owner/name`` and is no path here."""
    return bool(_NAME.fullmatch(text)) and not Path(text).exists()


def fetch(name: str, kinds: tuple[str, ...]) -> Path:
    """The folder of a model of the hub, fetched unless it is in the cache already.

    Args:
        name: ``owner/name``.
        kinds: of artifacts that it may be.

    Raises:
        PagodaError: one line: it cannot be got, or is no exported model.
    """

    def files(manifest: Path) -> list[str]:
        return [MANIFEST, *peek(manifest.parent, *kinds).manifest["files"]]

    return _fetched(name, MANIFEST, files, ())


def fetch_files(name: str, marker: str, wanted: list[str], but: list[str]) -> Path:
    """The folder of a repository of the hub, some of its files fetched unless they are there.

    Args:
        name: ``owner/name``.
        marker: the file without which it is not what is looked for.
        wanted: files, as patterns.
        but: of these not.

    Raises:
        PagodaError: one line: it cannot be got, or is without ``marker``.
    """
    return _fetched(name, marker, lambda _: wanted, but)


def _fetched(
    name: str, marker: str, files: Callable[[Path], list[str]], but: Sequence[str]
) -> Path:
    hub = _library()
    try:
        cached = not _in_reach(hub, name, marker)
        first = Path(hub.hf_hub_download(name, marker, local_files_only=cached))
        wanted = {"allow_patterns": files(first), "ignore_patterns": list(but)}
        return Path(hub.snapshot_download(name, **wanted, local_files_only=cached))
    except PagodaError:
        raise
    except hub.errors.LocalEntryNotFoundError as error:
        raise PagodaError(
            f"there is no folder {name}, and the hub, which may have it, is out of reach; check "
            "the name, the network and HF_ENDPOINT, or give a folder"
        ) from error
    except Exception as error:  # of the library, and of those that it stands on
        raise PagodaError(
            f"there is no folder {name}, and the hub does not give it ({first_line(error)}); check "
            "the name, the network and HF_TOKEN, or give a folder"
        ) from error


def _in_reach(hub: Any, name: str, marker: str) -> bool:
    """Whether the hub answers for a model; the library itself would try for half a minute.

    Raises:
        PagodaError: it answers that this is no such model.
    """
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(name, marker))
    except hub.errors.RemoteEntryNotFoundError as error:
        what = "model that pagoda exported" if marker == MANIFEST else "pipeline of diffusers"
        raise PagodaError(f"{name} of the hub is no {what}: it has no {marker}") from error
    except hub.errors.HFValidationError:
        raise  # no such name can be
    except hub.errors.HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise  # it refuses
        return False
    except Exception:  # no network, in the words of whatever the library stands on
        return False
    return True


def push(folder: Path, name: str, private: bool = False) -> str:
    """Put an exported model on the hub, in one commit.

    Args:
        folder: what ``pagoda export`` wrote.
        name: ``owner/name``; made if it is not there.
        private: whether a new one is private.

    Returns:
        Its address.

    Raises:
        PagodaError: one line: nothing exported, something else of that name, or the hub refuses.
    """
    if not _NAME.fullmatch(name):
        raise PagodaError(f"{name!r} is no name on the hub; it is owner/name")
    manifest = open_model(folder).manifest
    if (beside := manifest["config"].get(EXPORTED)) is None:
        raise PagodaError(f"{folder} is a model of a run; 'pagoda export {folder} DIR' comes first")
    files = [f for f in (MANIFEST, *manifest["files"], *beside) if (folder / f).is_file()]
    hub = _library()
    api = hub.HfApi()
    try:
        url = api.create_repo(name, exist_ok=True, private=private)
        there = set(api.list_repo_files(name)) - _BESIDE
        if there and MANIFEST not in there:
            raise PagodaError(
                f"{name} holds {min(there)}, which pagoda did not write; choose another"
            )
        api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=files,
            delete_patterns=[INDEX, ONNX, PROGRAM],
            commit_message=f"pagoda export, {manifest['fingerprint'][:12]}",
        )  # fmt: skip
    except PagodaError:
        raise
    except Exception as error:  # of the library, and of those that it stands on
        raise PagodaError(
            f"the hub does not take {name} ({first_line(error)}); check the name, the network, and "
            "that HF_TOKEN or 'hf auth login' allows to write there"
        ) from error
    return str(url)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise PagodaError(
            "the hub needs the package huggingface-hub: 'uv sync --extra hub', or give a folder"
        ) from error
    return huggingface_hub
