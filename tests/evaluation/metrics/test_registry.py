"""Names of metrics, on the command line and in rows."""

from __future__ import annotations

from typing import Any

import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.evaluator import Evaluator, score
from pagoda.evaluation.metrics import base
from pagoda.evaluation.metrics.base import metric_names, protocol, size


def test_without_its_file_there_is_none() -> None:
    with pytest.raises(PagodaError, match=r"--metrics peak is unknown; known: .*, prdc, .*fd, "):
        metric_names("peak", "means")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"better": "up"}, r"better has 'up', known are 'lower', 'higher', ''"),
        ({"needs": {"feature"}}, r"needs has 'feature', known are 'features', "),
        ({"interval_needs": {"real", "pixels"}}, r"needs has 'pixels'"),
    ],
)
def test_what_nothing_would_look_at_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(PagodaError, match=rf"^metric mine: {says}"):
        base.Metric("mine", {"mine": "Mine"}, lambda c: c.row("mine", 1.0, None), **wrong)


def test_two_metrics_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [*base.metrics().values()]
    monkeypatch.setattr(base, "_declared", lambda kind: there * 2)
    with pytest.raises(PagodaError, match=r"^two metrics are called "):
        base.metrics.__wrapped__()


def test_a_metric_that_gives_no_row_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number: Any = lambda comparison: 1.0  # noqa: E731
    nothing: Any = None
    monkeypatch.setitem(base.metrics(), "mine", base.Metric("mine", {"mine": "Mine"}, number))
    with pytest.raises(PagodaError, match=r"^metric mine measures float, no Row: Comparison\.row"):
        score(nothing, Evaluator(nothing, nothing, ("mine",)), base.Settings())


def test_every_name_in_rows_has_one_owner() -> None:
    names = [name for metric in base.metrics().values() for name in metric.labels]
    assert len(names) == len(set(names)) and {"fid", "recall", "train_share"} <= set(names)
    aliases = [m.alias for m in base.metrics().values() if m.alias]
    assert not set(aliases) & set(base.metrics()) and len(aliases) == len(set(aliases))


@pytest.mark.parametrize(
    ("n", "name"),
    [(50000, "50k"), (2048, "2k"), (10000, "10k"), (500, "500"), (1500, "1500"), (64, "64")],
)
def test_sizes(n: int, name: str) -> None:
    assert size(n) == name


def test_no_two_sizes_have_one_name() -> None:
    """Equal protocols mean equal n: 1,000 images are not 1,024."""
    assert len({size(n) for n in range(70_000)}) == 70_000


def test_names_carry_distance_features_and_n() -> None:
    assert protocol("fd", "classifier", 2048) == "fd_classifier_2k"
    assert protocol("precision", "classifier", 50000, k=3) == "precision_classifier_50k_k3"
