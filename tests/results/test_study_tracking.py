"""Studies in a real MLflow store: a run for each variant and seed, comparable, once."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pagoda.errors import PagodaError
from pagoda.pipeline import cli
from pagoda.results.studies import study_folder, write_study
from pagoda.results.study_tracking import track_studies
from pagoda.rows import Row
from tests.results.synthetic_study import make_card, make_row, make_rows
from tests.tiny import ROOT


def study_rows() -> list[Row]:
    """Two variants, two seeds, two resolutions; the teacher beside the student."""
    return [
        *make_rows({"few": [3.0, 3.5], "many": [1.0, 1.5]}, train_flops=2e9),
        *make_rows({"few": [0.2, 0.3], "many": [0.6, 0.7]},
                   metric="recall", protocol="recall_classifier_1k"),
        *make_rows({"few": [7.0, 7.5], "many": [5.0, 5.5]}, generator="grown", resolution=16),
        *make_rows({"few": [0.5, 0.5], "many": [0.5, 0.5]}, generator="teacher", nfe=35),
    ]  # fmt: skip


@pytest.fixture
def client(blank_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The store of a project that holds one study, not tracked yet."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "mlflow.db").write_bytes(blank_store.read_bytes())
    write_pairs(study_rows())
    return MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")


def write_pairs(rows: list[Row], **card: Any) -> None:
    write_study(study_folder("tiny", "pairs"), make_card(**card), rows)


def by_variant(client: Any, name: str = "pagoda-tiny-pairs") -> dict[tuple[str, str], Any]:
    """Runs that are not deleted, by variant and seed."""
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    found = {(r.data.params["variant"], r.data.params["seed"]): r for r in runs}
    assert len(found) == len(runs)
    return found


def test_a_study_is_an_experiment_and_a_variant_with_a_seed_a_run(client: Any) -> None:
    _, (tracked,) = track_studies()
    runs = by_variant(client)
    assert set(runs) == {("few", "0"), ("few", "1"), ("many", "0"), ("many", "1")}
    assert {key: run.info.run_id for key, run in runs.items()} == {
        (variant, str(seed)): run_id for (variant, seed), run_id in tracked.runs.items()
    }
    assert (tracked.added, tracked.replaced) == (4, 0)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    note = client.get_experiment(tracked.experiment_id).tags["mlflow.note.content"]
    assert make_card().question in note and make_card().rule in note
    assert f"`axis`: {make_card().axis_label}" in note


def test_runs_differ_in_variant_axis_and_seed_and_compare_in_every_metric(client: Any) -> None:
    track_studies()
    runs = by_variant(client)
    few, many = runs["few", "0"].data, runs["many", "0"].data
    assert few.params == {"variant": "few", "label": "1 %", "seed": "0", "axis": "0.01",
                          "log10_axis": "-2", "base_res": "8"}  # fmt: skip
    assert {k for k in few.params if few.params[k] != many.params[k]} == {
        "variant", "label", "axis", "log10_axis",
    }  # fmt: skip
    assert set(few.metrics) == set(many.metrics)
    for row in study_rows():
        name = f"{row.protocol}/{row.resolution:04d}"
        name = f"teacher/{name}" if row.generator == "teacher" else name
        assert runs[row.variant, str(row.training_seed)].data.metrics[name] == row.value
    assert few.metrics["train_flops/0008"] == 2e9
    assert few.metrics["nfe/0016"] == 1 and few.metrics["teacher/nfe/0008"] == 35
    curve = client.get_metric_history(
        runs["few", "0"].info.run_id, "by_resolution/fd_classifier_1k"
    )
    assert sorted((m.step, m.value) for m in curve) == [(8, 3.0), (16, 7.0)]


def saved_view(client: Any, name: str) -> tuple[dict[str, Any], list[Any]]:
    """The comparison kept with an experiment, and the runs it is of."""
    experiment = client.get_experiment_by_name(name)
    view = json.loads(experiment.tags["mlflow.sharedViewState.charts"])
    sections = {section["uuid"] for section in view["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} <= sections
    return view, client.search_runs([experiment.experiment_id])


def test_the_saved_comparison_is_over_the_axis_and_of_values_that_every_run_has(
    client: Any,
) -> None:
    write_study(study_folder("over", "pairs"), make_card(profile="over", axis_metric="fd"),
                study_rows())  # fmt: skip
    bars = [dataclasses.replace(r, axis=None) for r in study_rows()]
    write_study(study_folder("bars", "pairs"), make_card(profile="bars", axis_label=""), bars)
    track_studies()
    axes = {
        "pagoda-tiny-pairs": {"key": "log10_axis", "type": "PARAM"},
        "pagoda-over-pairs": {"key": "teacher/fd_classifier_1k/0008", "type": "METRIC"},
        "pagoda-bars-pairs": None,
    }
    for name, axis in axes.items():
        view, runs = saved_view(client, name)
        charts = view["compareRunCharts"]
        shown = [c["metricKey"] if axis is None else c["yaxis"]["key"] for c in charts]
        assert shown == ["fd_classifier_1k/0008", "fd_classifier_1k/0016"]
        assert {c["type"] for c in charts} == {"BAR" if axis is None else "SCATTER"}
        assert all(c.get("xaxis") == axis for c in charts)
        for run in runs:
            known = run.data.params if axis and axis["type"] == "PARAM" else run.data.metrics
            assert axis is None or axis["key"] in known
            assert set(shown) <= set(run.data.metrics)


def test_variants_without_a_place_on_the_axis_have_bars_beside_the_others(client: Any) -> None:
    off = [dataclasses.replace(r, axis=None) for r in study_rows() if r.metric == "recall"]
    write_pairs([*(r for r in study_rows() if r.metric != "recall"), *off],
                metrics=("recall", "fd"))  # fmt: skip
    track_studies()
    view, _ = saved_view(client, "pagoda-tiny-pairs")
    assert [c["type"] for c in view["compareRunCharts"]] == ["BAR", "SCATTER", "SCATTER"]


def test_twice_adds_nothing_and_changed_results_replace_their_own_runs_only(client: Any) -> None:
    track_studies()
    before = {key: run.info.run_id for key, run in by_variant(client).items()}
    _, (again,) = track_studies()
    assert (again.added, again.replaced) == (0, 0)
    assert {key: run.info.run_id for key, run in by_variant(client).items()} == before
    changed = [r for r in study_rows() if (r.variant, r.training_seed) != ("many", 1)]
    write_pairs([*changed, make_row("many", 1, 9.0)])
    _, (third,) = track_studies()
    assert (third.added, third.replaced) == (1, 1)
    after = {key: run.info.run_id for key, run in by_variant(client).items()}
    assert {key for key in after if after[key] != before[key]} == {("many", "1")}
    assert by_variant(client)["many", "1"].data.metrics["fd_classifier_1k/0008"] == 9.0
    assert client.get_run(before["many", "1"]).info.lifecycle_stage == "deleted"


def test_a_seed_that_is_no_longer_in_the_results_leaves(client: Any) -> None:
    track_studies()
    write_pairs([r for r in study_rows() if r.training_seed == 0])
    _, (tracked,) = track_studies()
    assert (tracked.added, tracked.replaced) == (0, 2)
    assert set(by_variant(client)) == {("few", "0"), ("many", "0")}


def test_every_profile_and_study_has_an_experiment_of_its_own(client: Any) -> None:
    write_study(study_folder("large", "pairs"), make_card(profile="large"), study_rows())
    cost = make_card(study="cost", axis_label="", series={"few": "Student"})
    row = make_row("few", 0, 1.5, axis=None, generator="none", metric="parameters",
                   protocol="parameters")  # fmt: skip
    write_study(study_folder("tiny", "cost"), cost, [row])
    _, tracked = track_studies()
    assert [t.experiment for t in tracked] == [
        "pagoda-large-pairs", "pagoda-tiny-cost", "pagoda-tiny-pairs",
    ]  # fmt: skip
    run = by_variant(client, "pagoda-tiny-cost")["few", "0"]
    assert "axis" not in run.data.params and run.data.params["series"] == "Student"
    assert run.data.metrics["parameters/0008"] == 1.5


def test_an_unfinished_run_is_made_again(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol that MLflow refuses as a name stops the first attempt."""
    write_pairs(make_rows({"few": [3.0]}, protocol="not a name!"))
    with pytest.raises(PagodaError, match="not a name!") as caught:
        track_studies()
    assert "\n" not in str(caught.value)
    assert {run.info.status for run in by_variant(client).values()} == {"FAILED"}
    write_pairs(make_rows({"few": [3.0]}))
    _, (tracked,) = track_studies()
    assert (tracked.added, tracked.replaced) == (1, 1)
    assert {run.info.status for run in by_variant(client).values()} == {"FINISHED"}
    client.set_terminated(tracked.runs["few", 0], "FAILED")
    _, (again,) = track_studies()
    assert (again.added, again.replaced) == (1, 1)
    assert {run.info.status for run in by_variant(client).values()} == {"FINISHED"}


def test_without_a_study_one_line_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PagodaError, match="no study has results below reports"):
        track_studies()


def test_the_command_says_where_each_study_is(
    client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pagoda", "track", "--studies"])
    for added in (4, 0):
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 0
        told = capsys.readouterr().err.splitlines()
        where = client.get_experiment_by_name("pagoda-tiny-pairs").experiment_id
        assert told[0].startswith(f"pagoda-tiny-pairs: 4 runs, {added} added now; ")
        assert f"/#/experiments/{where}/runs" in told[0]
        assert " --backend-store-uri sqlite:///" in told[-1]


def test_neither_torch_nor_mlflow_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, json, pagoda.results.study_tracking as _; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert not {"torch", "mlflow"} & set(json.loads(done.stdout))
