"""Which code made a result."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pagoda
from pagoda import distributed


def code_revision() -> str:
    """The git revision of the working folder, ``+dirty`` if ``pagoda/`` differs from it.

    Returns ``"unknown"`` where git knows none, and says why on stderr, once.
    """
    if why := revision_trouble():
        _warn(f"results carry no revision of the code: {why}")
        return "unknown"
    head, _ = _git("rev-parse", "--short=12", "HEAD")
    return head + ("+dirty" if _git("status", "--porcelain", "--", "pagoda")[0] else "")


def package_revision() -> str:
    """As :func:`code_revision`, of the folder that pagoda was imported from, wherever one works.

    Returns ``pagoda <version>`` where that is an installed package.
    """
    folder = Path(pagoda.__file__).parent
    tracked, why = _git("-C", str(folder), "ls-files", "__init__.py")
    if why and any((parent / ".git").exists() for parent in folder.parents):
        _warn(f"results carry pagoda's version, not its revision: {_explained(why)}")
    if not tracked:
        return f"pagoda {pagoda.__version__}"
    head, _ = _git("-C", str(folder), "rev-parse", "--short=12", "HEAD")
    changed, _ = _git("-C", str(folder), "status", "--porcelain", "--", ".")
    return head + ("+dirty" if changed else "")


def revision_trouble() -> str:
    """Why the working folder has no git revision and what to do, in one line; empty if it has."""
    return _explained(_git("rev-parse", "--verify", "HEAD")[1])


def _git(*args: str) -> tuple[str, str]:
    """What git answers, or else what it complains of."""
    try:
        done = subprocess.run(
            ["git", *args], capture_output=True, text=True, encoding="utf-8", errors="replace",
            env=os.environ | {"LC_ALL": "C"}, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return "", "git is not installed"
    return (done.stdout.strip(), "") if done.returncode == 0 else ("", done.stderr.strip() or "?")


def _explained(complaint: str) -> str:
    """Git's complaint as one line with a remedy; empty stays empty."""
    if remedy := re.search(r"git config --global --add safe\.directory .+", complaint):
        return f"git refuses the checkout, which another user owns; '{remedy[0]}' trusts it"
    if "not a git repository" in complaint:
        return "no git checkout here; work in a clone of pagoda"
    if "Needed a single revision" in complaint:
        return "the git repository has no commit yet; commit the code"
    return " ".join(complaint.split())


@cache
def _warn(line: str) -> None:
    if distributed.is_main_process():
        sys.stderr.write(f"warning: {line}\n")
