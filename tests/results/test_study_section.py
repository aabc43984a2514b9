"""A study on the page: who is nearest to the data, what failed and how, what is drawn."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagoda.results import study_figures
from pagoda.results.blocks import Document, Figure, Section, Table
from pagoda.results.labels import COST, QUALITY
from pagoda.results.page import to_html
from pagoda.results.studies import CARD, Failure, StudyResults, read_study, write_study
from pagoda.results.study_figures import (
    curves_of,
    draw_edits,
    draw_parts,
    draw_same_latents,
    draw_study,
    panels_of,
)
from pagoda.results.study_tables import nearest_tables, study_tables
from pagoda.results.suite import study_blocks
from pagoda.rows import Row
from tests.results.synthetic_study import make_card, make_row, make_rows

VARIANTS = {"few": "1 %", "many": "100 %", "all": "Everything"}


def study(rows: list[Row], **card: Any) -> StudyResults:
    return StudyResults(make_card(**card), tuple(rows), Path("reports/tiny/studies/pairs"))


def test_the_nearest_variant_is_the_one_of_the_lowest_mean_and_protocols_stay_apart() -> None:
    rows = make_rows({"few": [9.0, 1.0], "many": [3.0, 3.0], "all": [4.0, 4.1]})
    rows += make_rows({"few": [1.0], "many": [2.0]}, protocol="fid_clean_1k")
    rows += make_rows({"few": [0.1], "many": [0.2]}, generator="teacher")
    rows += make_rows({"few": [0.1]}, resolution=16)  # nothing to compare with
    (table,) = nearest_tables(study(rows, variants=VARIANTS))
    lines = [tuple(cell.text for cell in row) for row in table.rows]
    assert [(*line[:3], line[4], line[6]) for line in lines] == [
        ("`fd_classifier_1k`", "8×8", "100 %", "Everything", "1 %"),
        ("`fid_clean_1k`", "8×8", "1 %", "100 %", ""),
    ]  # fmt: skip
    assert lines[0][3] == "3.00"
    assert "seed 0: 9.0; seed 1: 1.0" in table.rows[0][7].title
    (pair,) = nearest_tables(study(make_rows({"few": [1.0], "many": [2.0]})))
    assert pair.header == ("Resolution", "Nearest", "Distance", "Second", "Distance")
    assert nearest_tables(study(make_rows({"few": [1.0]}))) == []


def test_failures_name_their_thresholds_and_pictures_what_ran(tmp_path: Path) -> None:
    failures = (Failure("many", 16, "blur", 1, 3), Failure("few", 32, "blur", 3, 3),
                Failure("few", 16, "blur", 2, 3))  # fmt: skip
    picture = Figure("x.png", "A picture.", "alt", 10)
    one = study(make_rows({"few": [1.0], "many": [2.0]}), failures=failures, figures=(picture,))
    blocks = study_blocks(one, [], {f"study-tiny-pairs-{k}": t for k, t in
                                    study_tables(one).items()}, tmp_path)  # fmt: skip
    captions = [b.caption for b in blocks if isinstance(b, Table | Figure)]
    (failed,) = [b for b in blocks if isinstance(b, Table)
                 and b.caption.startswith("**Signatures of failure**")]  # fmt: skip
    assert "less than 0.7 of real images' high-frequency energy" in failed.caption
    assert [[cell.text for cell in row[1:]] for row in failed.rows] == [
        ["16×16", "2 of 3"], ["32×32", "3 of 3"], ["16×16", "1 of 3"]
    ]  # fmt: skip
    assert all("`tiny` (scaled down), made up, 8 images" in c for c in captions)


def test_a_panel_in_which_no_two_variants_differ_is_not_drawn() -> None:
    """One teacher under two names; over an axis of numbers a flat curve says something."""
    rows = make_rows({"few": [1.0, 2.0], "many": [1.0, 2.0]})
    assert curves_of(study(rows, axis_label=""), rows) == {}
    assert curves_of(study(rows, axis_label="pairs"), rows)


def test_a_row_of_panels_has_lines_for_the_variants_that_it_shows(tmp_path: Path) -> None:
    """A fourth panel, of two of three variants, is as tall as a row of two."""
    rows = [
        row for side in (8, 16, 32)
        for row in make_rows({"few": [1.0], "many": [2.0], "all": [3.0]}, resolution=side)
    ]  # fmt: skip

    def height(*members: str) -> int:
        fourth = make_rows({key: [float(i)] for i, key in enumerate(members)}, resolution=64)
        found = study(rows + fourth, variants=VARIANTS, metrics=("fd",))
        assert draw_study(found, QUALITY, tmp_path / "x.png") is not None
        with Image.open(tmp_path / "x.png") as image:
            return image.height

    assert height("few", "many", "all") > height("few", "all") == height("many", "all")


@pytest.mark.parametrize("axis_metric", ["", "fd"])
def test_a_variant_that_is_a_diffusion_model_is_drawn_beside_the_others(axis_metric: str) -> None:
    rows = make_rows({"few": [1.0]}) + make_rows({"many": [2.0]}, generator="teacher")
    rows = [dataclasses.replace(r, metric="seconds_per_image", protocol="s") for r in rows]
    found = study(rows, metrics=("seconds_per_image",), axis_metric=axis_metric)
    drawn = [curves_of(found, panel) for panel in panels_of(found, COST).values()]
    expected = [] if axis_metric else [[1e3, 2e3]]
    assert [[v for values in c[""].values() for v in values] for c in drawn if c] == expected


def test_a_teacher_that_differs_along_the_axis_stands_beside_its_students() -> None:
    """A curve each; one at a single place, or over no numeric axis, is none."""

    def drawn(
        teachers: dict[str, list[float]], label: str = "weight"
    ) -> list[dict[str, list[float]]]:
        students = make_rows({"few": [1.0], "many": [2.0]}, generator="student")
        rows = [dataclasses.replace(r, axis={"few": 1.0, "many": 2.0}[r.variant])
                for r in students + make_rows(teachers, generator="teacher")]  # fmt: skip
        series = dict.fromkeys(("few", "many"), "Student")  # one alone is no name of a curve
        found = study(rows, metrics=("fd",), axis_label=label, series=series)
        curves = [curves_of(found, panel) for panel in panels_of(found, QUALITY).values()]
        return [{name: [v for values in c.values() for v in values] for name, c in each.items()}
                for each in curves]  # fmt: skip

    both = {"few": [3.0], "many": [4.0]}
    assert drawn(both) == [{"One-step student": [1.0, 2.0], "Diffusion teacher": [3.0, 4.0]}]
    assert drawn({"few": [3.0]}) == drawn(both, label="") == [{"Student": [1.0, 2.0]}]


def _costs(seed: int, variant: str) -> list[Row]:
    def row(metric: str, protocol: str, value: float) -> Row:
        made = make_rows({variant: [value]}, metric=metric, protocol=protocol, resolution=16)[0]
        return dataclasses.replace(made, training_seed=seed, n=64)

    rows = [("stage_flops", "stage_flops_teacher", 1e12), ("stage_flops", "stage_flops_grow", 2e12),
            ("seconds_per_image", "seconds_per_image_b64", 0.01),
            ("part_seconds_trunk", "part_seconds_trunk_b64", 0.02)]  # fmt: skip
    return [row(*entry) for entry in rows]


def test_a_teacher_is_looked_at_in_the_features_of_what_is_drawn() -> None:
    """A recall in other features than the classifier's stands over the distance in those."""
    rows = []
    for variant, seen, other in (("few", 4.0, 400.0), ("many", 2.0, 200.0)):
        for features, fd in (("fe" * 32, seen), ("fa" * 32, other)):
            name = "classifier" if features == "fe" * 32 else "efficientnet"
            known = {"features": features, "axis": None}
            rows.append(make_row(variant, 0, fd, generator="teacher",
                                 protocol=f"fd_{name}_1k", **known))  # fmt: skip
            rows.append(make_row(variant, 0, 0.5, metric="recall",
                                 protocol=f"recall_{name}_1k_k3", **known))  # fmt: skip
        rows.append(make_row(variant, 0, 0.1, metric="high_frequency", axis=None, features="",
                             protocol="high_frequency_ratio_1k"))  # fmt: skip
    found = study(rows, axis_metric="fd", metrics=("recall", "high_frequency"))
    panels = panels_of(found, QUALITY)
    places = {panel[1]: [*curves_of(found, own)[""]] for panel, own in panels.items()}
    assert places == {
        "recall_classifier_1k_k3": [2.0, 4.0], "recall_efficientnet_1k_k3": [200.0, 400.0],
        "high_frequency_ratio_1k": [2.0, 4.0],
    }  # fmt: skip


def test_the_picture_of_costs_is_of_one_seed(tmp_path: Path) -> None:
    variants = {"few": "1 %"}
    pictures = []
    for seeds in (1, 3):
        rows = [row for seed in range(seeds) for row in _costs(seed, "few")]
        figure = draw_parts(rows, variants, tmp_path)
        pictures.append((tmp_path / figure.file).read_bytes())
        assert "Seed 0" in figure.caption and "batches of 64" in figure.caption
    assert pictures[0] == pictures[1]


def test_the_picture_of_costs_times_the_variants_own_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not its student, enlarged, which has a row at the same size."""
    rows = _costs(0, "few")
    (timed,) = [row for row in rows if row.metric == "seconds_per_image"]
    enlarged = dataclasses.replace(timed, generator="upsampled_base", value=0.001)
    drawn: list[object] = []
    monkeypatch.setattr(study_figures, "_dots", lambda _, table: drawn.append(table))
    draw_parts([*rows, enlarged], {"few": "1 %"}, tmp_path)
    assert drawn == [{"1 %": {timed.generator: 10.0}}]


@pytest.mark.parametrize("stored_before", [False, True])
def test_the_dark_page_turns_plots_and_leaves_images(tmp_path: Path, stored_before: bool) -> None:
    """All three are PNGs with a palette. What a study stored before it said so is told apart, too.

    The page's pictures are those of the study, written and read again.
    """
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), np.uint8)
    figures = (
        draw_same_latents({"few": [images]}, tmp_path, 4),
        draw_edits([("original", images)], tmp_path, 4),
        draw_parts(_costs(0, "few"), {"few": "1 %"}, tmp_path),
    )
    write_study(tmp_path, make_card(figures=figures), make_rows({"few": [1.0]}))
    if stored_before:
        tree = json.loads((tmp_path / CARD).read_text())
        for figure in tree["figures"]:
            del figure["plot"]
        (tmp_path / CARD).write_text(json.dumps(tree))
    found = read_study(tmp_path).card.figures
    assert found == figures
    html = to_html(Document("A page", "", (Section("Pictures", found),)), tmp_path)
    kinds = re.findall(r'class="scroll picture([^"]*)"', html)
    assert kinds == ["", "", " plot"]
