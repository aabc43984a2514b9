"""pagoda: a reproduction suite for PaGoDA (arXiv 2405.14822).

``pagoda.load`` opens a trained generator or teacher, ``pagoda.load_diffusers`` a text-to-image
pipeline of the library diffusers, ``pagoda.evaluate`` compares images; what is here is imported
when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagoda.errors import PagodaError
    from pagoda.models import Generator, Teacher, load
    from pagoda.scoring import evaluate
    from pagoda.text_to_image.model import TextToImage, load_diffusers

__version__ = "0.1.0"
__all__ = [
    "Generator", "PagodaError", "Teacher", "TextToImage", "evaluate", "load", "load_diffusers",
]  # fmt: skip

_TEXT = "pagoda.text_to_image.model"
_HOME = {
    "PagodaError": "pagoda.errors", "TextToImage": _TEXT, "evaluate": "pagoda.scoring",
    "load_diffusers": _TEXT,
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pagoda' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "pagoda.models")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
