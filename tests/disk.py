"""A small file system, and another user, for tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a tmpfs of a size at a folder; skip the test where that is not permitted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system is not permitted")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # mapped files may be open


@contextlib.contextmanager
def another_user(folder: Path) -> Iterator[None]:
    """Work in a folder as a user to whom files of mode 0 are closed, which root is not."""
    if os.geteuid():
        with contextlib.chdir(folder):
            yield
        return
    modes = {above: above.stat().st_mode for above in (folder, *folder.parents)}
    try:
        for above, mode in modes.items():
            above.chmod(mode | 0o111)
        with contextlib.chdir(folder):
            os.seteuid(65534)
            try:
                yield
            finally:
                os.seteuid(0)
    finally:
        for above, mode in modes.items():
            above.chmod(mode)
