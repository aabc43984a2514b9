"""What is said of several runs: values, spread, pictures, time, and where it all comes from."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.comparison import Compared, over_seeds, plan_name, write_comparison
from benchmarks.comparison_grids import beside, read_grids
from benchmarks.pieces import RUNS, compose, stages
from pagoda.rows import Row

SECRET = "/home/somebody/images.zip"
SETTINGS = ("data.source=zip", f"data.path={SECRET}", "teacher.optim.images=640")
GENERATORS = {16: ("student", "teacher"), 32: ("grown", "upsampled_base"),
              8: ("student", "teacher")}  # fmt: skip


def row(run: str, seed: int, value: float) -> Row:
    return Row(variant=run, training_seed=seed, metric="fd", generator="grown", resolution=64,
               protocol="fd_classifier_2k", value=value, n=2048)  # fmt: skip


def test_the_spread_over_seeds_leaves_other_runs_out() -> None:
    rows = [row("main", 0, 3.0), row("seed_1", 1, 1.0), row("seed_2", 2, 2.0)]
    rows.append(row("noise_to_data", 0, 99.0))
    # Student's t for two degrees of freedom at 97.5 %: 4.303, over sqrt(3).
    assert over_seeds(rows).splitlines()[-1] == (
        "| Grown generator | 64 | `fd_classifier_2k` | 3, 1, 2 | 1 | 2 | 1 | -0.484 to 4.48 |"
    )
    assert over_seeds(rows[:1]) == ""


def test_stages_are_named_as_the_plan_names_them() -> None:
    made = {plan_name(stage.name) for stage in stages(compose("imagenette", []))}
    assert {"teacher", "grow@64", "grow@128", "evaluate@32", "downsample@128"} <= made


def evaluate(folder: Path, tree: dict[str, Any], resolution: int, colour: int) -> None:
    """Results and grids as the stage leaves them."""
    base = tree["base_res"]
    where = folder / "runs" / tree["name"] / f"b{base}" / "evaluate" / str(resolution)
    where.mkdir(parents=True)
    main, other = GENERATORS[resolution]
    rows = [
        {"generator": generator, "metric": metric, "protocol": f"{metric}_classifier_64",
         "value": float(colour), "n": 64, "seed": 7, "resolution": resolution, "nfe": 1,
         "reference": "a" * 64, "reference_n": 100, "features": "f" * 64, "revision": "unknown",
         "device": "cpu", "base_res": base}
        for generator in (main, "real") for metric in ("fd", "fd_test", "train_share")
    ]  # fmt: skip
    # Keys that say nothing are left out.
    rows.append({"metric": "drift", "protocol": "drift", "value": None, "n": 64, "seed": 7,
                 "revision": "unknown", "device": "cpu"})  # fmt: skip
    (where / "results.json").write_text(json.dumps({"rows": rows, "sheets": [main, other]}))
    np.save(where / "samples.npy", np.full((2, 2, 3, 3, resolution, resolution), colour, np.uint8))


def make_run(work: Path, name: str, colour: int) -> None:
    tree = compose("imagenette_cpu", [*SETTINGS, *RUNS[name]])
    folder = work / name
    card = folder / "runs" / tree["name"] / "data" / "32" / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"classes": ["tench", "church"], "n": {"train": 90, "test": 10}}))
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    for resolution in tree["resolutions"]:
        same = name == "adversarial_growth" and resolution == 16
        evaluate(folder, tree, resolution, 10 if same else colour)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    make_run(tmp_path, "main", 10)
    make_run(tmp_path, "adversarial_growth", 20)
    make_run(tmp_path, "half_base", 30)
    plan = {"stages": [{"stage": "teacher", "hours": {"H200": 9.0, "this machine": 0.01}}]}
    (tmp_path / "main" / "plan.json").write_text(json.dumps(plan))
    piece = {"run": "main", "stage": "teacher", "key": "k", "at": "2026-01-01T00:00:00+00:00",
             "images_per_second": None, "peak_host_gib": 1.0, "peak_gpu_gib": 0.0,
             "load_before": 0.5}  # fmt: skip
    log = [
        piece | {"done": False, "seconds": 30.0, "peak_host_gib": None},
        piece | {"done": True, "seconds": 42.0, "images_per_second": 95.0},
        {"run": "adversarial_growth", "stage": "teacher", "key": "k", "done": True,
         "linked_from": "main"},
    ]  # fmt: skip
    (tmp_path / "stages.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return tmp_path


def compared(work: Path) -> Compared:
    runs = {name: (RUNS[name], 9) for name in ("main", "adversarial_growth", "half_base")}
    return Compared(work, "imagenette_cpu", SETTINGS, runs, "0123456789ab")


def test_the_page_says_what_was_run_and_names_no_folder(work: Path, tmp_path: Path) -> None:
    write_comparison(compared(work), out := tmp_path / "reports" / "out")
    text = (out / "comparison.md").read_text()
    assert SECRET not in text and "teacher.optim.images=640" in text
    assert "`0123456789ab`" in text and "zip, 90 training and 10 held-out" in text
    assert "| main | 16 → 32 | – | 1 of 9 stages |" in text
    assert "| half_base | 8 → 16 → 32 |" in text
    assert "| main | teacher | 72 | 36 | 2.00 | 2 | 95 | 1 |  |" in text
    assert "| adversarial_growth | teacher" not in text
    assert "`fd_classifier_64` | `fd_test_classifier_64` | `train_share_classifier_64` |" in text
    with (out / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 * (2 * 3 + 1) and {r["revision"] for r in rows} == {"0123456789ab"}
    with (out / "stages.csv").open() as file:
        assert [r["done"] for r in csv.DictReader(file)] == ["False", "True", "True"]


def test_pictures_show_the_same_latents_and_say_where_they_differ(work: Path) -> None:
    write_comparison(compared(work), work)
    text = (work / "comparison.md").read_text()
    for name in ("resolutions.png", "runs-16.png", "runs-32.png"):
        assert f"({name})" in text and Image.open(work / name).width > 100
    assert "half_base: latents of another size" in text
    found = {
        name: read_grids(work / name, compared(work).params(name)) for name in compared(work).runs
    }
    at_base, _ = beside(found, 16)
    assert [group.title for group in at_base] == ["teacher", "main", "half_base"]
    grown, other = beside(found, 32)
    assert [group.title for group in grown] == ["main", "adversarial_growth", "half_base"]
    assert [int(group.images.flat[0]) for group in grown] == [10, 20, 30]
    assert other == ["half_base"]


def test_before_anything_is_evaluated_there_is_a_page(tmp_path: Path) -> None:
    tree = compose("imagenette_cpu", SETTINGS)
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "params.yaml").write_text(yaml.safe_dump(tree))
    piece = {"run": "main", "stage": "teacher", "key": "k", "done": False, "seconds": 3.0,
             "at": "2026-01-01T00:00:00+00:00", "images_per_second": None, "peak_host_gib": None,
             "peak_gpu_gib": 0.0, "load_before": 0.5}  # fmt: skip
    (tmp_path / "stages.jsonl").write_text(json.dumps(piece) + "\n")
    runs = {"main": (RUNS["main"], 9)}
    write_comparison(Compared(tmp_path, "imagenette_cpu", SETTINGS, runs), tmp_path)
    text = (tmp_path / "comparison.md").read_text()
    assert "0 of 9 stages" in text and "## Values" not in text and "| teacher | 3 |" in text
