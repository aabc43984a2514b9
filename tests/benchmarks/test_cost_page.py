"""The page of costs says what was measured, and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from benchmarks import cost_page, stage_memory, training
from tests.tiny import ROOT

SECONDS = [2.0, 1.0, 4.0]


def measured() -> dict[str, Any]:
    """Two resolutions at batch 32 and two batches at 16x16, of both steps."""
    sizes = [(8, 32), (16, 32), (16, 64)]
    return {
        "machine": {"processor": "abacus", "cores": 3, "threads": 2, "gpu": None,
                    "versions": {"python": "3.99", "torch": "9.8", "absent": None}},
        "quick": True,
        "load": {"rates": 0.25, "processes": 0.5},
        "rates": [{"step": step, "resolution": side, "batch": batch, "seconds": SECONDS}
                  for side, batch in sizes for step in ("teacher", "one step")],
        "processes": [
            {"processes": n, "step": "teacher", "resolution": 16, "batch": 64,
             "seconds": [s / n for s in SECONDS]} for n in (1, 2)
        ],
        "stages": {"settings": {"data.train_images": 7},
                   "rows": [{"stage": "teacher", "peak_gib": 0.5}]},
        "more_images": {"settings": {"data.train_images": 28},
                        "rows": [{"stage": "teacher", "peak_gib": 0.75}]},
        "studies": {"settings": {}, "rows": [{"stage": "variant cost direct", "peak_gib": 0.625}]},
    }  # fmt: skip


def cut() -> dict[str, Any]:
    return {
        "recipe": "adm", "resolution": 64, "n": 100, "processor": "abacus", "load": 0.1,
        "over_cores": [{"cores": n, "seconds": [s / n for s in SECONDS]} for n in (1, 2)],
        "one_pass": {"n": 5, "resolutions": [64, 128], "apart": SECONDS, "together": [0.5]},
        "versions": {"python": "3.99"},
    }  # fmt: skip


def test_every_figure_follows_from_what_was_measured() -> None:
    page = cost_page.page(measured(), cut())
    assert "| teacher | 8 x 8 | 32 | 16.0 (8.0 to 32.0) |" in page
    assert "| one step | 16 x 16 | 64 | 32.0 (16.0 to 64.0) |" in page
    assert "| 2 | 64.0 (32.0 to 128.0) | 2.00 |" in page
    assert "| 2 | 100.0 (50.0 to 200.0) | 2.00 |" in page
    assert "4.00 times as much" in page.replace("\n", " ")
    assert "| `teacher` | 0.50 | 0.75 |" in page and "| `variant cost direct` | 0.62 |" in page
    text = page.replace("\n", " ")
    assert "abacus, 3 cores, no GPU, 2 threads; python 3.99, torch 9.8" in text
    assert "Medians of 3 steps" in text and "Load at the start 0.25" in text
    assert "absent" not in text


def test_what_was_not_measured_is_not_on_the_page(tmp_path: Path) -> None:
    only = {k: v for k, v in measured().items() if k in ("machine", "load", "rates")}
    page = cost_page.page(only, {})
    assert "resolution and batch" in page
    assert not any(word in page for word in ("Downsampling, over", "over processes", "Peak memory"))
    cost_page.draw(only, {}, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["cost-training.png"]


def test_page_and_figures_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"training": measured(), "downsampling": cut()}
    for name, tree in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))
    options = [f"--{name}={tmp_path / name}.json" for name in files]
    monkeypatch.setattr(sys, "argv", ["cost_page", *options, f"--docs={tmp_path / 'docs'}"])
    cost_page.main()
    page = (tmp_path / "docs" / "cost.md").read_text()
    for name in ("training", "downsampling"):
        assert f"(images/cost-{name}.png)" in page
        with Image.open(tmp_path / "docs" / "images" / f"cost-{name}.png") as image:
            assert len(image.getcolors(1 << 16) or []) > 2  # something is drawn


def test_the_committed_page_is_that_of_the_committed_measurements() -> None:
    files = [cost_page.MEASURED / f"{name}.json" for name in ("training", "downsampling")]
    found = [json.loads(file.read_text()) if file.is_file() else {} for file in files]
    page = cost_page.DOCS / "cost.md"
    assert page.is_file() == any(found)
    if page.is_file():
        assert page.read_text() == cost_page.page(*found)


def test_a_variant_of_every_kind_is_measured_after_what_it_reads() -> None:
    found = stage_memory.variants()
    trees = {
        file.parent.name: yaml.safe_load(file.read_text())["variants"]
        for file in (ROOT / "experiments").glob("*/study.yaml")
    }
    kinds = {
        tuple(variant.get("steps", ())) for tree in trees.values() for variant in tree.values()
    }
    assert {tuple(trees[study][variant].get("steps", ())) for study, variant in found} == kinds
    assert {variant for study, variant in found if study == "cost"} == set(trees["cost"])
    for i, (study, variant) in enumerate(found):
        parent = trees[study][variant].get("of")
        assert parent is None or (study, parent) in found[:i]


def test_parts_that_the_file_has_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def part(name: str) -> Any:
        def measure(quick: bool) -> list[object]:
            ran.append(name)
            return [name, quick]

        return measure

    monkeypatch.setattr(training, "_PARTS", {name: part(name) for name in ("rates", "stages")})
    out = tmp_path / "measured" / "training.json"
    training.measure(["stages"], True, out)
    result = training.measure(["rates", "stages"], True, out)
    assert ran == ["stages", "rates"]
    assert result["stages"] == ["stages", True] and set(result["load"]) == {"rates", "stages"}
    assert json.loads(out.read_text()) == result
    with pytest.raises(SystemExit, match="other conditions"):
        training.measure(["rates"], False, out)
