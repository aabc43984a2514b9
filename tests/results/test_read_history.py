"""Histories: what is read, what is refused, and a file that is still growing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagoda.errors import PagodaError
from pagoda.results.experiment import read_history
from tests.results.synthetic import write_history

ROWS = [
    {"images": 10, "step": 1, "seconds": 0.5, "loss": 2.0, "lr": 0.1},
    {"images": 20, "step": 2, "seconds": 1.0, "loss": 1.0, "lr": 0.1, "loss_adv": 3.0},
    {"images": 40, "step": 4, "seconds": 2.0, "loss": 0.5, "loss_adv": 2.0, "final": True},
]  # fmt: skip


def test_curves_keep_the_rows_that_carry_them(tmp_path: Path) -> None:
    write_history(tmp_path / "h.jsonl", ROWS)
    history = read_history(tmp_path / "h.jsonl", "distill")
    assert history.names() == ["loss", "lr", "loss_adv"]
    images, values = history.curve("loss_adv")
    assert (images == [20, 40]).all()
    assert (values == [3, 2]).all()
    assert (history.images, history.steps, history.seconds) == (40, 4, 2.0)


def test_an_unfinished_last_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    write_history(path, ROWS)
    whole = path.read_text()
    for cut in range(len(whole.splitlines()[0]) + 2, len(whole)):
        path.write_text(whole[:cut])
        complete = whole[:cut].count("\n")
        assert read_history(path, "distill", running=True).rows == tuple(ROWS[:complete])


def test_a_missing_file_is_empty_only_while_running(tmp_path: Path) -> None:
    assert read_history(tmp_path / "h.jsonl", "teacher", running=True).rows == ()
    with pytest.raises(PagodaError, match=r"h\.jsonl is missing; 'dvc repro'"):
        read_history(tmp_path / "h.jsonl", "teacher")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json", "line 2 is not a JSON object"),
        ("3", "line 2 is not a JSON object"),
        ('{"images": 3, "step": 1}', "line 2 lacks images, step or seconds"),
        ('{"images": 3, "step": 1, "seconds": 1.0, "loss": NaN}', "line 2: loss is not finite"),
        ('{"images": 3, "step": 1, "seconds": 1e999}', "line 2: seconds is not finite"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "h.jsonl"
    write_history(path, ROWS[:1])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(PagodaError, match=said) as caught:
        read_history(path, "teacher")
    assert "\n" not in str(caught.value)
