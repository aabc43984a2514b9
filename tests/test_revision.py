"""Which code made a result: never unknown without a word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pagoda.config.revision import revision_trouble
from tests.tiny import ROOT

REVISIONS = (
    "from pagoda.config.revision import code_revision as c, package_revision as p\n"
    "print(c(), c(), p(), p(), sep='|')"
)


def git(folder: Path, *args: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@x"]
    done = subprocess.run(
        ["git", *who, *args], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def revisions(folder: Path) -> tuple[list[str], list[str]]:
    """What a process in ``folder`` that has its own pagoda says, each twice; lines on stderr."""
    env = os.environ | {"PYTHONPATH": str(folder), "GIT_CONFIG_GLOBAL": os.devnull}
    command = [sys.executable, "-c", REVISIONS]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip().split("|"), done.stderr.splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pagoda", folder / "pagoda", ignore=ignore)
    git(tmp_path, "init", "-q", "checkout")
    return folder


def test_a_checkout_is_named_and_its_changes_marked(checkout: Path) -> None:
    (checkout / ".gitignore").write_text("__pycache__\n")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "all")
    head = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert revisions(checkout) == ([head] * 4, [])
    (checkout / "pagoda/errors.py").write_text(
        "# changed\n" + (ROOT / "pagoda/errors.py").read_text()
    )
    assert revisions(checkout) == ([f"{head}+dirty"] * 4, [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_checkout_of_another_user_is_warned_of_once_with_gits_remedy(checkout: Path) -> None:
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "all")
    for path in (checkout, checkout / ".git"):
        os.chown(path, 12345, 12345)
    found, said = revisions(checkout)
    assert found[:2] == ["unknown"] * 2 and found[2].startswith("pagoda ")
    remedy = f"git config --global --add safe.directory {checkout}"
    assert len(said) == 2 and all(remedy in line and line.startswith("warning: ") for line in said)


def test_no_commit_yet_and_no_checkout(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, said = revisions(checkout)
    assert found[:2] == ["unknown"] * 2
    assert said[0].startswith("warning: ") and "no commit yet; commit the code" in said[0]
    monkeypatch.chdir(tmp_path)
    assert revision_trouble() == "no git checkout here; work in a clone of pagoda"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in revision_trouble()
