"""Curves of stages that are still running into MLflow, as their histories grow."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.interrupts import orderly_stop
from pagoda.results import tracking
from pagoda.results.experiment import History, parameters_hash, read_history, stage_names
from pagoda.results.mlflow_store import (
    PARENT,
    connected,
    experiment_id,
    find_store,
    one_line,
    shown,
)
from pagoda.results.tracking import LIVE, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient


def follow(config: Config, interval: float, log: Callable[[str], None]) -> None:
    """Send running stages' curves to MLflow until Ctrl-C, SIGTERM or the experiment is tracked.

    Args:
        config: the experiment that is running.
        interval: seconds between two looks at the files.
        log: gets a line that says where the live run is, and one when a stage's curves begin.

    Raises:
        PagodaError: one line if the store is unreachable or a history is damaged.
    """
    store = find_store()
    with connected(store) as client:
        where = experiment_id(client, store, tracking.experiment_name(config))
        tracking.clear(client, where, tracking.live_rule(config))
        name = f"{tracking.run_name(config, parameters_hash(config))} (live)"
        tags = tracking.common_tags(config) | {LIVE: "true"}
        parent = tracking.begin(client, where, Record(name, tags, tracking.flat_parameters(config)))
    log(f"live run {parent} of experiment {tracking.experiment_name(config)} in {shown(store.uri)}")
    live = _Live(config, client, where, parent)
    try:
        with one_line(store.uri), orderly_stop() as asked:
            # The parent is deleted by the tracking of the finished experiment.
            while client.get_run(parent).info.lifecycle_stage == "active":
                for stage in [stage for stage in stage_names(config) if live.send(stage)]:
                    log(f"following {stage}")
                if _asked_within(interval, asked):
                    return live.end()
        log("the finished experiment is in MLflow now; nothing left to follow")
    except Exception:
        with contextlib.suppress(Exception):
            live.end()
        raise


def _asked_within(seconds: float, asked: Callable[[], bool]) -> bool:
    """Wait, and say at once if Ctrl-C or SIGTERM came: never inside a request to the store."""
    end = time.monotonic() + seconds
    while not asked() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
    return asked()


@dataclass
class _Live:
    """Live runs of one experiment."""

    config: Config
    client: MlflowClient
    experiment: str
    parent: str
    sent: dict[str, tuple[str, int, History]] = field(default_factory=dict)
    """By stage: its run, when it began, and what of its history is there."""

    def send(self, stage: str) -> bool:
        """Send complete rows that were not sent yet; True if the stage began, or began anew."""
        path = Paths(self.config).history(stage)
        history = read_history(path, stage, running=True)
        if not history.rows:
            return False
        run, start, last = self.sent.get(stage, ("", 0, History(stage, ())))
        anew = last.rows[:1] != history.rows[:1] or history.images < last.images
        if anew:
            if run:
                self.client.delete_run(run)
            start, last = tracking.start_of(path, history), History(stage, ())
            tags = {PARENT: self.parent, "stage": stage, LIVE: "true"}
            record = Record(f"{stage} b{self.config.base_res} (live)", tags, start=start)
            run = tracking.begin(self.client, self.experiment, record)
        fresh = [row for row in history.rows if not last.rows or row["images"] > last.images]
        tracking.log_points(self.client, run, tracking.curves(History(stage, tuple(fresh)), start))
        self.sent[stage] = run, start, history
        return anew

    def end(self) -> None:
        """Close all runs."""
        for run in (*(run for run, _, _ in self.sent.values()), self.parent):
            self.client.set_terminated(run, "FINISHED")
