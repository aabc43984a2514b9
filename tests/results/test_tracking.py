"""MLflow tracking with a real sqlite store: structure, curves, idempotence, trouble."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import report, track
from pagoda.pipeline.system import sampled
from pagoda.results import tracking
from pagoda.results.experiment import parameters_hash, read_experiment
from tests.results.runs import all_runs, client_of
from tests.results.synthetic import (
    history_rows,
    make_config,
    result_rows,
    write_evaluation,
    write_experiment,
    write_history,
)

STAGES = ["features", "teacher", "invert", "distill", "grow-16", "grow-32"]


@pytest.fixture(scope="module")
def project(
    blank_store: Path, finished: tuple[Config, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A project with two finished experiments, b8 and b16, both tracked; tests only read it."""
    root = tmp_path_factory.mktemp("project")
    (root / ".dvc").mkdir()
    shutil.copy(blank_store, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("DVC_EXP_BASELINE_REV", "b" * 40)
        shutil.copytree(finished[1].parents[2], root, dirs_exist_ok=True)
        write_experiment(make_config(base_res=16), columns=1)
        report.run(make_config(base_res=16))
        for base in (8, 16):
            patch.setenv("DVC_EXP_NAME", f"name-{base}")
            track.run(make_config(base_res=base))
    return root


def test_a_parent_and_a_child_a_stage(project: Path) -> None:
    client = client_of(project)
    experiment = client.get_experiment_by_name("pagoda-smoke")
    assert experiment.artifact_location == (project / "mlruns" / "pagoda-smoke").as_uri()
    runs = client.search_runs([experiment.experiment_id])
    parents = {r.data.tags["base_res"]: r for r in runs if "identity" in r.data.tags}
    assert set(parents) == {"8", "16"}
    for base, stages in (("8", STAGES), ("16", [s for s in STAGES if s != "grow-16"])):
        parent = parents[base].info.run_id
        children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent]
        assert sorted(r.data.tags["stage"] for r in children) == sorted(stages)
        tracked = json.loads((project / f"runs/smoke/b{base}/tracked.json").read_text())
        assert tracked == {
            "experiment": "pagoda-smoke",
            "experiment_id": experiment.experiment_id,
            "identity": parents[base].data.tags["identity"],
            "parent": parent,
            "children": {r.data.tags["stage"]: r.info.run_id for r in children},
        }
    assert len(runs) == 2 + 6 + 5
    assert {r.info.status for r in runs} == {"FINISHED"}


def parent_run(project: Path, base: int) -> Any:
    """The parent run of one base resolution."""
    tracked = json.loads((project / f"runs/smoke/b{base}/tracked.json").read_text())
    return client_of(project).get_run(tracked["parent"])


def test_the_parent_says_what_was_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    config, run = make_config(), parent_run(project, 8)
    assert run.info.run_name == "smoke 8→16→32 seed 0 · name-8"
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == run.data.tags["data_fingerprint"][:36]
    for key, value in {
        "profile": "smoke",
        "target_res": "32",
        "dvc_exp": "name-8",
        "base_revision": "b" * 40,
        "parameters_hash": parameters_hash(config),
        "data_fingerprint": read_experiment(config).data_fingerprint,
        "code_revision": "0123456789ab",
        "device": "cpu",
    }.items():
        assert run.data.tags[key] == value
    params = run.data.params
    assert params == tracking.flat_parameters(config)
    assert params["base_res"] == "8"
    assert params["teacher.optim.lr"] == json.dumps(config.teacher.optim.lr)
    assert params["name"] == "smoke"
    assert json.loads(params["growth"]) == config.growth


def test_metrics_are_named_by_protocol_and_resolution(project: Path) -> None:
    metrics = parent_run(project, 8).data.metrics
    assert metrics["fd_classifier_2k/0008"] == 4.9
    assert metrics["fd_classifier_2k/0032"] == 37.4
    assert metrics["teacher/fd_classifier_2k/0008"] == 3.63
    assert metrics["real/fd_classifier_2k/0032"] == 0.288
    assert metrics["by_resolution/fd_classifier_2k"] == 37.4
    assert metrics["seconds/teacher"] == 60.0
    rows = [row for res in (8, 16, 32) for row in result_rows(make_config(), res)]
    assert len(metrics) == len(rows) + 5 + len(STAGES)


def test_curves_equal_the_history(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    client, config = client_of(project), make_config()
    children = json.loads((project / "runs/smoke/b8/tracked.json").read_text())["children"]
    for stage in ("distill", "grow-32", "invert"):
        path = Paths(config).history(stage)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        names = {k for row in rows for k in row} - {"images", "step", "seconds"}
        run = client.get_run(children[stage])
        assert set(run.data.metrics) == names
        for name in names:
            logged = client.get_metric_history(children[stage], name)
            assert [(m.step, m.value) for m in sorted(logged, key=lambda m: m.step)] == [
                (row["images"], row[name]) for row in rows if name in row
            ]
            assert {m.timestamp - run.info.start_time for m in logged} == {
                round(1000 * row["seconds"]) for row in rows if name in row
            }
    assert client.get_run(children["grow-32"]).data.params["optim.lr"] == json.dumps(
        config.grow.optim.lr
    )


def test_what_a_stage_took_of_its_machine_is_in_its_run(tmp_path: Path) -> None:
    """Under MLflow's names; a line that a kill cut short, and a missing file, are no error."""
    with sampled(tmp_path / "teacher.jsonl", interval=0.05):
        time.sleep(0.2)
    points = tracking.system_points(tmp_path / "teacher.jsonl")
    assert {p.metric for p in points} >= {
        "system/cpu_utilization_percentage", "system/system_memory_usage_megabytes",
    }  # fmt: skip
    last = max(p.step for p in points)
    (tmp_path / "teacher.jsonl").write_text(
        (tmp_path / "teacher.jsonl").read_text() + '{"time": 1.0, "cpu'
    )
    assert tracking.system_points(tmp_path / "teacher.jsonl") == points
    assert last >= 2 and all(p.time and p.time > 1e12 for p in points)
    assert tracking.system_points(tmp_path / "nowhere.jsonl") == []


def test_samples_that_cannot_be_written_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with sampled(tmp_path / "file" / "teacher.jsonl", interval=0.05):
        time.sleep(0.1)
    assert (tmp_path / "file").read_text() == ""


def test_charts_have_the_distances_first(project: Path) -> None:
    tags = client_of(project).get_experiment_by_name("pagoda-smoke").tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(tags["mlflow.sharedViewState.charts"])
    keys = [chart["metricKey"] for chart in view["compareRunCharts"]]
    assert keys[0] == "fd_classifier_2k/0032" and view["orderByKey"] == f"metrics.`{keys[0]}`"
    assert set(keys) <= set(parent_run(project, 8).data.metrics) | set(keys[-1:])


def test_the_report_is_among_the_artifacts(project: Path) -> None:
    client, run = client_of(project), parent_run(project, 8)
    listed = {a.path: a.file_size for a in client.list_artifacts(run.info.run_id, "report")}
    folder = project / "reports/smoke/b8"
    assert listed == {f"report/{f.name}": f.stat().st_size for f in folder.iterdir()}


def test_tracking_twice_adds_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    client, path = client_of(project), project / "runs/smoke/b8/tracked.json"
    before, entry = {r.info.run_id for r in all_runs(client)}, path.read_bytes()
    tracked = tracking.track(make_config())
    assert not tracked.added
    track.run(make_config())
    assert {r.info.run_id for r in all_runs(client)} == before
    assert path.read_bytes() == entry


def test_two_experiments_compare(project: Path) -> None:
    """The same names in both, so that the comparison page has rows and one differing axis."""
    small, large = parent_run(project, 8), parent_run(project, 16)
    differ = {k for k in small.data.params if small.data.params[k] != large.data.params.get(k)}
    assert differ == {"base_res", "resolutions", "growth"}
    shared = set(small.data.metrics) & set(large.data.metrics)
    assert {"fd_classifier_2k/0032", "fd_classifier_2k/0016", "seconds/distill"} <= shared
    client = client_of(project)
    curve = client.get_metric_history(large.info.run_id, "by_resolution/fd_classifier_2k")
    assert sorted(m.step for m in curve) == [16, 32]


def test_changed_results_are_a_new_run(copy: Config, tmp_path: Path) -> None:
    first = tracking.track(copy)
    rows = result_rows(copy, 32)
    rows[0]["value"] += 1.0
    write_evaluation(copy, 32, rows, columns=1)
    second = tracking.track(copy)
    assert first.added and second.added
    assert first.parent != second.parent
    assert len(all_runs(client_of(tmp_path))) == 2 * (1 + 4)


def test_a_run_that_failed_midway_is_redone(copy: Config, tmp_path: Path) -> None:
    """A metric that MLflow refuses stops the first attempt after the parent run was made."""
    path = Paths(copy).history("distill")
    rows = history_rows("distill", 19200)
    write_history(path, [row | {"not a metric name!": 1.0} for row in rows])
    with pytest.raises(PagodaError, match="not a metric name!") as caught:
        tracking.track(copy)
    assert "\n" not in str(caught.value)
    client = client_of(tmp_path)
    assert {r.info.status for r in all_runs(client)} == {"FAILED"}
    write_history(path, rows)
    tracked = tracking.track(copy)
    assert tracked.added
    assert {r.info.status for r in all_runs(client)} == {"FINISHED"}
    assert len(all_runs(client)) == 1 + 4


def test_an_unfinished_experiment_is_not_tracked(copy: Config) -> None:
    Paths(copy).history("distill").unlink()
    with pytest.raises(PagodaError, match=r"distill\.jsonl is missing"):
        tracking.track(copy)


def test_the_report_comes_first(copy: Config) -> None:
    for file in Paths(copy).report.iterdir():
        file.unlink()
    Paths(copy).report.rmdir()
    with pytest.raises(PagodaError, match="'pagoda report' makes it"):
        tracking.track(copy)


def test_rows_of_any_evaluation(
    blank_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run with a metric a protocol; seeds are steps; a second time adds nothing."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    shutil.copy(blank_store, tmp_path)
    about = {"generator": "g", "metric": "fd", "n": 40, "resolution": 32,
             "reference": "a" * 64, "features": "b" * 64,
             "revision": "r", "device": "cpu"}  # fmt: skip
    rows = [about | {"protocol": "fd_custom_x_40", "value": 1.5 + seed, "seed": seed}
            for seed in (0, 1)]  # fmt: skip
    rows[1] |= {"sd": 0.25, "low": 2.0, "high": 3.0, "interval": "bootstrap_95"}
    store, run, added = tracking.track_rows({"rows": rows})
    assert added and tracking.track_rows({"rows": rows}) == (store, run, False)
    client = MlflowClient(tracking_uri=store)
    history = client.get_metric_history(run, "fd_custom_x_40")
    assert [(metric.step, metric.value) for metric in history] == [(0, 1.5), (1, 2.5)]
    beside = {"sd": 0.25, "low": 2.0, "high": 3.0}
    expected = {f"fd_custom_x_40/{key}": value for key, value in beside.items()}
    assert client.get_run(run).data.metrics == expected | {"fd_custom_x_40": 2.5}
    assert client.get_run(run).data.tags["resolution"] == "32"
    other = [row | {"value": 9.0} for row in rows]
    assert tracking.track_rows({"rows": other})[1:] != (run, False)
