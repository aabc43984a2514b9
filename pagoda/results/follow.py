"""Curves of stages that are still running into MLflow, as their histories grow."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.results.experiment import History, parameters_hash, read_history, stage_names
from pagoda.results.mlflow_store import (
    PARENT,
    Store,
    connected,
    experiment_id,
    find_store,
    one_line,
    shown,
)
from pagoda.results.tracking import (
    LIVE,
    Record,
    begin,
    clear,
    common_tags,
    curves,
    experiment_name,
    flat_parameters,
    live_rule,
    log_points,
    run_name,
    start_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


def follow(config: Config, interval: float, log: Callable[[str], None]) -> None:
    """Send the curves of running stages to MLflow until Ctrl-C or until the experiment is tracked.

    Args:
        config: the experiment that is running.
        interval: seconds between two looks at the files.
        log: gets a line that says where the live run is, and one when a stage's curves begin.

    Raises:
        PagodaError: one line if the store is unreachable or a history is damaged.
    """
    store = find_store()
    with connected(store) as client:
        where = experiment_id(client, store, experiment_name(config))
        clear(client, where, live_rule(config))
        name = f"{run_name(config, parameters_hash(config))} (live)"
        tags = common_tags(config) | {LIVE: "true"}
        parent = begin(client, where, Record(name, tags, flat_parameters(config)))
    log(f"live run {parent} of experiment {experiment_name(config)} in {shown(store.uri)}")
    live = _Live(config, store, client, where, parent)
    try:
        while live.wanted():
            for stage in live.poll():
                log(f"following {stage}")
            time.sleep(interval)
        log("the finished experiment is in MLflow now; nothing left to follow")
    except KeyboardInterrupt:
        with one_line(store.uri):
            live.end()
    except Exception:
        with contextlib.suppress(Exception):
            live.end()
        raise


@dataclass
class _Stage:
    """What of one running stage was sent: its run, its first row and how far."""

    run: str
    first: dict[str, Any]
    start: int
    images: int = -1


@dataclass
class _Live:
    """Live runs of one experiment."""

    config: Config
    store: Store
    client: MlflowClient
    experiment: str
    parent: str
    stages: dict[str, _Stage] = field(default_factory=dict)

    def wanted(self) -> bool:
        """False once the parent was deleted, which tracking does when it is done."""
        with one_line(self.store.uri):
            return bool(self.client.get_run(self.parent).info.lifecycle_stage == "active")

    def poll(self) -> list[str]:
        """Send all complete rows that were not sent yet; returns the stages that began."""
        begun = []
        for name in stage_names(self.config):
            history = read_history(Paths(self.config).history(name), name, running=True)
            if history.rows:
                with one_line(self.store.uri):
                    begun += [name] * self._send(history)
        return begun

    def _send(self, history: History) -> bool:
        """True if the stage began, or began anew."""
        name, stage = history.stage, self.stages.get(history.stage)
        anew = stage is None or stage.first != history.rows[0] or history.images < stage.images
        if stage is None or anew:
            if stage is not None:
                self.client.delete_run(stage.run)
            start = start_of(Paths(self.config).history(name), history)
            tags = {PARENT: self.parent, "stage": name, LIVE: "true"}
            record = Record(f"{name} b{self.config.base_res} (live)", tags, start=start)
            run = begin(self.client, self.experiment, record)
            stage = self.stages[name] = _Stage(run, dict(history.rows[0]), start)
        fresh = tuple(row for row in history.rows if row["images"] > stage.images)
        log_points(self.client, stage.run, curves(History(name, fresh), stage.start))
        stage.images = history.images
        return anew

    def end(self) -> None:
        """Close all runs."""
        for run in (*(s.run for s in self.stages.values()), self.parent):
            self.client.set_terminated(run, "FINISHED")
