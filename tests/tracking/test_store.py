"""The MLflow store: where it is, and what is said when it is no use."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pagoda import mlflow_store, tracking
from pagoda.config import Config
from pagoda.errors import PagodaError
from pagoda.mlflow_store import find_store
from pagoda.stages import track
from pagoda.stages.paths import Paths
from tests.report.synthetic import make_config, write_experiment
from tests.tracking.runs import all_runs, client_of, stand_in_report


@pytest.mark.parametrize("below", [".dvc/tmp/exps/tmpabc", ".dvc/tmp/exps/standalone/x", "a/b", ""])
def test_copies_of_queued_experiments_share_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    (tmp_path / ".dvc").mkdir()
    folder = tmp_path / below
    (folder / ".dvc" if below.startswith(".dvc") else folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    store = find_store()
    assert store.uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert store.artifacts == (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert find_store().uri == f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert find_store().uri == "https://mlflow.example"
    assert find_store().artifacts is None


def _track_in(folder: str, base: int, start: Any) -> None:
    os.chdir(folder)
    start.wait()
    tracking.track(make_config(base_res=base))


def test_two_processes_create_the_store_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    bases = (16, 32)
    for base in bases:
        write_experiment(make_config(base_res=base), columns=1)
        stand_in_report(make_config(base_res=base))
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    workers = [context.Process(target=_track_in, args=(str(tmp_path), b, start)) for b in bases]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(600)
        assert worker.exitcode == 0
    assert len(all_runs(client_of(tmp_path))) == (1 + 5) + (1 + 4)


@pytest.mark.parametrize("uri", ["sqlite:///no/such/folder/m.db", "http://127.0.0.1:9"])
def test_an_unreachable_store_is_one_line(
    copy: Config, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(PagodaError, match="trouble with the MLflow store") as caught:
        tracking.track(copy)
    assert "\n" not in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)


def test_a_file_that_is_no_database_is_one_line(copy: Config, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be looked at" * 20)
    with pytest.raises(PagodaError, match="file is not a database"):
        tracking.track(copy)


def test_a_locked_store_is_one_line(
    copy: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "_SQLITE_SECONDS", 0.2)
    holder = sqlite3.connect(tmp_path / "mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(PagodaError, match="database is locked"):
        track.run(copy)
    holder.rollback()
    holder.close()
    assert not (Paths(copy).base / "tracked.json").exists()
    assert all_runs(client_of(tmp_path)) == []
