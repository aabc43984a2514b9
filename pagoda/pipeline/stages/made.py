"""The artifacts of an experiment by short names: ``data/8``, ``teacher``, ``gen/16`` ..."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.config.paths import Paths

_KINDS = {"data": "images", "gen": "generator", "sr": "super_resolution", "scorer": "clip"}
_PLACES = {"gen": "generator", "sr": "super_resolver"}


def kind_of(key: str) -> str:
    """Kind of an artifact."""
    what = key.partition("/")[0]
    return _KINDS.get(what, what)


def locate(config: Config, key: str) -> Path:
    """Folder of an artifact: ``data/8``, ``features``, ``reference/8``, ``teacher``, ``gen/8`` …"""
    what, _, resolution = key.partition("/")
    found = getattr(Paths(config), _PLACES.get(what, what))
    return Path(found(int(resolution))) if resolution else Path(found)


def identity(config: Config, key: str) -> dict[str, Any]:
    """What the manifest of an artifact says of its configuration."""
    what, _, resolution = key.partition("/")
    own = {"features": {"target_res": config.target_res}, "data": {}, "reference": {}}
    found = {"name": config.name, **own.get(what, {"base_res": config.base_res})}
    return found | ({"resolution": int(resolution)} if resolution else {})


def open_made(config: Config, key: str) -> Artifact:
    """An artifact, checked to be whole and of this configuration."""
    return artifacts.open_artifact(locate(config, key), kind_of(key), identity(config, key))


def training_set(config: Config) -> tuple[int, int]:
    """How many classes and how many training images there are."""
    classes = len(open_made(config, "features").card()["classes"])
    data = open_made(config, f"data/{config.base_res}")
    return classes, config.data.train_images or data.card()["n"]["train"]
