"""``params.yaml`` -> frozen, typed, validated dataclasses. The only reader of that file.

Numbers live in ``params.yaml``, which ``experiments/`` composes; a key whose field has a default
may be missing there. A wrong key, type or value raises :class:`pagoda.errors.PagodaError` with one
line that names the key, the value, what is allowed and the file.

:mod:`sections` and :mod:`experiment` hold the keys and what each allows by the rules of
:mod:`pagoda.fields`, :mod:`relations` what they demand of each other, :mod:`ladder` what follows
from others; :mod:`documents` reads YAML, :mod:`reading` puts them together. Sections of methods are
in :mod:`pagoda.methods`. The rest of pagoda imports from this page alone.
"""

from __future__ import annotations

from pagoda.config.documents import parse_yaml, read_yaml
from pagoda.config.experiment import ArmConfig, Config
from pagoda.config.ladder import derive_growth, derive_resolutions, with_lists
from pagoda.config.reading import load, parse
from pagoda.config.relations import check_counts
from pagoda.config.sections import (
    NO_WEIGHTS,
    DistillConfig,
    EvaluateConfig,
    GrowConfig,
    InvertConfig,
    ReferenceConfig,
    ReportConfig,
)
from pagoda.fields import NAME_RULE, is_name

__all__ = [
    "NAME_RULE",
    "NO_WEIGHTS",
    "ArmConfig",
    "Config",
    "DistillConfig",
    "EvaluateConfig",
    "GrowConfig",
    "InvertConfig",
    "ReferenceConfig",
    "ReportConfig",
    "check_counts",
    "derive_growth",
    "derive_resolutions",
    "is_name",
    "load",
    "parse",
    "parse_yaml",
    "read_yaml",
    "with_lists",
]
