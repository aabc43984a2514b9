"""The store of votes: nothing that was promised is lost, nothing is written over."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagoda.errors import PagodaError
from pagoda.preference.study import Study
from pagoda.preference.votes import Store, read_votes
from tests.preference.test_study import study

BOTH = {"quality": "left", "match": "tie"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "votes.jsonl"


def filled(file: Path, of: Study, votes: int = 3) -> None:
    store = Store(file, of)
    store.join("ann")
    for number in range(votes):
        assert store.add("ann", number, BOTH, 1.234)
    store.close()


def test_votes_come_back_and_a_voter_goes_on_where_they_stopped(file: Path) -> None:
    filled(file, study())
    store = Store(file, study())
    assert store.position("ann") == 3 and store.record.count == 3
    assert store.join("ann") == study().trials("ann", 0)
    assert store.join("bob") == study().trials("bob", 1)
    store.close()
    record = read_votes(file, study())
    assert list(record.trials) == ["ann", "bob"]
    assert record.votes["ann"][2].answers == BOTH and record.votes["ann"][2].seconds == 1.23


def test_a_second_vote_on_a_trial_changes_nothing(file: Path) -> None:
    filled(file, study())
    before, store = file.read_bytes(), Store(file, study())
    assert not store.add("ann", 1, {"quality": "right", "match": "right"}, 9.0)
    assert file.read_bytes() == before
    store.close()


@pytest.mark.parametrize("lost", [1, 5, 200])
def test_what_a_crash_cut_off_is_passed_over_and_kept(file: Path, lost: int) -> None:
    filled(file, study())
    whole = file.read_bytes()
    os.truncate(file, len(whole) - lost)
    record = read_votes(file, study())
    assert (record.count, record.cut) == (2, 1)
    store = Store(file, study())
    assert store.position("ann") == 2 and store.add("ann", 2, BOTH, 1.0)
    store.close()
    assert file.read_bytes().startswith(whole[:-lost])
    record = read_votes(file, study())
    assert (record.count, record.cut) == (3, 1)


def test_many_voters_at_once(file: Path) -> None:
    store = Store(file, study())
    threads = [
        threading.Thread(target=lambda v=v: [store.add(f"v{v}", i, BOTH, 1.0) for i in range(20)])
        for v in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert read_votes(file, study()).count == 160


def test_two_programs_do_not_write_to_one_store(file: Path) -> None:
    store = Store(file, study())
    with pytest.raises(PagodaError, match="open for votes in another program"):
        Store(file, study())
    store.close()
    Store(file, study()).close()


def changed(key: str, value: Any) -> Callable[[bytes], bytes]:
    return lambda line: json.dumps(json.loads(line) | {key: value}).encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line: line[:40], "line 3 is damaged"),
        (lambda line: b"\xff\xfe" + line, "line 3 is damaged"),
        (lambda line: b"[1]", "line 3 is damaged"),
        (changed("answers", {"quality": "left"}), "line 3 is damaged"),
        (changed("seconds", None), "line 3 is damaged"),
        (changed("study", "0" * 64), "line 3 is of another study (0000000000, not "),
        (changed("voter", "bob"), "line 3 is a vote of 'bob' on what they were not shown"),
        (changed("trial", 999), "line 3 is a vote of 'ann' on what they were not shown"),
        (changed("trial", 0), "line 3 is a second vote of ann on trial 0"),
        (changed("left", "z"), "line 3 says that ann saw something else in trial 1"),
    ],
)
def test_a_damaged_line_is_named(file: Path, change: Callable[[bytes], bytes], said: str) -> None:
    filled(file, study())
    lines = file.read_bytes().split(b"\n")
    lines[2] = change(lines[2])
    file.write_bytes(b"\n".join(lines))
    for opened in (read_votes, Store):
        with pytest.raises(PagodaError) as raised:
            opened(file, study())
        assert said in str(raised.value) and "\n" not in str(raised.value)


def test_votes_of_another_study_are_refused(file: Path) -> None:
    filled(file, study())
    with pytest.raises(PagodaError, match="line 1 is of another study"):
        read_votes(file, study(seed=1))
