"""Packages of the optional extras, and files that are found by their names, where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from pagoda.errors import PagodaError, first_line


def part(name: str) -> Any:
    """A module of this package that was found by listing a folder.

    Raises:
        PagodaError: it cannot be imported; which file, and why.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, SyntaxError) as error:
        file = name.replace(".", "/") + ".py"
        raise PagodaError(f"{file} cannot be imported: {first_line(error)}") from error


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
