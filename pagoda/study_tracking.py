"""Studies into MLflow, replayed from the results in ``reports/<profile>/studies/<study>/``.

A study is an experiment, an arm with one seed is a run of it. Only the folder is read, so a study
can be tracked from a fresh clone, without its artifacts and without running anything.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.mlflow_store import (
    NOTE,
    Store,
    browse,
    connected,
    create_run,
    experiment_id,
    find_store,
    log_metrics,
    log_params,
    page,
)
from pagoda.report.derived import with_derived
from pagoda.report.studies import StudyCard, StudyResults, StudyRow, find_studies

if TYPE_CHECKING:
    from mlflow import MlflowClient

STUDY_IDENTITY = "study_identity"
_VIEW = "study"
_CHARTS = f"?compareRunsMode=CHART&viewStateShareKey={_VIEW}"
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # the pages of model training
_MAX_CHARTS = 12
_SHARED = frozenset({"teacher", "real"})  # measured beside the arm's own generator


@dataclass(frozen=True)
class TrackedStudy:
    """Where a study is in MLflow.

    Attributes:
        experiment: name of the MLflow experiment.
        experiment_id: its id in the store.
        runs: ids by arm and seed.
        added: how many of them were made now.
        replaced: how many earlier runs, of other results, went to MLflow's trash.
    """

    experiment: str
    experiment_id: str
    runs: dict[tuple[str, int], str]
    added: int
    replaced: int


def track_studies(reports: Path = Path("reports")) -> tuple[str, list[TrackedStudy]]:
    """Put every study below ``reports`` into MLflow; what is there already stays as it is.

    The experiment ends up with one run for each arm and seed of the results. A run of results that
    have changed since is deleted as MLflow deletes: it can be restored until ``mlflow gc``.

    Returns:
        The store's URI, and the studies by profile and name.

    Raises:
        PagodaError: one line; there is no study, one is damaged, or the store is unreachable.
    """
    studies = find_studies(reports)
    if not studies:
        raise PagodaError(f"no study has results below {reports}; 'make studies' runs them")
    store = find_store()
    with connected(store) as client:
        return store.uri, [_track(client, store, with_derived(study)) for study in studies]


def add_studies(reports: Path = Path("reports")) -> None:
    """Track every study and say where each is."""
    uri, studies = track_studies(reports)
    for study in studies:
        replaced = f", {study.replaced} replaced" if study.replaced else ""
        sys.stderr.write(
            f"{study.experiment}: {len(study.runs)} runs, {study.added} added now{replaced}; "
            f"{page(uri, study.experiment_id)}{_CHARTS}\n"
        )
    if command := browse(uri):
        sys.stderr.write(f"to look at them: {command}\n")


def study_experiment_name(card: StudyCard) -> str:
    """MLflow experiment of a study; its arms and seeds are runs to compare."""
    return f"pagoda-{card.profile}-{card.study}"


def metric_name(row: StudyRow) -> str:
    """``<protocol>/<resolution>``, so that arms compare; after ``teacher/`` or ``real/``."""
    name = f"{row.protocol}/{row.resolution:04d}"
    return f"{row.generator}/{name}" if row.generator in _SHARED else name


def comparison(study: StudyResults) -> dict[str, Any]:
    """What MLflow's **Share** would save of a charts page: the study's metrics over its axis.

    Metrics of arms that have no place on a numeric axis are bars. The keys are those that MLflow 3
    reads from the tag ``mlflow.sharedViewState.<name>`` of an experiment; a version that does not
    know them shows its own choice of charts.
    """
    charts = []
    for i, name in enumerate(_charted(study)):
        horizontal = _horizontal(study, name)
        if horizontal is None:
            chart: dict[str, Any] = {"type": "BAR", "metricKey": name}
        else:
            chart = {"type": "SCATTER", "xaxis": horizontal, "yaxis": _key(name, "METRIC")}
        same = {"runsCountToCompare": 100, "deleted": False, "isGenerated": False}
        place = {"uuid": f"chart-{i}", "metricSectionId": _VIEW}
        charts.append(chart | same | place)
    section = {"uuid": _VIEW, "name": study.card.title, "display": True, "isReordered": True}
    return {
        "compareRunCharts": charts,
        "compareRunSections": [section],
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
    }


def _charted(study: StudyResults) -> list[str]:
    """Metrics of the card, in its order, that at least two arms have."""
    order = {metric: i for i, metric in enumerate(study.card.metrics)}
    arms: dict[tuple[int, str], set[str]] = {}
    for row in study.rows:
        if row.metric in order and row.generator not in _SHARED:
            arms.setdefault((order[row.metric], metric_name(row)), set()).add(row.arm)
    return [name for (_, name), found in sorted(arms.items()) if len(found) > 1][:_MAX_CHARTS]


def _horizontal(study: StudyResults, name: str) -> dict[str, str] | None:
    card = study.card
    teachers = sorted(
        metric_name(r) for r in study.rows
        if r.generator == "teacher" and r.metric == card.axis_metric
    )  # fmt: skip
    if teachers:
        return _key(teachers[0], "METRIC")
    if all(row.axis is None for row in study.rows if metric_name(row) == name):
        return None
    return _key("log10_axis" if card.axis_log else "axis", "PARAM")


def _key(name: str, kind: str) -> dict[str, str]:
    return {"key": name, "type": kind}


def _track(client: MlflowClient, store: Store, study: StudyResults) -> TrackedStudy:
    card, groups = study.card, dict(_runs(study))
    name = study_experiment_name(card)
    where = experiment_id(client, store, name)
    view = {f"mlflow.sharedViewState.{_VIEW}": json.dumps(comparison(study))}
    for tag, value in ({NOTE: _note(study)} | _KIND | view).items():
        client.set_experiment_tag(where, tag, value)
    wanted = {_identity(card, *key, rows): key for key, rows in groups.items()}
    there: dict[tuple[str, int], str] = {}
    replaced = 0
    for run in client.search_runs([where], f"tags.{STUDY_IDENTITY} != ''", max_results=50_000):
        key = wanted.get(run.data.tags[STUDY_IDENTITY])
        if key is None or key in there or run.info.status != "FINISHED":
            client.delete_run(run.info.run_id)
            replaced += 1
        else:
            there[key] = str(run.info.run_id)
    missing = {identity: key for identity, key in wanted.items() if key not in there}
    for identity, key in missing.items():
        there[key] = _write(client, where, card, key, groups[key], identity)
    runs = {key: there[key] for key in groups}
    return TrackedStudy(name, where, runs, len(missing), replaced)


def _runs(study: StudyResults) -> Iterator[tuple[tuple[str, int], list[StudyRow]]]:
    """Rows by arm and seed, in the order of the card."""
    for arm in study.card.arms:
        for seed in sorted({r.seed for r in study.rows if r.arm == arm}):
            yield (arm, seed), [r for r in study.rows if (r.arm, r.seed) == (arm, seed)]


def _identity(card: StudyCard, arm: str, seed: int, rows: Sequence[StudyRow]) -> str:
    lines = sorted(repr(row) for row in rows)
    return artifacts.digest([card.profile, card.study, arm, seed, lines])


def _write(
    client: MlflowClient,
    where: str,
    card: StudyCard,
    key: tuple[str, int],
    rows: Sequence[StudyRow],
    identity: str,
) -> str:
    """One run; marked as failed if it cannot be completed, and so redone next time."""
    arm, seed = key
    run = create_run(client, where, f"{arm}, seed {seed}", _tags(card, rows, identity))
    try:
        log_params(client, run, _params(card, arm, seed, rows))
        log_metrics(client, run, _metrics(rows))
        client.set_terminated(run, "FINISHED")
    except BaseException:
        with contextlib.suppress(Exception):
            client.set_terminated(run, "FAILED")
        raise
    return run


def _tags(card: StudyCard, rows: Sequence[StudyRow], identity: str) -> dict[str, str]:
    joined = {
        "code_revision": sorted({r.revision for r in rows}),
        "device": sorted({r.device for r in rows}),
        "reference": sorted({r.reference for r in rows if r.reference}),
        "features": sorted({r.features for r in rows if r.features}),
    }
    return {
        STUDY_IDENTITY: identity,
        "profile": card.profile,
        "study": card.study,
        "mlflow.source.name": "pagoda track --studies",
    } | {name: ", ".join(values) for name, values in joined.items() if values}


def _params(card: StudyCard, arm: str, seed: int, rows: Sequence[StudyRow]) -> dict[str, str]:
    """What differs between runs; ``axis`` is the place on the study's axis."""
    axis = next((r.axis for r in rows if r.axis is not None), None)
    params = {"arm": arm, "label": card.arms[arm], "seed": str(seed)}
    params |= {"series": card.series[arm]} if arm in card.series else {}
    params |= {} if axis is None else {"axis": f"{axis:g}"}
    if axis is not None and card.axis_log:  # MLflow has no logarithmic axis for parameters
        params["log10_axis"] = f"{math.log10(axis):.4g}"
    return params | {"base_res": ", ".join(str(r) for r in sorted({r.base_res for r in rows}))}


def _metrics(rows: Sequence[StudyRow]) -> list[Any]:
    """Every value, and the arm's own over resolution as the step."""
    from mlflow.entities import Metric

    now, found = int(time.time() * 1000), []
    for row in rows:
        found.append(Metric(metric_name(row), row.value, now, 0))
        if row.generator not in _SHARED:
            found.append(Metric(f"by_resolution/{row.protocol}", row.value, now, row.resolution))
    return found


def _note(study: StudyResults) -> str:
    card = study.card
    axis = f"\n\nParameter `axis`: {card.axis_label}." if card.axis_label else ""
    return (
        f"**{card.title}.** {card.question}\n\n**Rule, fixed before the run.** {card.rule}{axis}"
        f"\n\nProfile `{card.profile}`; {card.data}. Tables and pictures: `{study.folder}`."
    )
