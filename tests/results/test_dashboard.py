"""DVC's plots of a report: every definition finds its data and its template."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagoda.config import Config
from pagoda.results.curve_table import curve_table
from pagoda.results.experiment import History
from tests.results.synthetic import history_rows
from tests.tiny import ROOT


@pytest.fixture(scope="module")
def shown(finished: tuple[Config, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What ``dvc plots show`` makes of the project's definitions and a finished report."""
    folder = tmp_path_factory.mktemp("dashboard")
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / file, folder)
    report = finished[1].relative_to(finished[1].parents[2])
    shutil.copytree(finished[1], folder / report)
    command = [sys.executable, "-m", "dvc", "plots", "show", "--json", "-o", "shown"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_every_plot_has_its_data(shown: Any) -> None:
    assert "errors" not in shown
    kinds = {name: [plot["type"] for plot in plots] for name, plots in shown["data"].items()}
    assert kinds == {
        "Distance by resolution": ["vega"], "Every generator": ["vega"],
        "Learning curves": ["vega"], "reports/smoke/b8/samples.png": ["image"],
        "reports/smoke/b8/teacher_vs_student.png": ["image"],
    }  # fmt: skip
    assert "<DVC_METRIC" not in json.dumps(shown["data"])


@pytest.mark.parametrize("name", ["Distance by resolution", "Every generator", "Learning curves"])
def test_fields_that_a_template_names_are_in_its_data(shown: Any, name: str) -> None:
    (plot,) = shown["data"][name]
    rows = plot["content"]["data"]["values"]

    def fields(node: Any) -> set[str]:
        if isinstance(node, list):
            return set().union(*map(fields, node))
        own = {node["field"]} if isinstance(node, dict) and "field" in node else set()
        return own | fields(list(node.values())) if isinstance(node, dict) else own

    named = fields({k: v for k, v in plot["content"].items() if k != "data"})
    named -= {step.get("as") for step in plot["content"].get("transform", [])}
    assert {"rev"} < named and all(named <= row.keys() for row in rows)


def test_curves_are_the_losses_of_every_stage(shown: Any) -> None:
    (plot,) = shown["data"]["Learning curves"]
    curves = {row["curve"] for row in plot["content"]["data"]["values"]}
    assert {"teacher: loss", "features: accuracy", "grow-32: loss_d"} < curves
    assert not [c for c in curves if c.startswith("invert") or c.endswith(("lr", "grad_norm"))]


def test_a_curve_keeps_its_points() -> None:
    rows = tuple(history_rows("distill", 5000))
    lines = [line.split("\t") for line in curve_table([History("distill", rows)]).splitlines()]
    late = [(int(i), float(v)) for c, i, v in lines[1:] if c == "distill: loss_adv"]
    known = [(r["images"], r["loss_adv"]) for r in rows if "loss_adv" in r]
    assert lines[0] == ["curve", "images", "value"] and len(late) == len(known) > 50
    np.testing.assert_allclose(late, known, rtol=1e-5)
