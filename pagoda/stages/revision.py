"""Which code made a result."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pagoda


def code_revision() -> str:
    """The git revision of the working folder, ``+dirty`` if ``pagoda/`` differs from it.

    Returns ``"unknown"`` outside a git checkout.
    """
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return head + ("+dirty" if _git("status", "--porcelain", "--", "pagoda") else "")


def package_revision() -> str:
    """As :func:`code_revision`, of the folder that pagoda was imported from, wherever one works.

    Returns ``pagoda <version>`` where that is an installed package.
    """
    folder = Path(pagoda.__file__).parent
    if not _git("-C", str(folder), "ls-files", "__init__.py"):
        return f"pagoda {pagoda.__version__}"
    head = _git("-C", str(folder), "rev-parse", "--short=12", "HEAD")
    return head + ("+dirty" if _git("-C", str(folder), "status", "--porcelain", "--", ".") else "")


def _git(*args: str) -> str:
    try:
        done = subprocess.run(["git", *args], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
