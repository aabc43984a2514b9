"""pagoda: a reproduction suite for PaGoDA (arXiv 2405.14822).

``pagoda.load`` opens a trained generator or teacher, ``pagoda.evaluate`` compares images; what is
here is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagoda.errors import PagodaError
    from pagoda.models import Generator, Teacher, load
    from pagoda.scoring import evaluate

__version__ = "0.1.0"
__all__ = ["Generator", "PagodaError", "Teacher", "evaluate", "load"]

_HOME = {"PagodaError": "pagoda.errors", "evaluate": "pagoda.scoring"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pagoda' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "pagoda.models")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
