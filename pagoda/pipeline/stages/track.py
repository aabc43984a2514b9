"""The last stage: the experiment into MLflow."""

from __future__ import annotations

import dataclasses
from typing import Any

from pagoda import artifacts
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.pipeline.stages.progress import log_line
from pagoda.results import tracking
from pagoda.results.follow import follow as follow_running
from pagoda.results.mlflow_store import browse, page, shown
from pagoda.results.views import CHARTS

TRACKED = "tracked.json"


def run(config: Config) -> None:
    """Track a finished experiment and write ``tracked.json`` beside its artifacts."""
    tracked = tracking.track(config)
    entry = dataclasses.asdict(tracked)
    del entry["store"], entry["added"]  # facts about this machine and this call
    artifacts.write_json(Paths(config).base / TRACKED, entry)
    verb = "added to" if tracked.added else "already in"
    log_line(f"{verb} MLflow: experiment {tracked.experiment}, run {tracked.parent}")
    command = f"{shows}, then open " if (shows := browse(tracked.store)) else ""
    log_line(f"to look at it: {command}{page(tracked.store, tracked.experiment_id)}{CHARTS}")


def follow(config: Config, interval: float) -> None:
    """Send the curves of running stages to MLflow every ``interval`` seconds, until Ctrl-C."""
    follow_running(config, interval, log_line)


def add_rows(tree: dict[str, Any]) -> None:
    """Put the rows of ``pagoda evaluate --images`` into MLflow; doing it twice adds nothing."""
    store, run, added = tracking.track_rows(tree)
    log_line(f"{'added to' if added else 'already in'} MLflow: {shown(store)}, run {run}")
