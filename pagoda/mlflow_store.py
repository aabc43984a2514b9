"""The MLflow store: where it is, one writer at a time, and its trouble in one line."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pagoda.errors import PagodaError
from pagoda.stages.root import project_root

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
