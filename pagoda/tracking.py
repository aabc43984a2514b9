"""An experiment into MLflow, replayed from the files its stages left.

Nothing that trains knows MLflow: stages append to ``history/<stage>.jsonl`` and evaluation writes
JSON. :func:`track` turns them into one parent run an experiment and one child run a stage;
:func:`follow` tails the histories of stages that are still running.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pagoda import artifacts
from pagoda.config import Config
from pagoda.errors import PagodaError
from pagoda.mlflow_store import (
    IDENTITY,
    NOTE,
    PARENT,
    Store,
    clear,
    connected,
    create_run,
    experiment_id,
    find_store,
    finished,
    log_metrics,
    log_params,
    one_line,
    shown,
)
from pagoda.report.experiment import (
    Experiment,
    parameters_hash,
    read_experiment,
    stage_names,
)
from pagoda.report.history import History, read_history
from pagoda.stages.paths import Paths
from pagoda.stages.revision import code_revision

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

PARAMETERS, LIVE = "parameters_hash", "live"
_COMMIT = "mlflow.source.git.commit"


@dataclass(frozen=True)
class Tracked:
    """Where an experiment is in MLflow.

    Attributes:
        store: tracking URI.
        experiment: name of the MLflow experiment.
        experiment_id: its id in the store.
        identity: hash of parameters and evaluations.
        parent: id of the parent run.
        children: ids of the child runs, by stage.
        added: False if it was there already.
    """

    store: str
    experiment: str
    experiment_id: str
    identity: str
    parent: str
    children: dict[str, str]
    added: bool


def experiment_name(config: Config) -> str:
    """MLflow experiment of a profile; its base resolutions are runs to compare."""
    return f"pagoda-{config.name}"


def track(config: Config) -> Tracked:
    """Put a finished experiment into MLflow, unless it is there already.

    Raises:
        PagodaError: one line; the store is unreachable or locked, or the experiment is not
            finished. A run that could not be completed is marked as failed and redone next time.
    """
    experiment, report = read_experiment(config), Paths(config).report
    if not report.is_dir():
        raise PagodaError(f"{report} is missing; 'pagoda report' makes it")
    store = find_store()
    with connected(store) as client:
        where = experiment_id(client, store, experiment_name(config))
        parent = finished(client, where, experiment.identity)
        added = parent is None
        if parent is None:
            clear(client, where, f"tags.{IDENTITY} = '{experiment.identity}'")
            parent = _write(client, where, experiment, report)
        live = f"tags.{PARAMETERS} = '{parameters_hash(config)}' and tags.{LIVE} = 'true'"
        clear(client, where, live)
        children = {
            run.data.tags["stage"]: run.info.run_id
            for run in client.search_runs([where], f"tags.`{PARENT}` = '{parent}'")
        }
    ordered = {s: children[s] for s in stage_names(config) if s in children}
    name = experiment_name(config)
    return Tracked(store.uri, name, where, experiment.identity, parent, ordered, added)


def track_rows(tree: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Put the rows of an evaluation of any images into MLflow, one run, unless they are there.

    A value goes by its protocol, its interval and deviation by ``<protocol>/low``, ``/high`` and
    ``/sd``; several seeds are steps of one metric.

    Returns:
        The store, the run's id, and whether it was added now.
    """
    rows, store = tree["rows"], find_store()
    identity, now = artifacts.digest(rows), int(time.time() * 1000)
    with connected(store) as client:
        where = experiment_id(client, store, "pagoda-evaluate")
        if (found := finished(client, where, identity)) is not None:
            return store.uri, found, False
        same = ("generator", "resolution", "reference", "features", "revision", "device")
        tags = {key: str(rows[0][key]) for key in same} | {IDENTITY: identity}
        run = create_run(client, where, f"{rows[0]['generator']}-{identity[:8]}", tags)
        metrics = [_metrics(row["protocol"], row, now, row.get("seed") or 0) for row in rows]
        log_metrics(client, run, [metric for of_row in metrics for metric in of_row])
        client.set_terminated(run, "FINISHED")
    return store.uri, run, True


def follow(config: Config, interval: float, tell: Callable[[str], None]) -> None:
    """Send the curves of running stages to MLflow until Ctrl-C or until :func:`track` takes over.

    Args:
        config: the experiment that is running.
        interval: seconds between two looks at the files.
        tell: is told in one line where the live run is, and when a stage's curves begin.

    Raises:
        PagodaError: one line if the store is unreachable or a history is damaged.
    """
    store = find_store()
    with connected(store) as client:
        where = experiment_id(client, store, experiment_name(config))
        hashed = parameters_hash(config)
        clear(client, where, f"tags.{PARAMETERS} = '{hashed}' and tags.{LIVE} = 'true'")
        tags = _common_tags(config) | {LIVE: "true"}
        parent = create_run(client, where, f"{_run_name(config, hashed)} (live)", tags)
        log_params(client, parent, flat_parameters(config))
    tell(f"live run {parent} of experiment {experiment_name(config)} in {shown(store.uri)}")
    live = _Live(config, store, client, where, parent)
    try:
        while live.wanted():
            for stage in live.poll():
                tell(f"following {stage}")
            time.sleep(interval)
        tell("the finished experiment is in MLflow now; nothing left to follow")
    except KeyboardInterrupt:
        with one_line(store.uri):
            live.end()
    except Exception:
        with contextlib.suppress(Exception):
            live.end()
        raise


def flat_parameters(config: Config) -> dict[str, str]:
    """Every parameter by its dotted name; lists and mappings as JSON."""
    return dict(_flat(config, ""))


@dataclass
class _Stage:
    """What of one running stage was sent: its run, its first row and how far."""

    run: str
    first: dict[str, Any]
    start_ms: int
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
        """False once the parent was deleted, which :func:`track` does when it is done."""
        with one_line(self.store.uri):
            return bool(self.client.get_run(self.parent).info.lifecycle_stage == "active")

    def poll(self) -> list[str]:
        """Send all complete rows that were not sent yet; returns the stages that began."""
        begun = []
        for name in stage_names(self.config):
            path = Paths(self.config).history(name)
            history = read_history(path, name, running=True)
            if not history.rows:
                continue
            with one_line(self.store.uri):
                begun += [name] * self._send(history, path)
        return begun

    def _send(self, history: History, path: Path) -> bool:
        """True if the stage began, or began anew."""
        stage = self.stages.get(history.stage)
        anew = stage is None or stage.first != history.rows[0] or history.images < stage.images
        if stage is None or anew:
            if stage is not None:
                self.client.delete_run(stage.run)
            start = _start_ms(path, history)
            tags = {PARENT: self.parent, "stage": history.stage, LIVE: "true"}
            name = f"{history.stage} b{self.config.base_res} (live)"
            run = create_run(self.client, self.experiment, name, tags, start)
            stage = self.stages[history.stage] = _Stage(run, dict(history.rows[0]), start)
        fresh = tuple(row for row in history.rows if row["images"] > stage.images)
        _log_curves(self.client, stage.run, History(history.stage, fresh), stage.start_ms)
        stage.images = history.images
        return anew

    def end(self) -> None:
        """Close all runs."""
        for run in (*(s.run for s in self.stages.values()), self.parent):
            self.client.set_terminated(run, "FINISHED")


def _write(client: MlflowClient, where: str, experiment: Experiment, report: Path) -> str:
    """The parent run with everything in it; marked as failed if that does not work out."""
    config = experiment.config
    starts = {s: _start_ms(Paths(config).history(s), h) for s, h in experiment.histories.items()}
    name, tags = _run_name(config, experiment.identity), _parent_tags(experiment)
    runs = [create_run(client, where, name, tags, min(starts.values()))]
    try:
        parent = runs[0]
        log_params(client, parent, flat_parameters(config))
        _log_results(client, parent, experiment)
        client.log_artifacts(parent, str(report), "report")
        for stage, history in experiment.histories.items():
            child_tags = {PARENT: parent, "stage": stage, "profile": config.name}
            child = f"{stage} b{config.base_res}"
            runs.append(create_run(client, where, child, child_tags, starts[stage]))
            section = getattr(config, stage.split("-")[0])
            log_params(client, runs[-1], dict(_flat(section, "")))
            _log_curves(client, runs[-1], history, starts[stage])
            end = starts[stage] + round(1000 * history.seconds)
            client.set_terminated(runs[-1], "FINISHED", end)
        client.set_terminated(parent, "FINISHED")
    except BaseException:
        for run in runs:
            with contextlib.suppress(Exception):
                client.set_terminated(run, "FAILED")
        raise
    return parent


def _parent_tags(experiment: Experiment) -> dict[str, str]:
    rows = experiment.rows
    made = f"{' → '.join(str(r) for r in experiment.config.resolutions)}"
    return _common_tags(experiment.config) | {
        IDENTITY: experiment.identity,
        "data_fingerprint": experiment.data_fingerprint,
        "code_revision": ", ".join(sorted({r.revision for r in rows})),
        "device": ", ".join(sorted({r.device for r in rows})),
        NOTE: f"{experiment.config.name}, {made}. Tables, curves and sample sheets: "
        "`report/index.html` among the artifacts.",
    }


def _common_tags(config: Config) -> dict[str, str]:
    revision = code_revision()
    base_revision = os.environ.get("DVC_EXP_BASELINE_REV") or revision
    tags = {
        "profile": config.name,
        "base_res": str(config.base_res),
        "target_res": str(config.target_res),
        PARAMETERS: parameters_hash(config),
        "base_revision": base_revision,
        "mlflow.source.name": "pagoda track",
    }
    if revision != "unknown":
        tags[_COMMIT] = revision.removesuffix("+dirty")
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_exp"] = name
    return tags


def _run_name(config: Config, hashed: str) -> str:
    return os.environ.get("DVC_EXP_NAME") or f"b{config.base_res}-{hashed[:8]}"


def _log_results(client: MlflowClient, run: str, experiment: Experiment) -> None:
    """``<protocol>/<resolution>`` for the main generator, ``<name>/…`` for all others.

    ``by_resolution/<protocol>`` holds the main generators over resolution as the step, for one
    curve an experiment.
    """
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    main: list[Metric] = []
    others: list[Metric] = []
    curves: list[Metric] = []
    for res, evaluation in experiment.evaluations.items():
        for row in evaluation.rows:
            name = f"{row.protocol}/{res:04d}"
            if row.generator == evaluation.main:
                main += _metrics(name, dataclasses.asdict(row), now, 0)
                curves.append(Metric(f"by_resolution/{row.protocol}", row.value, now, res))
            else:
                others += _metrics(f"{row.generator}/{name}", dataclasses.asdict(row), now, 0)
    for stage, history in experiment.histories.items():
        others.append(Metric(f"seconds/{stage}", history.seconds, now, 0))
    log_metrics(client, run, main + curves + others)


def _metrics(name: str, row: Mapping[str, Any], now: int, step: int) -> list[Metric]:
    """A row's value, and beside it what it has of ``sd``, ``low`` and ``high``."""
    from mlflow.entities import Metric

    more = {key: row.get(key) for key in ("sd", "low", "high")}
    found = {name: row["value"]} | {f"{name}/{k}": v for k, v in more.items() if v is not None}
    return [Metric(key, value, now, step) for key, value in found.items()]


def _log_curves(client: MlflowClient, run: str, history: History, start_ms: int) -> None:
    """One metric a curve; the step is images seen, the time when the row was written."""
    from mlflow.entities import Metric

    names = history.names()
    metrics = [
        Metric(name, float(row[name]), start_ms + round(1000 * row["seconds"]), int(row["images"]))
        for row in history.rows
        for name in names
        if name in row
    ]
    log_metrics(client, run, metrics)


def _start_ms(path: Path, history: History) -> int:
    """When the stage would have begun, had it run without a break until its last row."""
    return round(1000 * (path.stat().st_mtime - history.seconds))


def _flat(section: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for spec in dataclasses.fields(section):
        value, key = getattr(section, spec.name), prefix + spec.name
        if dataclasses.is_dataclass(value):
            yield from _flat(value, f"{key}.")
        else:
            yield key, value if isinstance(value, str) else json.dumps(value)
