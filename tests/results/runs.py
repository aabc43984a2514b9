"""Experiments to track, and the runs that a store holds of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pagoda.config import Config
from pagoda.config.paths import Paths


def stand_in_report(config: Config) -> None:
    """A report folder, for tests that are not about what is in it."""
    Paths(config).report.mkdir(parents=True)
    (Paths(config).report / "report.md").write_text("# a report")


def client_of(root: Path) -> Any:
    """A client of the project's own store."""
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def all_runs(client: Any) -> list[Any]:
    """Every run that is not deleted."""
    where = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(where))
