"""Packages of the optional extras, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from pagoda.errors import PagodaError


def package(name: str, extra: str, needs: str) -> Any:
    """An optional package.

    Args:
        name: as it is imported.
        extra: of this package that brings it.
        needs: who needs it, with the verb: ``captions need``.

    Raises:
        PagodaError: it is not installed; how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PagodaError(
            f"{needs} the package {name} ({error}): 'uv sync --extra {extra}'"
        ) from error
