"""The runner without DVC: what the runs share, what is linked, and going on where it stopped."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pieces import RUNS, Stage, compose, environment, link, stages
from pagoda.config import parse
from pagoda.config.revision import code_revision
from pagoda.errors import PagodaError
from tests.tiny import ROOT, TINY


def keys(run: str, profile: str = "imagenette") -> dict[str, str]:
    return {stage.name: stage.key for stage in stages(compose(profile, RUNS[run]))}


@pytest.mark.longer
@pytest.mark.parametrize("run", RUNS)
def test_every_run_is_a_configuration_that_loads(run: str) -> None:
    for profile in ("imagenette", "imagenette_cpu", "smoke"):
        parse(compose(profile, RUNS[run]))
    assert compose("imagenette", ["base_res=64", *RUNS["half_base"]])["base_res"] == 32
    with pytest.raises(PagodaError, match=r"no key teacher\.optim\.image"):
        compose("smoke", ["teacher.optim.image=3"])


def test_the_stages_are_those_of_the_pipeline() -> None:
    names = list(keys("half_base"))
    assert names == [
        *(f"downsample --resolution {r}" for r in (16, 32, 64, 128)), "features",
        *(f"reference --resolution {r}" for r in (16, 32, 64, 128)), "teacher", "invert", "distill",
        *(f"grow --from {r // 2} --to {r}" for r in (32, 64, 128)),
        *(f"evaluate --resolution {r}" for r in (16, 32, 64, 128)), "report",
    ]  # fmt: skip
    made = {out for stage in stages(compose("imagenette", [])) for out in stage.outs}
    assert {"runs/imagenette/data/128", "runs/imagenette/b32/gen/64", "metrics.json"} <= made


@pytest.mark.longer
def test_runs_share_what_their_settings_leave_alone() -> None:
    main = keys("main")
    shared = {run: {n for n, key in keys(run).items() if main.get(n) == key} for run in RUNS}
    real = {n for n in main if n.split()[0] in ("downsample", "features", "reference")}
    assert shared["main"] == set(main)
    assert shared["seed_1"] == shared["seed_2"] == shared["half_base"] == real
    assert shared["noise_to_data"] == real | {"teacher", "invert"}
    below = {"teacher", "invert", "distill", "evaluate --resolution 32"}
    assert shared["adversarial_growth"] == real | below


def test_linked_outputs_are_the_same_files(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "a", tmp_path / "b"
    (theirs / "runs" / "net").mkdir(parents=True)
    (theirs / "runs" / "net" / "model.safetensors").write_bytes(b"weights")
    (theirs / "curve.jsonl").write_text("{}\n")
    for _ in range(2):  # a second time replaces what is there
        link(Stage(("x",), "k", ("runs/net", "curve.jsonl")), theirs, ours)
    for name in ("runs/net/model.safetensors", "curve.jsonl"):
        assert os.path.samefile(theirs / name, ours / name)


def test_stages_name_this_code_wherever_their_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = code_revision()
    if here == "unknown":
        pytest.skip("no git checkout")
    monkeypatch.chdir(tmp_path)
    assert code_revision() == "unknown"
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    assert code_revision() == here


@pytest.mark.slow
def test_it_goes_on_where_it_stopped_and_links_what_runs_share(tmp_path: Path) -> None:
    settings = [f"--set={key}={value}" for key, value in TINY.items() if key != "name"]
    settings += ["--set=target_res=16", "--set=teacher.optim.images=6400"]
    command = [sys.executable, "-m", "benchmarks.pieces", "--profile=smoke", *settings]
    command += [f"--work={tmp_path}", "--runs=main,adversarial_growth,seed_1"]
    command += [f"--report={tmp_path / 'report'}"]
    first = subprocess.run([*command, "--minutes=0.17"], cwd=ROOT, capture_output=True, check=False)
    assert first.returncode == 75, first.stderr.decode()
    assert "of 12 stages" in (tmp_path / "report" / "comparison.md").read_text()
    last = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert last.returncode == 0, last.stderr.decode()
    rows = [json.loads(line) for line in (tmp_path / "stages.jsonl").read_text().splitlines()]
    every = [stage.name for stage in stages(compose("smoke", ["target_res=16"]))]
    for run in ("main", "adversarial_growth", "seed_1"):
        assert [r["stage"] for r in rows if r["run"] == run and r["done"]] == every
        assert (tmp_path / run / "reports" / "smoke" / "b8" / "index.html").is_file()
    linked = {r["stage"] for r in rows if r["run"] == "adversarial_growth" and "linked_from" in r}
    assert {"teacher", "distill", "features"} <= linked and "report" not in linked
    with (tmp_path / "comparison.csv").open() as file:
        values = {(r["variant"], r["generator"], r["resolution"], r["protocol"]): r["value"]
                  for r in csv.DictReader(file)}  # fmt: skip
    student = [values[run, "student", "8", "fd_classifier_64"]
               for run in ("main", "adversarial_growth", "seed_1")]  # fmt: skip
    assert student[0] == student[1] != student[2]
    text = (tmp_path / "report" / "comparison.md").read_text()
    assert "each training seed" in text and "| adversarial_growth | Grown generator |" in text
    assert "| done |" in text and "stages |" not in text
    taken = [r for r in rows if r.get("seconds") and r["done"]]
    assert all(r["peak_host_gib"] > 0 for r in taken)
    assert {r["stage"] for r in rows if not r["done"]} < set(every)


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_others_to_go_on(tmp_path: Path) -> None:
    settings = [f"--set={key}={value}" for key, value in TINY.items() if key != "name"]
    settings += ["--set=data.source=zip", f"--set=data.path={tmp_path / 'nowhere.zip'}"]
    command = [sys.executable, "-m", "benchmarks.pieces", "--profile=smoke", *settings]
    command += [f"--work={tmp_path}", "--runs=main,half_base"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert done.returncode == 1 and "nowhere.zip" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "stages.jsonl").read_text().splitlines()]
    assert [(r["run"], r["stage"]) for r in rows] == [
        ("main", "downsample --resolution 8"), ("half_base", "downsample --resolution 4")
    ]  # fmt: skip
