"""Names of protocols."""

from __future__ import annotations

import pytest

from pagoda.evaluation.metrics.base import protocol, size


@pytest.mark.parametrize(
    ("n", "name"),
    [(50000, "50k"), (2048, "2k"), (10000, "10k"), (500, "500"), (1500, "1500"), (64, "64")],
)
def test_sizes(n: int, name: str) -> None:
    assert size(n) == name


def test_names_carry_distance_features_and_n() -> None:
    assert protocol("fd", "classifier", 2048) == "fd_classifier_2k"
    assert protocol("precision", "classifier", 50000, k=3) == "precision_classifier_50k_k3"
