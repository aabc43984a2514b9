"""Experiments and evaluations into MLflow, replayed from the files they left.

Nothing that trains knows MLflow: stages append to ``history/<stage>.jsonl`` and evaluation writes
JSON. Whatever is tracked describes itself as a :class:`Record`; :func:`send` makes runs of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pagoda import artifacts
from pagoda import rows as files
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.config.revision import code_revision
from pagoda.errors import PagodaError
from pagoda.results import registry, views
from pagoda.results.experiment import (
    Experiment,
    History,
    parameters_hash,
    read_experiment,
    stage_names,
    stage_section,
)
from pagoda.results.mlflow_store import MOST_RUNS, PARENT, connected, experiment_id, find_store
from pagoda.results.registry import Generator
from pagoda.rows import Row

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

IDENTITY, PARAMETERS, LIVE, NOTE = "identity", "parameters_hash", "live", "mlflow.note.content"


class Point(NamedTuple):
    """A value of a metric at a step; ``time`` in ms since 1970, None for now."""

    metric: str
    value: float
    step: int = 0
    time: int | None = None


@dataclass(frozen=True)
class Record:
    """A run as MLflow holds it, with its children."""

    name: str
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    start: int | None = None  # ms since 1970; None for now
    end: int | None = None
    folder: Path | None = None  # goes into its artifacts as "report"
    data: tuple[str, str] | None = None  # name and fingerprint of the images
    generator: Generator | None = None  # to register
    children: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Tracked:
    """Where an experiment is in MLflow."""

    store: str  # tracking URI
    experiment: str  # name of the MLflow experiment
    experiment_id: str
    identity: str  # hash of parameters and evaluations
    parent: str  # id of the parent run
    children: dict[str, str]  # ids of the child runs, by stage
    added: bool  # False if it was there already


def send(client: MlflowClient, where: str, record: Record) -> str:
    """Make a record's runs; they are marked as failed if that does not work out.

    Returns:
        The id of the run.
    """
    run = begin(client, where, record)
    made = [run]
    try:
        log_points(client, run, record.points)
        if record.folder is not None:
            client.log_artifacts(run, str(record.folder), "report")
        if record.data is not None:
            client.log_inputs(run, [_dataset(*record.data)])
        if record.generator is not None:
            registry.register(client, run, record.generator)
        for child in record.children:
            tags = child.tags | {PARENT: run}
            made.append(send(client, where, dataclasses.replace(child, tags=tags)))
    except BaseException:
        for each in made:
            with contextlib.suppress(Exception):
                client.set_terminated(each, "FAILED")
        raise
    client.set_terminated(run, "FINISHED", record.end)
    return run


def _dataset(name: str, fingerprint: str) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = fingerprint[:36]  # the longest that MLflow takes
    images = Dataset(name, digest, "pagoda", json.dumps({"fingerprint": fingerprint}))
    return DatasetInput(images, [InputTag("mlflow.data.context", "training")])


def begin(client: MlflowClient, where: str, record: Record) -> str:
    """A new run with the record's tags and parameters; returns its id."""
    from mlflow.entities import Param

    made = client.create_run(where, start_time=record.start, tags=record.tags, run_name=record.name)
    params = [Param(*item) for item in record.params.items()]
    client.log_batch(made.info.run_id, params=params, synchronous=True)
    return str(made.info.run_id)


def log_points(client: MlflowClient, run: str, points: Iterable[Point]) -> None:
    """Send values; the client cuts them into batches that the API takes."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(p.metric, p.value, p.time or now, p.step) for p in points]
    client.log_batch(run, metrics=metrics, synchronous=True)


def clear(client: MlflowClient, where: str, rule: str) -> None:
    """Delete the parent runs a rule finds, with their children."""
    for run in client.search_runs([where], rule, max_results=MOST_RUNS):
        children = f"tags.`{PARENT}` = '{run.info.run_id}'"
        for child in client.search_runs([where], children, max_results=MOST_RUNS):
            client.delete_run(child.info.run_id)
        client.delete_run(run.info.run_id)


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
    store, name = find_store(), experiment_name(config)
    with connected(store) as client:
        where = experiment_id(client, store, name)
        for tag, value in views.tags(experiment).items():
            client.set_experiment_tag(where, tag, value)
        parent = _finished(client, where, experiment.identity)
        added = parent is None
        if parent is None:
            clear(client, where, f"tags.{IDENTITY} = '{experiment.identity}'")
            parent = send(client, where, _record(experiment, report))
        clear(client, where, live_rule(config))
        children = {
            run.data.tags["stage"]: run.info.run_id
            for run in client.search_runs([where], f"tags.`{PARENT}` = '{parent}'")
        }
    ordered = {s: children[s] for s in stage_names(config) if s in children}
    return Tracked(store.uri, name, where, experiment.identity, parent, ordered, added)


def track_rows(tree: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Put the rows of an evaluation of any images into MLflow, one run, unless they are there.

    A value goes by its protocol, its interval and deviation by ``<protocol>/low``, ``/high`` and
    ``/sd``; several seeds are steps of one metric.

    Returns:
        The store, the run's id, and whether it was added now.
    """
    rows, store = files.from_json(tree["rows"], "rows of the evaluation"), find_store()
    identity, first = artifacts.digest(files.to_json(rows)), rows[0]
    with connected(store) as client:
        where = experiment_id(client, store, "pagoda-evaluate")
        if (found := _finished(client, where, identity)) is not None:
            return store.uri, found, False
        same = ("generator", "resolution", "reference", "features", "revision", "device")
        tags = {key: str(getattr(first, key)) for key in same} | {IDENTITY: identity}
        points = [p for row in rows for p in _points(row.protocol, row, row.seed or 0)]
        record = Record(f"{first.generator}-{identity[:8]}", tags, points=points)
        return store.uri, send(client, where, record), True


def flat_parameters(section: Any, prefix: str = "") -> dict[str, str]:
    """Every parameter by its dotted name; lists and mappings as JSON."""
    found: dict[str, str] = {}
    for spec in dataclasses.fields(section):
        value, key = getattr(section, spec.name), prefix + spec.name
        if dataclasses.is_dataclass(value):
            found |= flat_parameters(value, f"{key}.")
        else:
            found[key] = value if isinstance(value, str) else json.dumps(value)
    return found


def common_tags(config: Config) -> dict[str, str]:
    """Tags of an experiment, finished or running."""
    revision = code_revision()
    tags = {
        "profile": config.name,
        "base_res": str(config.base_res),
        "target_res": str(config.target_res),
        PARAMETERS: parameters_hash(config),
        "base_revision": os.environ.get("DVC_EXP_BASELINE_REV") or revision,
        "mlflow.source.name": "pagoda track",
    }
    if revision != "unknown":
        tags["mlflow.source.git.commit"] = revision.removesuffix("+dirty")
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_exp"] = name
    return tags


def live_rule(config: Config) -> str:
    """Finds the live runs of an experiment."""
    return f"tags.{PARAMETERS} = '{parameters_hash(config)}' and tags.{LIVE} = 'true'"


def run_name(config: Config, hashed: str) -> str:
    """Name of an experiment's parent run: what ran, then DVC's name of it or a hash."""
    sizes = "→".join(map(str, config.resolutions))
    return (
        f"{config.name} {sizes} seed {config.seed} · {os.environ.get('DVC_EXP_NAME') or hashed[:8]}"
    )


def curves(history: History, start: int) -> list[Point]:
    """One metric a curve; the step is images seen, the time when the row was written."""
    return [
        Point(name, float(row[name]), int(row["images"]), start + round(1000 * row["seconds"]))
        for row in history.rows
        for name in history.names()
        if name in row
    ]


def system_points(path: Path) -> list[Point]:
    """What a stage took of its machine, by MLflow's names of it; none of a stage without samples.

    A line cut short by a kill is passed over, as are all after it.
    """
    points: list[Point] = []
    if path.is_file():
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            for step, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
                row = json.loads(line)
                when = round(1000 * row.pop("time"))
                points += [Point(f"system/{k}", float(v), step, when) for k, v in row.items()]
    return points


def start_of(path: Path, history: History) -> int:
    """When the stage would have begun, had it run without a break until its last row, in ms."""
    return round(1000 * (path.stat().st_mtime - history.seconds))


def _finished(client: MlflowClient, where: str, identity: str) -> str | None:
    """The finished run of that identity, None if there is none."""
    rule = f"tags.{IDENTITY} = '{identity}' and attributes.status = 'FINISHED'"
    return next((str(r.info.run_id) for r in client.search_runs([where], rule)), None)


def _record(experiment: Experiment, report: Path) -> Record:
    config, rows = experiment.config, experiment.rows
    children = []
    for stage, history in experiment.histories.items():
        start = start_of(Paths(config).history(stage), history)
        params = flat_parameters(stage_section(config, stage))
        children.append(Record(
            f"{stage} · {config.name} b{config.base_res}",
            {"stage": stage, "profile": config.name}, params,
            curves(history, start) + system_points(Paths(config).system(stage)), start,
            start + round(1000 * history.seconds),
        ))  # fmt: skip
    tags = common_tags(config) | {
        IDENTITY: experiment.identity,
        "data_fingerprint": experiment.data_fingerprint,
        "code_revision": ", ".join(sorted({r.revision for r in rows})),
        "device": ", ".join(sorted({r.device for r in rows})),
        NOTE: f"{config.name}, {' → '.join(map(str, config.resolutions))}. Tables, curves and "
        "samples: `report/index.html` among the artifacts.",
    }
    start = min(child.start for child in children if child.start is not None)
    n, last = experiment.data["n"], config.target_res
    data = f"{config.data.source}, {len(experiment.classes)} classes, {n['train']:,} images"
    name = f"pagoda-{config.name}"
    mine = [r for r in rows if r.size == last and r.generator == experiment.evaluations[last].main]
    generator = Generator(name, Paths(config).generator(last), last, experiment.classes,
                          registry.card(name, data, last, mine))  # fmt: skip
    return Record(
        run_name(config, experiment.identity), tags, flat_parameters(config),
        _results(experiment), start, None, report, (data, experiment.data_fingerprint),
        generator if generator.folder.is_dir() else None, tuple(children),
    )  # fmt: skip


def _results(experiment: Experiment) -> list[Point]:
    """``<protocol>/<resolution>`` for the main generator, ``<name>/…`` for all others.

    ``by_resolution/<protocol>`` holds the main generators over resolution as the step, for one
    curve an experiment.
    """
    points = []
    for res, evaluation in experiment.evaluations.items():
        for row in evaluation.rows:
            name, main = f"{row.protocol}/{res:04d}", row.generator == evaluation.main
            points += _points(name if main else f"{row.generator}/{name}", row)
            if main and math.isfinite(row.number):
                points.append(Point(f"by_resolution/{row.protocol}", row.number, res))
    return points + [Point(f"seconds/{s}", h.seconds) for s, h in experiment.histories.items()]


def _points(name: str, row: Row, step: int = 0) -> list[Point]:
    """A row's value, and beside it what it has of ``sd``, ``low`` and ``high``."""
    found = {"": row.value, "/sd": row.sd, "/low": row.low, "/high": row.high}
    return [Point(name + end, value, step) for end, value in found.items() if value is not None]
