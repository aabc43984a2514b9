"""What tests of tracking share: an empty store, an environment that names none, an experiment."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.pipeline.stages import report
from pagoda.results.mlflow_store import Store, connected
from tests.results.runs import stand_in_report
from tests.results.synthetic import make_config, write_experiment


@pytest.fixture(scope="session")
def blank_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with nothing in it; making one takes seconds."""
    root = tmp_path_factory.mktemp("blank")
    store = Store(f"sqlite:///{root / 'mlflow.db'}", None, root / "lock")
    with connected(store):
        return root / "mlflow.db"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A reported experiment and its report's folder; tests only read it."""
    folder, config = tmp_path_factory.mktemp("finished"), make_config()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_experiment(config)
        report.run(config)
    return config, folder / Paths(config).report


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def copy(blank_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A finished experiment in a project of its own, not tracked yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    shutil.copy(blank_store, tmp_path)
    config = make_config(base_res=32)
    write_experiment(config, columns=1)
    stand_in_report(config)
    return config
