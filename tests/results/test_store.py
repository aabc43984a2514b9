"""The MLflow store: where it is, and what is said when it is no use."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import track
from pagoda.results import mlflow_store, tracking
from pagoda.results.mlflow_store import browse, check_store, connected, find_store, page, shown
from tests.disk import small_disk
from tests.results.runs import all_runs, client_of, stand_in_report
from tests.results.synthetic import make_config, write_experiment
from tests.tiny import ROOT


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


@pytest.mark.slow
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


def _trouble(uri: str) -> str:
    with pytest.raises(PagodaError) as caught:
        check_store(uri)
    return str(caught.value)


def _database(path: Path, script: str) -> str:
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()
    return f"sqlite:///{path}"


_CREATE = "from pagoda.results.mlflow_store import *\nwith connected(find_store()): pass"


@pytest.mark.longer
def test_a_creation_that_is_killed_or_finds_a_full_disk_is_simply_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    partial = tmp_path / ".mlflow.db.unfinished"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", _CREATE], env=environment)
    end = time.monotonic() + 300
    while not (partial.exists() and partial.stat().st_size > 100_000):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert partial.exists() and not (tmp_path / "mlflow.db").exists()

    with connected(find_store()) as client:
        assert [e.name for e in client.search_experiments()] == ["Default"]
    assert sorted(os.listdir(tmp_path)) == [".dvc", "mlflow.db", "mlruns"]

    (full := tmp_path / "full").mkdir()
    with small_disk(full, "300k"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{full}/m.db")
        with pytest.raises(PagodaError, match="disk is full"), connected(find_store()):
            pass
        assert os.listdir(full) == []


def test_a_half_made_store_is_told_from_an_old_one(blank_store: Path, tmp_path: Path) -> None:
    """Both have an earlier schema; only one of them holds runs, and neither is touched."""
    half = _database(tmp_path / "half.db", "CREATE TABLE experiments (a); CREATE TABLE runs (a);")
    old = tmp_path / "old.db"
    shutil.copy(blank_store, old)
    _database(old, "UPDATE alembic_version SET version_num = 'acf3f17fdcc7'")
    other = _database(tmp_path / "other.db", "CREATE TABLE birds (name)")
    before = [(tmp_path / name).read_bytes() for name in ("half.db", "old.db")]
    assert "holds no run: move it away" in _trouble(half)
    told = _trouble(f"sqlite:///{old}")
    assert "schema acf3f17fdcc7" in told and f"mlflow db upgrade sqlite:///{old}" in told
    check_store(other)
    check_store(f"sqlite:///{blank_store}")
    check_store(f"sqlite:///{tmp_path / 'new.db'}")
    assert [(tmp_path / name).read_bytes() for name in ("half.db", "old.db")] == before
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://alice:s3cret@127.0.0.1:9", "http://127.0.0.1:9: "),
        ("http://alice:s3cret@127.0.0.1:port", "nonnumeric port"),
        ("mysql+nothing://alice:s3cret@127.0.0.1/x", "mysql+nothing://127.0.0.1/x"),
        ("mysql+pymysql://alice:s3cret@127.0.0.1/x", "'pymysql'"),
        ("file:./mlruns", "maintenance mode"),
        ("./mlruns", "maintenance mode"),
        ("nonsense://x", "unsupported URI"),
    ],
)
def test_a_store_that_is_no_use_is_told_before_the_first_run(
    copy: Config, uri: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = _trouble(uri)
    assert told in line and "\n" not in line
    assert "s3cret" not in line and "alice" not in line
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(PagodaError) as caught:
        tracking.track(copy)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        ("https://alice:s3cret@host:8080/base", "https://host:8080/base"),
        ("postgresql://alice:s3/c#r@et@host/db?sslpassword=x", "postgresql://host/db"),
        ("postgresql://host/db?password=s3@et", "postgresql://..."),
        ("https://alice:s3?cret@host", "https://..."),
        ("https://host:8080", "https://host:8080"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_a_uri_is_shown_without_its_secrets(uri: str, seen: str) -> None:
    assert shown(uri) == seen
    assert "s3" not in page(uri, "1") + browse(uri)


def test_a_library_that_quotes_the_uri_gives_no_secret_away() -> None:
    uri = "http://alice:s3%40cret@host"
    with pytest.raises(PagodaError) as caught, mlflow_store.one_line(uri):
        raise OSError(f'request to {uri}/api failed for user "alice", password s3@cret')
    assert not [s for s in ("alice", "s3%40cret", "s3@cret") if s in str(caught.value)]


def test_runs_on_a_server_are_looked_at_there() -> None:
    assert page("https://a:b@host:80/m/", "7") == "https://host:80/m/#/experiments/7/runs"
    assert browse("https://a:b@host:80/m/") == ""
    assert page("sqlite:////m.db", "7") == "http://127.0.0.1:5000/#/experiments/7/runs"
    command = "mlflow ui --app-name pagoda --backend-store-uri "
    assert browse("sqlite:////a b.db") == f"{command}'sqlite:////a b.db'"
    assert browse("postgresql://a:b@host/db") == f'{command}"$MLFLOW_TRACKING_URI"'


def test_every_experiment_is_one_of_model_training(
    blank_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New ones, and those made without the tag, deleted ones too."""
    shutil.copy(blank_store, tmp_path / "m.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'm.db'}")
    store = find_store()
    with connected(store) as client:
        client.create_experiment("kept")
        client.delete_experiment(client.create_experiment("deleted"))
        for name in ("kept", "deleted", "new"):
            found = client.get_experiment(mlflow_store.experiment_id(client, store, name))
            assert (found.name, found.lifecycle_stage) == (name, "active")
            assert found.tags["mlflow.experimentKind"] == "custom_model_development"


def test_make_ui_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://alice:s3cret@host:8080/m")
    command = ["make", "--no-print-directory", "-o", ".venv/.synced", "ui"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith(": https://host:8080/m\n")


@pytest.mark.longer
def test_mlflow_sends_no_telemetry_whatever_is_imported_first(tmp_path: Path) -> None:
    code = (
        "import pagoda.results.tracking; from mlflow.entities import Metric; "
        "from mlflow.telemetry import get_telemetry_client; print(get_telemetry_client())"
    )
    automatic = ("CI", "PYTEST_CURRENT_TEST", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    bare = {k: v for k, v in os.environ.items() if k not in automatic}
    bare["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=bare, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.strip() == b"None"
