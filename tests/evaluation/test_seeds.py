"""Summaries over sample seeds."""

from __future__ import annotations

import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.results import over_seeds
from pagoda.pipeline.stages.score import seed_list
from pagoda.rows import Row


def rows(metric: str, *values: float) -> list[Row]:
    protocol = f"{metric}_x_50k"
    return [
        Row(metric=metric, protocol=protocol, value=v, n=50_000, seed=i)
        for i, v in enumerate(values)
    ]


def test_the_best_of_three_is_named_beside_mean_and_deviation() -> None:
    distance, precision = over_seeds([*rows("fd", 2, 1, 3), *rows("precision", 0.2, 0.1, 0.3)])
    assert distance["fd_x_50k_best_of_3"] == distance["min"] == 1
    assert (distance["mean"], distance["sd"], distance["max"]) == (2, 1, 3)
    assert distance["seeds"] == [0, 1, 2] and distance["values"] == [2, 1, 3]
    assert precision["precision_x_50k_best_of_3"] == precision["max"] == 0.3


@pytest.mark.parametrize("values", [(1.0,), (1.0, float("nan"))])
def test_one_value_is_no_summary(values: tuple[float, ...]) -> None:
    with pytest.raises(PagodaError, match=r"fd_x_50k: .* 2 or more finite values"):
        over_seeds(rows("fd", *values))


def test_seed_lists() -> None:
    assert seed_list("0,1, 7") == (0, 1, 7)
    assert seed_list("3-5,0") == (3, 4, 5, 0)
    for text in ("", "1,1", "0-2,1", "a", "-1", "1.5"):
        with pytest.raises(PagodaError, match=r"whole numbers and ranges|names one twice"):
            seed_list(text)
