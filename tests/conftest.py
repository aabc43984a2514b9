"""What all tests share: one thread, fixed seeds, and the default experiment made tiny."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pagoda.config import Config, parse
from tests.tiny import tiny_tree


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """A shell starts its background jobs deaf to Ctrl-C, and what they start inherits it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    """Equal draws in every run. torch is left alone in tests that never import it."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        import torch

        # One thread: these networks are too small for more, and others may use the machine.
        torch.set_num_threads(1)
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of :mod:`tests.tiny_run`, to be read."""
    from tests.tiny_run import make_run

    folder = tmp_path_factory.mktemp("run")
    make_run(folder)
    return folder


@pytest.fixture
def linked_run(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder that sees that run."""
    (tmp_path / "runs").symlink_to(tiny_run / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """``tiny_config(**{"teacher.optim.batch": 8})``: a tiny experiment in an empty folder.

    The working folder is ``tmp_path``; its ``params.yaml`` holds the same values, for tests that
    run the command line.
    """
    monkeypatch.chdir(tmp_path)

    def make(**overrides: Any) -> Config:
        tree = tiny_tree(**overrides)
        Path("params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        return parse(tree)

    return make
