"""``params.yaml`` -> :class:`Config`, or one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pagoda.config.documents import read_yaml
from pagoda.config.experiment import Config
from pagoda.config.relations import check
from pagoda.errors import PagodaError
from pagoda.fields import build


def load(path: str | Path = "params.yaml") -> Config:
    """Read and check ``params.yaml``.

    Raises:
        PagodaError: one line naming the key, its value, what is allowed, and the file.
    """
    path = Path(path)
    if not path.is_file():
        raise PagodaError(f"no {path} here; run pagoda from the folder that holds params.yaml")
    return parse(read_yaml(path), str(path))


def parse(tree: Any, where: str = "params.yaml") -> Config:
    """Check a plain tree of dicts and lists and turn it into a :class:`Config`."""
    config: Config = build(Config, tree, where)
    check(config, where)
    return config
