"""The votes of a study: a file of JSON lines that only ever grows.

A line says that a voter joined, with all that they will be shown, or holds a vote. A line is
written by one call and is on the disk before the voter is told so. What a crash leaves of a line
is kept, marked and passed over: nobody was told that it counts.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pagoda.errors import PagodaError
from pagoda.preference.study import LOCK, Study, Trial

ANSWERS = ("left", "right", "tie")
LONGEST_NAME = 40
_CUT = "\t(cut off)"  # no tab can be in a line of JSON


@dataclass(frozen=True)
class Vote:
    """What a voter answered to one trial.

    Attributes:
        trial: what was shown.
        answers: ``left``, ``right`` or ``tie`` by question.
        seconds: that it took.
    """

    trial: Trial
    answers: dict[str, str]
    seconds: float


@dataclass
class Record:
    """What a file of votes says.

    Attributes:
        trials: of each voter, in the order in which they joined.
        votes: of each voter by number of the trial.
        cut: lines that a crash cut off.
    """

    trials: dict[str, list[Trial]] = field(default_factory=dict)
    votes: dict[str, dict[int, Vote]] = field(default_factory=dict)
    cut: int = 0

    @property
    def count(self) -> int:
        """Votes of all voters."""
        return sum(map(len, self.votes.values()))


class _WrongLineError(Exception):
    """What is wrong with a line."""


def read_votes(file: Path, study: Study) -> Record:
    """All votes of a study; none where the file is not there yet.

    Raises:
        PagodaError: one line, with the number of a line that is damaged or of another study.
    """
    record = Record()
    try:
        content = file.read_bytes() if file.exists() else b""
    except OSError as error:
        raise PagodaError(f"cannot read {file}: {error.strerror}") from error
    *lines, rest = content.split(b"\n")
    record.cut += bool(rest)  # its writer may be at it, or died
    for number, line in enumerate(lines, 1):
        if line.endswith(_CUT.encode()):
            record.cut += 1
            continue
        try:
            _take(record, json.loads(line), study)
        except (_WrongLineError, PagodaError, ValueError, TypeError, KeyError,
                RecursionError) as error:  # fmt: skip
            why = error if isinstance(error, _WrongLineError) else "is damaged"
            raise PagodaError(
                f"{file}, line {number} {why}; put a whole copy of the file in its place, or take "
                "the line out"
            ) from error
    return record


def _take(record: Record, tree: dict[str, Any], study: Study) -> None:
    """Add what a line says to a record."""
    if tree["study"] != study.fingerprint:
        other = str(tree["study"])[:10]
        raise _WrongLineError(f"is of another study ({other}, not {study.fingerprint[:10]})")
    voter = tree["voter"]
    if "trials" in tree:
        trials = [Trial(str(kind), *map(int, more)) for kind, *more in tree["trials"]]
        if check_voter(voter) in record.trials:
            raise _WrongLineError(f"has {voter} join a second time")
        for trial in trials:
            study.picture(trial, trial.left), study.picture(trial, trial.right)
        record.trials[voter], record.votes[voter] = trials, {}
        return
    number, seconds = tree["trial"], float(tree["seconds"])
    if voter not in record.trials or not 0 <= number < len(record.trials[voter]):
        raise _WrongLineError(f"is a vote of {voter!r} on what they were not shown")
    if number in record.votes[voter]:
        raise _WrongLineError(f"is a second vote of {voter} on trial {number}")
    trial = record.trials[voter][number]
    said = [tree["kind"], tree["item"], tree["left"], tree["right"]]
    if said != [trial.kind, trial.item, study.name(trial.left), study.name(trial.right)]:
        raise _WrongLineError(f"says that {voter} saw something else in trial {number}")
    if not math.isfinite(seconds):
        raise ValueError
    answers = check_answers(tree["answers"], study)
    record.votes[voter][number] = Vote(trial, answers, seconds)


def check_voter(name: Any) -> str:
    """A voter's name without spaces at its ends.

    Raises:
        PagodaError: it is none.
    """
    spelled = name.strip() if isinstance(name, str) else ""
    if not spelled or len(spelled) > LONGEST_NAME or not spelled.isprintable():
        raise PagodaError(f"a voter's name has 1 to {LONGEST_NAME} printable characters")
    return spelled


def check_answers(answers: Any, study: Study) -> dict[str, str]:
    """An answer to every question.

    Raises:
        PagodaError: one is missing, or is none.
    """
    asked = list(study.questions)
    if not isinstance(answers, dict) or sorted(answers) != sorted(asked):
        raise PagodaError(f"a vote answers {', '.join(asked)}")
    if not all(answer in ANSWERS for answer in answers.values()):
        raise PagodaError(f"an answer is one of {', '.join(ANSWERS)}")
    return {key: str(answers[key]) for key in asked}


class Store:
    """The votes of a study, open for more; several threads may use it.

    Args:
        file: where they are; made by the first voter.
        study: whose they are.

    Raises:
        PagodaError: another program has it open, or :func:`read_votes` refuses it.
    """

    def __init__(self, file: Path, study: Study) -> None:
        self._file, self._study = file, study
        self._lock, self._alone = threading.Lock(), FileLock(file.with_name(LOCK))
        try:
            self._alone.acquire(blocking=False)
        except Timeout as error:
            raise PagodaError(
                f"{file} is open for votes in another program; end that one first"
            ) from error
        except OSError as error:
            raise PagodaError(f"cannot write beside {file}: {error.strerror}") from error
        try:
            self.record = read_votes(file, study)
        except PagodaError:
            self._alone.release()
            raise

    def close(self) -> None:
        """Let other programs have it."""
        self._alone.release()

    def join(self, voter: str) -> list[Trial]:
        """What a voter is shown; drawn and stored when they come for the first time."""
        with self._lock:
            if voter not in self.record.trials:
                trials = self._study.trials(voter, len(self.record.trials))
                self._append({"voter": voter, "trials": [list(trial) for trial in trials]})
                self.record.trials[voter], self.record.votes[voter] = trials, {}
            return self.record.trials[voter]

    def position(self, voter: str) -> int:
        """Number of the trial that a voter who joined is at; that after the last: they are done."""
        trials = self.join(voter)
        with self._lock:
            done = self.record.votes[voter]
            return next((i for i in range(len(trials)) if i not in done), len(trials))

    def add(self, voter: str, number: int, answers: Mapping[str, str], seconds: float) -> bool:
        """Store a vote; False where there is one on this trial already, which stays.

        Raises:
            PagodaError: there is no such trial, or the disk is full: nothing counts then.
        """
        trials = self.join(voter)
        if not 0 <= number < len(trials):
            raise PagodaError(f"there is no trial {number}; there are {len(trials)}")
        trial, study = trials[number], self._study
        with self._lock:
            if number in self.record.votes[voter]:
                return False
            vote = Vote(trial, dict(answers), round(seconds, 2))
            self._append({
                "voter": voter, "trial": number, "kind": trial.kind, "item": trial.item,
                "left": study.name(trial.left), "right": study.name(trial.right),
                "answers": vote.answers, "seconds": vote.seconds,
            })  # fmt: skip
            self.record.votes[voter][number] = vote
            return True

    def _append(self, tree: dict[str, Any]) -> None:
        """A line at the end of the file, on the disk when this returns."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({"study": self._study.fingerprint, "time": now, **tree}) + "\n"
        try:
            handle = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                end = os.lseek(handle, 0, os.SEEK_END)
                if end and os.pread(handle, 1, end - 1) != b"\n":
                    line = f"{_CUT}\n{line}"  # what a crash, or a full disk, left
                if os.write(handle, line.encode()) < len(line.encode()):
                    raise PagodaError(f"{self._file} was not written whole; is the disk full?")
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise PagodaError(f"cannot write {self._file}: {error.strerror}") from error
