"""Which code made a result."""

from __future__ import annotations

import subprocess


def code_revision() -> str:
    """The git revision of the working folder, ``+dirty`` if ``pagoda/`` differs from it.

    Returns ``"unknown"`` outside a git checkout.
    """
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return head + ("+dirty" if _git("status", "--porcelain", "--", "pagoda") else "")


def _git(*args: str) -> str:
    try:
        done = subprocess.run(["git", *args], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
