"""Studies into MLflow, replayed from the results in ``reports/<profile>/studies/<study>/``.

A study is an experiment, a variant with one seed is a run of it. Only the folder is read, so a
study can be tracked from a fresh clone, without its artifacts and without running anything.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.results import views
from pagoda.results.claims import Claim, read_claims
from pagoda.results.labels import REAL
from pagoda.results.mlflow_store import (
    MOST_RUNS,
    Store,
    browse,
    connected,
    experiment_id,
    find_store,
    page,
)
from pagoda.results.studies import StudyCard, StudyResults, find_studies
from pagoda.results.study_tables import rule_text
from pagoda.results.tracking import NOTE, Point, Record, send
from pagoda.rows import Row, grouped

if TYPE_CHECKING:
    from mlflow import MlflowClient

STUDY_IDENTITY = "study_identity"
_MAX_CHARTS = 12
_SHARED = frozenset({"teacher"}) | REAL  # measured beside the variant's own generator


@dataclass(frozen=True)
class TrackedStudy:
    """Where a study is in MLflow."""

    experiment: str  # name of the MLflow experiment
    experiment_id: str
    runs: dict[tuple[str, int], str]  # ids by variant and seed
    added: int  # of them, made now
    replaced: int  # earlier runs, of other results, that went to MLflow's trash


def track_studies(reports: Path = Path("reports")) -> tuple[str, list[TrackedStudy]]:
    """Put every study below ``reports`` into MLflow; what is there already stays as it is.

    The experiment ends up with one run for each variant and seed of the results. A run of results
    that have changed since is deleted as MLflow deletes: it can be restored until ``mlflow gc``.

    Returns:
        The store's URI, and the studies by profile and name.

    Raises:
        PagodaError: one line; there is no study, one is damaged, or the store is unreachable.
    """
    studies = find_studies(reports)
    if not studies:
        raise PagodaError(f"no study has results below {reports}; 'make studies' runs them")
    store = find_store()
    claims = read_claims()
    with connected(store) as client:
        tracked = [_track(client, store, study.with_derived(), claims) for study in studies]
        return store.uri, tracked


def add_studies(reports: Path = Path("reports")) -> None:
    """Track every study and say where each is."""
    uri, studies = track_studies(reports)
    for study in studies:
        replaced = f", {study.replaced} replaced" if study.replaced else ""
        sys.stderr.write(
            f"{study.experiment}: {len(study.runs)} runs, {study.added} added now{replaced}; "
            f"{page(uri, study.experiment_id)}{views.CHARTS}\n"
        )
    if command := browse(uri):
        sys.stderr.write(f"to look at them: {command}\n")


def comparison(study: StudyResults) -> dict[str, Any]:
    """What MLflow's **Share** would save of a charts page: the study's metrics over its axis.

    Metrics of variants that have no place on a numeric axis are bars.
    """
    card = study.card
    charts: list[dict[str, Any]] = []
    shown = [r for r in study.rows if r.metric in card.metrics and r.generator not in _SHARED]
    by_name = grouped(shown, lambda r: (card.metrics.index(r.metric), _name(r)))
    number = {"key": "log10_axis" if card.axis_log else "axis", "type": "PARAM"}
    for key in sorted(k for k, rows in by_name.items() if len({r.variant for r in rows}) > 1):
        name = key[1]
        chart = views.chart("BAR", metricKey=name)
        teachers = study.teachers_of(by_name[key][0])
        if teachers or any(row.axis is not None for row in by_name[key]):
            yaxis = {"key": name, "type": "METRIC"}
            axis = {"key": _name(teachers[0]), "type": "METRIC"} if teachers else number
            chart = views.chart("SCATTER", xaxis=axis, yaxis=yaxis)
        charts.append(chart)
    return views.comparison(card.title, charts[:_MAX_CHARTS])


def _name(row: Row) -> str:
    """``<protocol>/<resolution>``, so that variants compare; after ``teacher/`` or ``real/``."""
    name = f"{row.protocol}/{row.size:04d}"
    return f"{row.generator}/{name}" if row.generator in _SHARED else name


def _track(
    client: MlflowClient, store: Store, study: StudyResults, claims: Sequence[Claim]
) -> TrackedStudy:
    card = study.card
    axis = f"\n\nParameter `axis`: {card.axis_label}." if card.axis_label else ""
    note = (
        f"**{card.title}.** {card.question}\n\n{rule_text(card, claims)}{axis}"
        f"\n\nProfile `{card.profile}`; {card.data}. Tables and pictures: `{study.folder}`."
    )
    name = f"pagoda-{card.profile}-{card.study}"
    where = experiment_id(client, store, name)
    for tag, value in {
        NOTE: note,
        f"mlflow.sharedViewState.{views.VIEW}": json.dumps(comparison(study)),
    }.items():
        client.set_experiment_tag(where, tag, value)
    found = grouped(study.rows, lambda r: (r.variant, r.training_seed or 0))
    places = sorted(found, key=lambda key: (list(card.variants).index(key[0]), key[1]))
    records = {key: _record(card, *key, found[key]) for key in places}
    wanted = {record.tags[STUDY_IDENTITY]: key for key, record in records.items()}
    there: dict[tuple[str, int], str] = {}
    runs = client.search_runs([where], f"tags.{STUDY_IDENTITY} != ''", max_results=MOST_RUNS)
    for run in runs:
        key = wanted.get(run.data.tags[STUDY_IDENTITY])
        if key is None or key in there or run.info.status != "FINISHED":
            client.delete_run(run.info.run_id)
        else:
            there[key] = str(run.info.run_id)
    kept = len(there)
    ids = {key: there.get(key) or send(client, where, record) for key, record in records.items()}
    return TrackedStudy(name, where, ids, len(ids) - kept, len(runs) - kept)


def _record(card: StudyCard, variant: str, seed: int, rows: Sequence[Row]) -> Record:
    """Parameters are what differs between runs; ``axis`` is the place on the study's axis."""
    axis = next((r.axis for r in rows if r.axis is not None), None)
    params = {"variant": variant, "label": card.variants[variant], "seed": str(seed)}
    params |= {"series": card.series[variant]} if variant in card.series else {}
    params |= {} if axis is None else {"axis": f"{axis:g}"}
    if axis is not None and card.axis_log:  # MLflow has no logarithmic axis for parameters
        params["log10_axis"] = f"{math.log10(axis):.4g}"
    params["base_res"] = ", ".join(map(str, sorted({r.base_res or 0 for r in rows})))
    points = [Point(_name(row), row.number) for row in rows]
    points += [Point(f"by_resolution/{row.protocol}", row.number, row.size)
               for row in rows if row.generator not in _SHARED]  # fmt: skip
    lines = sorted(repr(row) for row in rows)
    tags = {
        STUDY_IDENTITY: artifacts.digest([card.profile, card.study, variant, seed, lines]),
        "profile": card.profile, "study": card.study,
        "mlflow.source.name": "pagoda track --studies",
    }  # fmt: skip
    for name in ("revision", "device", "reference", "features"):
        if values := sorted({getattr(r, name) for r in rows} - {""}):
            tags["code_revision" if name == "revision" else name] = ", ".join(values)
    return Record(f"{variant}, seed {seed}", tags, params, points)
