"""The report folder: complete, self-contained, equal for equal experiments, pixels as they are."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagoda.config import Config, ReportConfig
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import report
from pagoda.results import curves, grids
from pagoda.results.experiment import Experiment, History, read_experiment, read_history
from pagoda.results.page import inline
from pagoda.results.report import Uncurated, write_report
from tests.results.synthetic import Page, history_rows, make_config, pictures, write_experiment
from tests.tiny import ROOT

PNGS = {
    "beside-8.png", "beside-16.png", "beside-32.png",
    "samples.png", "teacher_vs_student.png", "generators-16.png", "generators-32.png",
    "neighbours.png", "distances-fd_classifier_2k.png", "curves-features.png",
    "curves-teacher.png", "curves-distill.png", "curves-grow-16.png", "curves-grow-32.png",
}  # fmt: skip


def test_the_folder_holds_all_parts(finished: tuple[Config, Path]) -> None:
    _, folder = finished
    files = {f.name for f in folder.iterdir()}
    assert files == PNGS | {"report.md", "index.html", "results.csv", "facts.json",
                           "curves.tsv"}  # fmt: skip
    assert sorted(f.name for f in folder.parent.iterdir()) == ["b8"]
    metrics = json.loads((folder.parents[2] / "metrics.json").read_text())
    assert metrics["final"]["fd_classifier_2k"] == 37.4


def test_markdown_links_only_what_is_there(finished: tuple[Config, Path]) -> None:
    _, folder = finished
    text = (folder / "report.md").read_text()
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert sorted(linked) == sorted(PNGS)
    assert text.count("not selected") == 6
    assert "4 of 6 rules hold" in text
    assert "distance of **37.4** from the data (80.6 without growth, 0.288 for real" in text
    assert "seed 7" in text


def test_the_page_needs_nothing_else(finished: tuple[Config, Path]) -> None:
    _, folder = finished
    html = (folder / "index.html").read_text()
    parser = Page()
    parser.feed(html)
    assert parser.open == []
    images = [link for link in parser.links if link.startswith("data:image/png;base64,")]
    embedded = {base64.b64decode(link.split(",")[1]) for link in images}
    assert embedded == {(folder / name).read_bytes() for name in PNGS}
    anchors = [link for link in parser.links if not link.startswith("data:")]
    assert all(link.startswith("#") and f'id="{link[1:]}"' in html for link in anchors)
    assert "http" not in re.sub(r"base64,[^\"]+", "", html)
    (packed,) = re.findall(r'id="library">([^<]+)<', html)
    library = gzip.decompress(base64.b64decode(packed)).decode()
    assert "vegaLite" in library
    assert "prefers-color-scheme: dark" in html


def test_charts_hold_every_point_of_the_losses(finished: tuple[Config, Path]) -> None:
    """The specifications on the page are the curves table, a chart a stage and kind of loss."""
    _, folder = finished
    html = (folder / "index.html").read_text()
    specs = [json.loads(text) for text in
             re.findall(r'<script type="application/json">(.+?)</script>', html, re.S)]  # fmt: skip
    drawn = [line.split("\t")[2:] for spec in specs
             for line in spec["data"]["values"].splitlines()[1:]]  # fmt: skip
    told = [line.split("\t")[1:] for line in (folder / "curves.tsv").read_text().splitlines()[1:]]
    assert sorted(drawn) == sorted(told) and len(specs) > 5
    assert all(spec["encoding"]["x"]["field"] == "images" for spec in specs)


def test_real_images_of_a_class_stand_left_of_its_samples(finished: tuple[Config, Path]) -> None:
    """Transparent between images; a class without held-out images has none, not another's."""
    _, folder = finished
    shown = np.asarray(Image.open(folder / "beside-32.png"))
    samples, real = pictures((2, 10, 8), 32, 1)[0], pictures((2,), 32, 0)
    big = [x.transpose(1, 2, 0).repeat(2, 0).repeat(2, 1) for x in (real[1], samples[1, 2])]
    y = 64 + 5
    assert (shown[y : y + 64, :64, :3] == big[0]).all()
    assert (shown[y : y + 64, -64:, :3] == big[1]).all()
    assert (shown[:, 64 * 3 + 15 : 64 * 3 + 25, 3] == 0).all()
    assert (shown[2 * y : 2 * y + 64, :64] == 255).all()  # no image of that class


def test_a_box_that_scrolls_is_not_styled_as_the_summarys_second_line() -> None:
    """``more`` is a class of both: each of its rules says of which."""
    css = (ROOT / "pagoda/results/web/page.css").read_text()
    found = set(re.findall(r"[\w.]*\.more\b", css))
    assert found == {"p.more", ".scroll.more"}


def test_text_is_escaped_before_it_is_marked_up() -> None:
    assert inline("a < b & **c** `<first_long>` `fd_classifier`") == (
        "a &lt; b &amp; <strong>c</strong> <code>&lt;first_<wbr>long&gt;</code> "
        "<code>fd_classifier</code>"
    )


@pytest.mark.parametrize(
    ("target", "linked"),
    [("claims.md", True), ("../a/b.csv#x:y", True), ("https://arxiv.org/abs/1", True),
     ("#other-ways", True), ("javascript:alert%281%29", False), ("data:text/html,x", False)],
)  # fmt: skip
def test_links_are_to_files_and_the_web_alone(target: str, linked: bool) -> None:
    assert (f'<a href="{target}">' in inline(f"[x]({target})")) == linked


@pytest.mark.longer
def test_equal_experiments_give_equal_reports(
    finished: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = finished
    monkeypatch.chdir(tmp_path)
    write_experiment(config)
    report.run(config)
    for file in folder.iterdir():
        assert (tmp_path / Paths(config).report / file.name).read_bytes() == file.read_bytes()


@pytest.mark.longer
def test_an_old_report_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config(base_res=32)
    write_experiment(config, columns=1)
    folder, metrics = Paths(config).report, tmp_path / "metrics.json"
    folder.mkdir(parents=True)
    (folder / "report.md").write_text("old")
    experiment = read_experiment(config)
    with pytest.raises(KeyError):
        write_report(dataclasses.replace(experiment, latents={}), folder, metrics)
    assert (folder / "report.md").read_text() == "old"
    assert [f.name for f in folder.parent.iterdir()] == ["b32"]
    write_report(experiment, folder, metrics)
    assert (folder / "report.md").read_text().startswith("# smoke: 32×32\n")
    assert [f.name for f in folder.parent.iterdir()] == ["b32"]
    (folder / "curves of mine.ods").write_text("mine")
    with pytest.raises(PagodaError, match=r"b32 holds curves of mine\.ods, which pagoda did not"):
        write_report(experiment, folder, metrics)
    assert (folder / "curves of mine.ods").read_text() == "mine"
    with pytest.raises(PagodaError, match=r"cannot write .*metrics.json is no folder"):
        write_report(experiment, metrics / "b32", metrics)


def test_uncurated_samples_are_all_there_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small_experiment(tmp_path, monkeypatch)
    colours = np.random.default_rng(0).integers(0, 200, (2, 9, 3), np.uint8)
    images = np.broadcast_to(colours[..., None, None], (2, 9, 3, 28, 28))
    folder = Paths(experiment.config).report
    write_report(experiment, folder, tmp_path / "metrics.json",
                 uncurated=Uncurated("gen", ("disc", "ring"), images))  # fmt: skip
    shown, corners = np.asarray(Image.open(folder / "uncurated.png").convert("RGB")), []
    for colour in colours.reshape(-1, 3):
        where = np.argwhere((shown == colour).all(-1))
        assert len(where) == 56 * 56 and (np.ptp(where, axis=0) == 55).all()
        corners.append(where[0])
    rows, columns = np.array(corners).reshape(2, 3, 3, 2).transpose(3, 0, 1, 2)
    assert (rows == rows[:1, :, :1]).all() and (np.diff(rows, axis=1) > 0).all()
    assert (np.diff(columns, axis=2) > 0).all() and columns[0].max() < columns[1].min()
    text = (folder / "report.md").read_text()
    assert "## Uncurated samples" in text and "first 9 latents" in text
    assert "--classes disc,ring --seeds 0-8" in text


def small_experiment(folder: Path, patch: pytest.MonkeyPatch) -> Experiment:
    """One resolution, read back from an empty working folder."""
    patch.chdir(folder)
    config = make_config(base_res=32)
    write_experiment(config, columns=1)
    return read_experiment(config)


@pytest.mark.longer
def test_a_report_shows_no_real_image_where_terms_forbid_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small_experiment(tmp_path, monkeypatch)
    config = experiment.config
    hidden = dataclasses.replace(config, report=ReportConfig(real_images=False))
    folder = Paths(config).report
    for shown in (config, hidden):
        experiment = dataclasses.replace(experiment, config=shown)
        write_report(experiment, folder, tmp_path / "metrics.json")
        assert (folder / "neighbours.png").exists() == shown.report.real_images
        text = (folder / "report.md").read_text() + (folder / "index.html").read_text()
        assert ("Nearest real images" in text) == shown.report.real_images


@pytest.mark.longer
def test_a_report_tells_how_many_settings_were_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small_experiment(tmp_path, monkeypatch)
    config = experiment.config
    for tried, told in ((None, False), (13, True)):
        report = dataclasses.replace(config.report, settings_tried=tried)
        shown = dataclasses.replace(experiment, config=dataclasses.replace(config, report=report))
        write_report(shown, Paths(config).report, tmp_path / "metrics.json")
        text = (Paths(config).report / "report.md").read_text()
        assert ("| Settings tried | 13" in text) == told


def _cells(path: Path, expected: np.ndarray, cell: int) -> tuple[int, int]:
    """Where an enlarged image is in a picture; fails if it is not there exactly once a pixel."""
    page = np.asarray(Image.open(path).convert("RGB"))
    big = expected.transpose(1, 2, 0).repeat(cell // expected.shape[-1], 0)
    big = big.repeat(cell // expected.shape[-1], 1)
    height, width = page.shape[0] - cell + 1, page.shape[1] - cell + 1
    corners = np.argwhere((page[:height, :width] == big[0, 0]).all(-1))
    hits = [(y, x) for y, x in corners if (page[y : y + cell, x : x + cell] == big).all()]
    assert len(hits) == 1
    return int(hits[0][0]), int(hits[0][1])


def test_samples_are_the_arrays_pixel_by_pixel(finished: tuple[Config, Path]) -> None:
    """Same class, same row; same latent, same column of its group; resolutions left to right."""
    _, folder = finished
    grid = folder / "samples.png"
    arrays = {r: pictures((2, 10, 8), r, 1)[0] for r in (8, 16, 32)}
    places = {r: _cells(grid, array[3, 2], 64) for r, array in arrays.items()}
    assert len({y for y, _ in places.values()}) == 1
    assert places[8][1] < places[16][1] < places[32][1]
    for r, array in arrays.items():
        y, x = _cells(grid, array[4, 3], 64)
        assert (y - places[r][0], x - places[r][1]) == (67, 67)


def test_the_teacher_stands_beside_its_student(finished: tuple[Config, Path]) -> None:
    _, folder = finished
    student, teacher = pictures((2, 10, 8), 8, 1)
    left = _cells(folder / "teacher_vs_student.png", student[0, 0], 56)
    right = _cells(folder / "teacher_vs_student.png", teacher[0, 0], 56)
    assert left[0] == right[0]
    assert left[1] < right[1]


def test_neighbours_stand_right_of_their_samples(finished: tuple[Config, Path]) -> None:
    _, folder = finished
    samples, nearest = pictures((2, 10, 8), 32, 1)[0], pictures((1, 10, 4), 32, 2)[0]
    for label, column in ((0, 0), (7, 3)):
        y, x = _cells(folder / "neighbours.png", samples[label, column], 64)
        assert _cells(folder / "neighbours.png", nearest[label, column], 64) == (y, x + 67)


def test_large_grids_are_cut_not_squeezed(tmp_path: Path) -> None:
    groups = [grids.Group(str(r), np.zeros((40, 30, 3, r, r), np.uint8)) for r in (256, 512)]
    grid = grids.draw(groups, tuple(f"class {i}" for i in range(40)), tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as image:
        assert image.width <= 1800
        assert image.height < 16 * 140 + 100
    assert grid.classes == 16
    assert 1 < grid.columns < 10


def test_a_stage_without_curves_has_no_figure(tmp_path: Path) -> None:
    path = tmp_path / "c.png"
    rows = tuple(history_rows("invert", 4096))
    assert curves.draw_history(History("invert", rows), path) is None
    assert not path.exists()
    assert curves.draw_history(History("teacher", ()), path) is None


@pytest.mark.parametrize("rows", [2, 39, 40, 500])
def test_curves_of_any_length_are_drawn(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "c.png"
    history = History("distill", tuple(history_rows("distill", 19200, rows)))
    width = curves.draw_history(history, path)
    assert width is not None
    with Image.open(path) as image:
        assert image.width > width  # more pixels than CSS pixels: sharp in print


def test_histories_of_an_experiment_round_trip(finished: tuple[Config, Path]) -> None:
    config, folder = finished
    path = folder.parents[2] / Paths(config).history("grow-16")
    assert read_history(path, "grow-16").rows == tuple(history_rows("grow-16", 12000))
