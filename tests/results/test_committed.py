"""What ``make reproduce`` says at its end, in a repository with a committed report."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pagoda.config import Config
from pagoda.results.committed import beside_committed

REPORT = Path("reports/smoke/b8")


@pytest.fixture
def results(finished: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The committed ``results.csv``, in a repository that is the working folder."""
    monkeypatch.chdir(tmp_path)
    REPORT.mkdir(parents=True)
    shutil.copy(finished[1] / "results.csv", REPORT)
    who = ["-c", "user.name=n", "-c", "user.email=e@x"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], check=True)
    return tmp_path / REPORT / "results.csv"


def test_the_same_results_leave_nothing_to_say(results: Path) -> None:
    assert beside_committed(REPORT) == "Distances are the committed ones, to the last digit."


@pytest.mark.parametrize(("value", "said"), [(37.4 * 1.5, "1.50 times, within"),
                                             (37.4 / 2, "2.00 times, beyond")])  # fmt: skip
def test_other_results_are_set_beside_them(results: Path, value: float, said: str) -> None:
    text = results.read_text(encoding="utf-8")
    assert text.count(",37.4,") == 1
    results.write_text(text.replace(",37.4,", f",{value},"), encoding="utf-8")
    lines = beside_committed(REPORT).splitlines()
    (line,) = [line for line in lines if "32x32" in line]
    assert said in line and "37.4" in line
    assert "1.00 times, within" in lines[1]
    assert lines[-1].startswith(f"Git sees changes in {REPORT}/results.csv: ")


def test_a_profile_without_committed_results(results: Path) -> None:
    other = Path("reports/mine/b8")
    other.mkdir(parents=True)
    shutil.copy(results, other)
    said = beside_committed(other).splitlines()
    assert said[0] == "No results of it are committed." and "reports/mine/" in said[1]
