"""The runner without DVC against ``dvc.yaml``, and in pieces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.pieces import compose, stages
from tests.tiny import ROOT, TINY


def declared(tree: dict[str, object]) -> list[str]:
    """Commands of the stages in ``dvc.yaml``, but for tracking."""
    lines = []
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values():
        body = stage.get("do", stage)
        rows = tree.get(str(stage.get("foreach", "")).strip("${}"), [None])
        for item in rows.values() if isinstance(rows, dict) else rows:  # type: ignore[attr-defined]
            line = body["cmd"].removeprefix("python -m pagoda ")
            if isinstance(item, dict):
                line = line.replace("${item.from}", str(item["from"]))
                line = line.replace("${item.to}", str(item["to"]))
            lines.append(line.replace("${item}", str(item)))
    return [line for line in lines if line != "track"]


def test_it_runs_the_stages_of_the_pipeline() -> None:
    tree = compose("smoke", ["base_res=16"])
    assert sorted(declared(tree)) == sorted(" ".join(stage) for stage in stages(tree))


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    settings = [f"--set={key}={value}" for key, value in TINY.items() if key != "name"]
    settings += ["--set=target_res=16", "--set=teacher.optim.images=6400"]
    command = [sys.executable, "-m", "benchmarks.pieces", "--profile=smoke", *settings]
    command += [f"--work={tmp_path}"]
    first = subprocess.run([*command, "--minutes=0.17"], cwd=ROOT, capture_output=True, check=False)
    assert first.returncode == 75, first.stderr.decode()
    last = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert last.returncode == 0, last.stderr.decode()
    rows = [json.loads(line) for line in (tmp_path / "stages.jsonl").read_text().splitlines()]
    finished = [row["stage"] for row in rows if row["done"]]
    assert finished == [" ".join(stage) for stage in stages(compose("smoke", ["target_res=16"]))]
    assert (tmp_path / "reports" / "smoke" / "b8" / "index.html").is_file()
