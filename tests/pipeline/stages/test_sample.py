"""``pagoda sample``: the same samples in every form, and nothing of a user's replaced."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pagoda
from pagoda import distributed
from pagoda.config import parse
from pagoda.errors import PagodaError
from pagoda.evaluation.files import open_images
from pagoda.evaluation.samplers import Sampler
from pagoda.pipeline import cli
from pagoda.pipeline.stages import report, sample
from pagoda.pipeline.stages.sample import Request, numbers
from pagoda.results import grids
from tests.group import run_group
from tests.tiny import tiny_tree
from tests.tiny_run import GEN, TEACHER

FORMS = "some", "x.npz", "x.png"


@pytest.fixture
def run(linked_run: Path) -> Path:
    return linked_run


def draw(out: str, **options: Any) -> None:
    given = {"classes": "3,square", "seeds": "0-2,9", **options}
    sample.run(Request(given.pop("source", GEN), Path(out), **given))


def wanted() -> np.ndarray:
    return pagoda.load(GEN).sample([3, 1], [0, 1, 2, 9])


def test_every_form_holds_the_same_samples(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sample, "_BLOCK", 1)  # blocks of one call
    for out in FORMS:
        draw(out)
        assert "8 images in" in (said := capsys.readouterr().err) and "images/s" in said
    expected = wanted()
    with np.load("x.npz") as file:
        np.testing.assert_array_equal(file["arr_0"].transpose(0, 3, 1, 2), expected)
        assert file["labels"].tolist() == [3] * 4 + [1] * 4
        assert file["seeds"].tolist() == [0, 1, 2, 9] * 2
        about = json.loads(file["pagoda"].item())
    assert about["classes"] == {"3": "ring", "1": "square"} and about["seeds"] == "0-2,9"
    files = [f"some/{y}/{seed:04}.png" for y in (3, 1) for seed in (0, 1, 2, 9)]
    for file, image in zip(files, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)).transpose(2, 0, 1), image)
    with Image.open("x.png") as grid:
        assert json.loads(grid.info["pagoda"]) == about
        assert all(len(shown_in(np.asarray(grid), image)) == 1 for image in expected)
    # what the evaluation reads
    np.testing.assert_array_equal(open_images(Path("x.npz")).read(np.arange(8)), expected)
    in_folder = open_images(Path("some")).read(np.arange(8))  # in the order of names
    np.testing.assert_array_equal(in_folder, expected[[4, 5, 6, 7, 0, 1, 2, 3]])


def shown_in(grid: np.ndarray, image: np.ndarray) -> list[tuple[int, int]]:
    """Where in a grid an image (3, r, r) is, each pixel enlarged by a whole factor."""
    factor = grids._whole_cell(image.shape[-1]) // image.shape[-1]
    large = image.repeat(factor, 1).repeat(factor, 2).transpose(1, 2, 0)
    size = len(large)
    corners = np.argwhere((grid[: 1 - size, : 1 - size] == large[0, 0]).all(-1))
    return [(y, x) for y, x in corners.tolist() if (grid[y:, x:][:size, :size] == large).all()]


@pytest.mark.longer
def test_two_processes_write_the_bytes_of_one(run: Path) -> None:
    """Blocks of one call each: six, of which the last is not full."""
    for out in FORMS:
        draw(out, seeds="0-20")
    (run / "two").mkdir()
    (run / "two/runs").symlink_to(run / "runs")
    assert run_group(2, _draw_all, folder=run / "two") == [0, 0]
    for out in FORMS:
        assert contents(run / "two" / out) == contents(run / out)


def _draw_all() -> None:
    sample._BLOCK = 1
    with distributed.group():
        for out in FORMS:
            draw(out, seeds="0-20")


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return {"" if f == path else f.relative_to(path).as_posix(): f.read_bytes() for f in files}


def test_a_teacher_takes_steps_and_truncation(run: Path) -> None:
    draw("t.npz", source=TEACHER, classes="3,1", steps=5, truncation=0.7)
    teacher = pagoda.load(TEACHER)
    assert isinstance(teacher, pagoda.Teacher)
    expected = teacher.sample([3, 1], [0, 1, 2, 9], steps=5, truncation=0.7)
    with np.load("t.npz") as file:
        np.testing.assert_array_equal(file["arr_0"].transpose(0, 3, 1, 2), expected)
        assert json.loads(file["pagoda"].item())["nfe"] == 9


def test_samples_replace_samples_and_nothing_else(run: Path) -> None:
    for out in FORMS:
        draw(out)
        draw(out, seeds="0")  # ours: replaced
    assert [f.name for f in Path("some/3").iterdir()] == ["0000.png"]
    Path("some/notes.txt").write_text("mine", encoding="utf-8")
    Image.new("RGB", (8, 8)).save("photo.png")
    np.savez("mine.npz", arr_0=np.zeros(3))
    with np.load("x.npz") as made:
        np.savez("more.npz", mine=np.zeros(3), **made)
    Path("album/3").mkdir(parents=True)
    shutil.copy("photo.png", "album/3/0000.png")
    Path("broken.png").write_bytes(b"no picture")
    before = contents(run)
    for out, line in (
        ("some", "some holds notes.txt"),
        ("photo.png", "is not of 'pagoda sample'"),
        ("mine.npz", "is not of 'pagoda sample'"),
        ("more.npz", "is not of 'pagoda sample'"),
        ("broken.png", "is not of 'pagoda sample'"),
        ("album", "has no samples.json"),
        ("runs", "symbolic link"),
    ):
        with pytest.raises(PagodaError, match=line):
            draw(out)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"classes": "11"}, "no class 11"),
        ({"classes": "bird"}, "no class 'bird'"),
        ({"classes": "ring,3"}, "--classes ring,3 names one twice"),
        ({"seeds": "3-"}, "whole numbers and ranges"),
        ({"seeds": "9-3"}, "whole numbers and ranges"),
        ({"seeds": "1,1"}, "twice"),
        ({"seeds": "0-99999999"}, "more than 10,000,000"),
        ({"classes": "0-9", "seeds": "0-1999999"}, "more than 10,000,000"),
        ({"source": "nowhere"}, "there is no nowhere; give the folder"),
        ({"source": "runs/tiny/b8"}, "there is .*gen/16"),
        ({"steps": 4}, "in one step"),
        ({"guidance": 2.0}, "told no weight"),
        ({"interval": "0.1,5"}, "--interval and --guide are of a teacher"),
        ({"source": TEACHER, "classes": "1", "interval": "5,1"}, "two rising noise levels"),
        ({"source": TEACHER, "classes": "1", "guide": "ema-0.1-000000002"}, "no snapshot"),
        ({"source": TEACHER, "classes": "1", "guidance": 2.0}, "every class told"),
        ({"out": "x.jpg"}, "a grid"),
        ({"out": "x.PNG"}, "a grid"),
        ({"out": "x.png", "seeds": "0-99999"}, "too many for one picture"),
    ],
)
def test_mistakes_write_nothing(run: Path, options: dict[str, Any], line: str) -> None:
    before = sorted(run.iterdir())
    with pytest.raises(PagodaError, match=line) as caught:
        draw(options.pop("out", "x.npz"), **options)
    assert "\n" not in str(caught.value) and sorted(run.iterdir()) == before


def test_an_interruption_leaves_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sampler, "read", interrupted)
    before = sorted(run.iterdir())
    for out in FORMS:
        with pytest.raises(KeyboardInterrupt):
            draw(out)
    assert sorted(run.iterdir()) == before


def test_the_report_shows_what_the_command_makes(run: Path) -> None:
    config = parse(tiny_tree(target_res=16, seed=3))
    found = report.uncurated(config, ("disc", "square", "ring"))
    assert found is not None and (found.generator, found.classes) == (GEN, ("disc", "square"))
    sample.run(Request(GEN, Path("x.npz"), "0,1", "0-63"))
    with np.load("x.npz") as made:
        flat = found.images.reshape(-1, 3, 16, 16).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(flat, made["arr_0"])
    other = parse(tiny_tree(target_res=32))
    assert report.uncurated(other, ("disc",)) is None  # its generator is not there


def test_lists_of_numbers() -> None:
    assert numbers("0-3, 9,7-7", "--seeds") == [0, 1, 2, 3, 9, 7]


def test_the_command(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["sample", GEN, "--classes", "3,square", "--seeds", "0-2,9", "--out", "y.npz"]
    monkeypatch.setattr(sys, "argv", ["pagoda", *line, "--batch", "8"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    with np.load("y.npz") as file:
        np.testing.assert_array_equal(file["arr_0"].transpose(0, 3, 1, 2), wanted())


def test_a_grid_breaks_lines_and_keeps_all() -> None:
    images = np.random.default_rng(0).integers(0, 255, (2, 20, 3, 56, 56), dtype=np.uint8)
    grid = np.asarray(grids.class_grid(images, ["a", "b"], "title"))
    where = [shown_in(grid, image) for image in images.reshape(-1, 3, 56, 56)]
    assert all(len(found) == 1 for found in where)
    rows = np.array([found[0][0] for found in where]).reshape(2, 20)
    assert (np.diff(rows.ravel()) >= 0).all() and len(np.unique(rows)) == 4
