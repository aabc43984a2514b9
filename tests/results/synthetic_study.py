"""A small made-up study, for tests of what is done with results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pagoda.results.studies import StudyCard
from pagoda.rows import Row


def make_card(**overrides: Any) -> StudyCard:
    """A study of two variants."""
    card: dict[str, Any] = {
        "study": "pairs", "title": "Share of pairs", "question": "How many pairs are needed?",
        "rule": "Few against many.", "profile": "tiny", "data": "made up, 8 images",
        "revision": "0123456789ab", "axis_label": "share of pairs", "axis_log": True,
        "axis_metric": "", "variants": {"few": "1 %", "many": "100 %"}, "metrics": ("fd",),
    }  # fmt: skip
    return StudyCard(**(card | overrides))


def make_row(variant: str, seed: int, value: float, **overrides: Any) -> Row:
    """A Fréchet distance of a student."""
    row: dict[str, Any] = {
        "variant": variant, "axis": {"few": 0.01, "many": 1.0}.get(variant), "training_seed": seed,
        "base_res": 8,
        "resolution": 8, "generator": "student", "nfe": 1, "metric": "fd",
        "protocol": "fd_classifier_1k", "value": value, "n": 1024, "seed": 7,
        "reference": "aa" * 32, "reference_n": 8192, "features": "fe" * 32,
        "revision": "0123456789ab", "device": "cpu",
    }  # fmt: skip
    return Row(**(row | overrides))


def make_rows(values: Mapping[str, Sequence[float]], **overrides: Any) -> list[Row]:
    """Values by variant, one a seed: seeds count from 0."""
    return [
        make_row(variant, seed, value, **overrides)
        for variant, line in values.items()
        for seed, value in enumerate(line)
    ]
