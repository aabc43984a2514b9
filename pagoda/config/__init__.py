"""``params.yaml`` -> frozen, typed, validated dataclasses. The only reader of that file.

Numbers live in ``params.yaml``, which ``experiments/`` composes; a key whose field has a default
may be missing there. A wrong key, type or value raises :class:`pagoda.errors.PagodaError` with one
line that names the key, the value, what is allowed and the file.

:mod:`sections` and :mod:`experiment` hold the keys and what each allows by the rules of
:mod:`pagoda.fields`, and what keys demand of each other; :mod:`documents` reads YAML. Sections of
methods are in :mod:`pagoda.methods`. The rest of pagoda imports from this page alone.
"""

from __future__ import annotations

from pagoda.config.documents import parse_yaml, read_yaml
from pagoda.config.experiment import (
    BY_METHOD,
    DERIVED,
    Config,
    VariantConfig,
    check_counts,
    derive_code,
    derive_growth,
    derive_resolutions,
    for_its_methods,
    load,
    parse,
    with_derived,
    with_methods,
)
from pagoda.config.sections import (
    NO_WEIGHTS,
    DistillConfig,
    EvaluateConfig,
    GrowConfig,
    InvertConfig,
    ReferenceConfig,
    ReportConfig,
)
from pagoda.fields import NAME_RULE, Check, build, is_name, opt

__all__ = [
    "BY_METHOD",
    "DERIVED",
    "NAME_RULE",
    "NO_WEIGHTS",
    "Check",
    "Config",
    "DistillConfig",
    "EvaluateConfig",
    "GrowConfig",
    "InvertConfig",
    "ReferenceConfig",
    "ReportConfig",
    "VariantConfig",
    "build",
    "check_counts",
    "derive_code",
    "derive_growth",
    "derive_resolutions",
    "for_its_methods",
    "is_name",
    "load",
    "opt",
    "parse",
    "parse_yaml",
    "read_yaml",
    "with_derived",
    "with_methods",
]
