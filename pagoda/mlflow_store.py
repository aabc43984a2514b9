"""The MLflow store: where it is, one writer at a time, its trouble in one line, and its runs."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pagoda.errors import PagodaError
from pagoda.stages.root import project_root

if TYPE_CHECKING:
    from mlflow import MlflowClient

IDENTITY = "identity"
PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
_METRICS_A_BATCH, _PARAMS_A_BATCH = 1000, 100  # limits of the MLflow API
_LOCK_SECONDS, _SQLITE_SECONDS = 120.0, 10.0
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # an unreachable server: seconds, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@dataclass(frozen=True)
class Store:
    """Where runs go.

    Attributes:
        uri: MLflow tracking URI; a path in it is absolute.
        artifacts: URI of the folder for pictures, None where a server decides.
        lock: file that only one writer of this project holds at a time.
    """

    uri: str
    artifacts: str | None
    lock: Path


def find_store() -> Store:
    """``MLFLOW_TRACKING_URI``, or the sqlite file ``mlflow.db`` of the project.

    Paths are absolute and below the project's root: queued experiments run in temporary copies,
    and ``mlflow ui`` may start in any folder.
    """
    root = project_root()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    folder: str | None = (root / "mlruns").as_uri()
    if (path := _sqlite_path(uri)) is not None:
        uri = f"sqlite:///{root / path}"
    elif uri.startswith(("http:", "https:", "databricks")):
        folder = None
    return Store(uri, folder, root / "mlruns" / ".pagoda.lock")


@contextlib.contextmanager
def connected(store: Store) -> Iterator[MlflowClient]:
    """A client of the store, held under the project's lock: two at once break a new sqlite file."""
    import filelock

    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)  # read when mlflow is imported
    from mlflow import MlflowClient

    with one_line(store.uri):
        store.lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(store.lock, timeout=_LOCK_SECONDS):
                _check_sqlite(store.uri)
                yield MlflowClient(tracking_uri=store.uri)
        except filelock.Timeout as error:
            raise PagodaError(
                f"{store.lock} is held by another 'pagoda track' for {_LOCK_SECONDS:.0f} s; end it "
                f"and run 'pagoda track' again"
            ) from error


def create_run(
    client: MlflowClient, where: str, name: str, tags: dict[str, str], start: int | None = None
) -> str:
    """A new run; returns its id."""
    return str(client.create_run(where, start_time=start, tags=tags, run_name=name).info.run_id)


def experiment_id(client: MlflowClient, store: Store, name: str) -> str:
    """The id of the experiment of that name, which is made or restored."""
    if (found := client.get_experiment_by_name(name)) is None:
        location = None if store.artifacts is None else f"{store.artifacts}/{name}"
        return str(client.create_experiment(name, location))
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def finished(client: MlflowClient, where: str, identity: str) -> str | None:
    """The finished run of that identity, None if there is none."""
    rule = f"tags.{IDENTITY} = '{identity}' and attributes.status = 'FINISHED'"
    runs = client.search_runs([where], rule, max_results=1)
    return str(runs[0].info.run_id) if runs else None


def clear(client: MlflowClient, where: str, rule: str) -> None:
    """Delete the parent runs a rule finds, with their children."""
    for run in client.search_runs([where], rule):
        run_id = run.info.run_id
        for child in client.search_runs([where], f"tags.`{PARENT}` = '{run_id}'"):
            client.delete_run(child.info.run_id)
        client.delete_run(run_id)


def log_metrics(client: MlflowClient, run: str, metrics: list[Any]) -> None:
    """Send metrics, as many at once as the API takes."""
    for i in range(0, len(metrics), _METRICS_A_BATCH):
        client.log_batch(run, metrics=metrics[i : i + _METRICS_A_BATCH], synchronous=True)


def log_params(client: MlflowClient, run: str, values: Mapping[str, str]) -> None:
    """Send parameters, as many at once as the API takes."""
    from mlflow.entities import Param

    params = [Param(key, value) for key, value in values.items()]
    for i in range(0, len(params), _PARAMS_A_BATCH):
        client.log_batch(run, params=params[i : i + _PARAMS_A_BATCH], synchronous=True)


def _check_sqlite(uri: str) -> None:
    """Fail within seconds where MLflow would retry for minutes."""
    if (path := _sqlite_path(uri)) is None:
        return
    with contextlib.closing(sqlite3.connect(path, timeout=_SQLITE_SECONDS)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def one_line(uri: str) -> Iterator[None]:
    """Trouble with the store as one line; everything else passes through."""
    try:
        yield
    except PagodaError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise _unreachable(uri, error) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("mlflow", "sqlalchemy", "requests"):
            raise
        raise _unreachable(uri, error) from error


def _unreachable(uri: str, error: Exception) -> PagodaError:
    why = str(error).strip().split("\n")[0][:200]
    return PagodaError(
        f"trouble with the MLflow store {uri}: {why}; check MLFLOW_TRACKING_URI and that nothing "
        f"else holds the store, then run 'pagoda track' again; no result is lost"
    )
