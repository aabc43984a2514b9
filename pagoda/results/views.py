"""How MLflow shows an experiment when it is opened: saved charts, the distances first.

The keys are those that MLflow 3 reads from the tag ``mlflow.sharedViewState.<name>`` of an
experiment; a version that does not know them shows its own choice of charts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pagoda.results.experiment import Experiment
from pagoda.results.verdicts import distance_protocols

VIEW = "charts"
"""Key of the charts that are saved with an experiment."""

CHARTS = f"?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={VIEW}"
"""Of the address of an experiment's page: its saved charts, among the pages of model training."""


def tags(experiment: Experiment) -> dict[str, str]:
    """Tags of MLflow's experiment: charts with the distances first.

    The charts are what MLflow's **Share** saves; :data:`VIEW` is its key in the page's address.
    """
    charts, at = [], sorted(experiment.evaluations, reverse=True)
    for protocol in distance_protocols(experiment):
        charts += [chart("BAR", metricKey=f"{protocol}/{res:04d}") for res in at]
        charts.append(chart("LINE", metricKey=f"by_resolution/{protocol}", xAxisKey="step",
                            selectedMetricKeys=[f"by_resolution/{protocol}"]))  # fmt: skip
    first = charts[0]["metricKey"] if charts else ""
    state = comparison("Distances to real images", charts) | {
        "searchFilter": "tags.identity != ''",  # experiments, not their stages
        "orderByKey": f"metrics.`{first}`", "orderByAsc": True,
        "selectedColumns": ["attributes.`Dataset`", "attributes.`Duration`",
                            *(f"metrics.`{c['metricKey']}`" for c in charts if c["type"] == "BAR"),
                            "params.`base_res`", "params.`seed`"],
    }  # fmt: skip
    return {f"mlflow.sharedViewState.{VIEW}": json.dumps(state)}


def chart(kind: str, **facts: Any) -> dict[str, Any]:
    """A chart of a shared view, which has all runs."""
    return {"type": kind, "runsCountToCompare": 100, "deleted": False, "isGenerated": False,
            "metricSectionId": VIEW, **facts}  # fmt: skip


def comparison(title: str, charts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A shared view of charts in one section."""
    section = {"uuid": VIEW, "name": title, "display": True, "isReordered": True}
    numbered = [each | {"uuid": f"chart-{i}"} for i, each in enumerate(charts)]
    return {"compareRunCharts": numbered, "compareRunSections": [section],
            "isAccordionReordered": True, "runsHiddenMode": "SHOW_ALL"}  # fmt: skip
