"""The MLflow store: where it is, one writer at a time, its trouble in one line, and its runs."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sqlite3
import textwrap
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pagoda.config.root import project_root
from pagoda.errors import PagodaError

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT = "mlflow.parentRunId"
KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"
"""Tag of an experiment that trains models, not one of language models."""
MOST_RUNS = 50_000  # that one search may give, MLflow's limit; it gives 1,000 unless told
_LOCK_SECONDS, _SQLITE_SECONDS, _SERVER_SECONDS = 120.0, 10.0, 5.0
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_LIBRARIES = ("mlflow", "sqlalchemy", "requests", "http")
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it prints the password, too
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # an unreachable server: seconds, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}.items():  # here, because they are read when mlflow is imported, whoever imports it first
    os.environ.setdefault(_name, _value)


@dataclass(frozen=True)
class Store:
    """Where runs go."""

    uri: str  # a path in it is absolute; it may hold a password: print shown(uri)
    artifacts: str | None  # URI of the folder for pictures, None where a server decides
    lock: Path  # file that only one writer of this project holds at a time


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
    from mlflow import MlflowClient

    with one_line(store.uri):
        store.lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(store.lock, timeout=_LOCK_SECONDS):
                check_store(store.uri)
                path = _sqlite_path(store.uri)
                if path is not None and _is_new(path):
                    _create(path)
                yield MlflowClient(tracking_uri=store.uri)
        except filelock.Timeout as error:
            raise PagodaError(
                f"{store.lock} is held by another run of pagoda for {_LOCK_SECONDS:.0f} s; end it "
                "and run the same command again"
            ) from error


def shown(uri: str) -> str:
    """A store's URI as it may be printed: without user, password and options."""
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme in ("sqlite", "file"):
        return uri
    found = re.fullmatch(r"(?:[^?]*@)?([^?@]*?)(?:[?#][^@]*)?", rest)
    return f"{scheme}://{found[1] if found else '...'}"


def page(uri: str, experiment: str) -> str:
    """Address of an experiment's runs: on the store's server, else where ``mlflow ui`` puts it."""
    if browse(uri):
        return f"http://127.0.0.1:5000/#/experiments/{experiment}/runs"
    runs = f"/#/experiments/{experiment}/runs" if _is_server(uri) else ""
    return shown(uri).rstrip("/") + runs


def browse(uri: str) -> str:
    """The command that shows a data base's runs; empty for what shows them itself."""
    command = f"mlflow ui --app-name pagoda --backend-store-uri {_typed(uri)}"
    return command if _is_database(uri) else ""


def experiment_id(client: MlflowClient, store: Store, name: str) -> str:
    """The id of the experiment of that name, which is made or restored, with its kind."""
    if (found := client.get_experiment_by_name(name)) is None:
        location = None if store.artifacts is None else f"{store.artifacts}/{name}"
        return str(client.create_experiment(name, location, {KIND: TRAINING}))
    where = str(found.experiment_id)
    if found.lifecycle_stage != "active":
        client.restore_experiment(where)
    if found.tags.get(KIND) != TRAINING:
        client.set_experiment_tag(where, KIND, TRAINING)
    return where


def check_store(uri: str) -> None:
    """Raise what is wrong with a store, within seconds where MLflow would retry for minutes.

    Looks at what MLflow would refuse only when the first run is sent: a folder as a store, a
    missing driver, a silent server, a locked, unfinished or outdated data base. Changes nothing.

    Raises:
        PagodaError: what is wrong and what to do, in one line.
    """
    with one_line(uri):
        if _is_server(uri):
            with contextlib.suppress(urllib.error.HTTPError):  # someone answered
                address = f"{shown(uri).rstrip('/')}/health"
                urllib.request.urlopen(address, timeout=_SERVER_SECONDS).close()
        elif not _is_database(uri):
            from mlflow import MlflowClient

            MlflowClient(tracking_uri=uri)
        elif (path := _sqlite_path(uri)) is None:
            _check_schema(uri)
        elif not _is_new(path):
            with contextlib.closing(sqlite3.connect(path, timeout=_SQLITE_SECONDS)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.rollback()
            _check_schema(uri)
        elif not os.access(path.parent, os.W_OK):
            raise PermissionError(f"{path.parent} is missing or cannot be written")


def _check_schema(uri: str) -> None:
    """Refuse a data base that holds MLflow's tables, but not all or of another version."""
    import sqlalchemy
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    try:
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            tables = set(sqlalchemy.inspect(connection).get_table_names())
            version = MigrationContext.configure(connection).get_current_revision()
            held = [
                connection.execute(sqlalchemy.text(f"SELECT COUNT(*) FROM {table}")).scalar()
                for table in ("experiments", "runs") if table in tables
            ]  # fmt: skip
    except ImportError as error:
        raise PagodaError(
            f"the MLflow store {shown(uri)} needs a data base driver that is not installed here "
            f"({error}); install it, or set MLFLOW_TRACKING_URI to another store"
        ) from error
    except Exception as error:  # drivers raise types of their own
        raise _unreachable(uri, error) from error
    migrations = files("mlflow") / "store" / "db_migrations"
    wanted = ScriptDirectory(str(migrations)).get_current_head()
    if version == wanted or not (held or "alembic_version" in tables):
        return
    if not any(held):  # MLflow makes the first experiment when all tables are there
        raise PagodaError(
            f"{shown(uri)} is no complete MLflow store, its creation was stopped; it holds no run: "
            "move it away, and the same command makes a new one"
        )
    raise PagodaError(
        f"the MLflow store {shown(uri)} has schema {version}, this MLflow needs {wanted}; make a "
        f"copy of it, then run 'mlflow db upgrade {_typed(uri)}' (or update MLflow, if a newer one "
        "made the store)"
    )


def _create(path: Path) -> None:
    """Make a sqlite store whole or not at all: MLflow cannot go on with one cut short."""
    from mlflow import MlflowClient

    partial = path.with_name(f".{path.name}.unfinished")
    try:
        for leftover in path.parent.glob(f"{partial.name}*"):
            leftover.unlink()  # of a process that was killed; ours, as we hold the lock
        MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments(max_results=1)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def _is_new(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _is_database(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0] in _DATABASES


def _typed(uri: str) -> str:
    """The URI as an argument to type, without what must not be printed."""
    return shlex.quote(uri) if shown(uri) == uri else '"$MLFLOW_TRACKING_URI"'


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def one_line(uri: str) -> Iterator[None]:
    """Trouble with the store as one line; everything else passes through."""
    try:
        yield
    except Exception as error:
        library = type(error).__module__.split(".")[0] in _LIBRARIES
        if not library and not isinstance(error, OSError | sqlite3.Error):
            raise
        raise _unreachable(uri, error) from error


def _unreachable(uri: str, error: Exception) -> PagodaError:
    why = textwrap.shorten(_without_secrets(str(error), uri), 240, placeholder=" ...")
    return PagodaError(
        f"trouble with the MLflow store {shown(uri)}: {why}; check MLFLOW_TRACKING_URI and that "
        "nothing else holds the store, then run the same command again; no result is lost"
    )


def _without_secrets(text: str, uri: str) -> str:
    """A library's message without the URI's user and password, quoted as it is or decoded."""
    login = uri.partition("://")[2].rpartition("@")[0] if shown(uri) != uri else ""
    for secret in {*login.split(":", 1)} - {""}:
        for form in (secret, urllib.parse.unquote(secret)):
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "***", text)
    return text
