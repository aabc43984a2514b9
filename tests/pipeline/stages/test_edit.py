"""``pagoda edit``: pictures in, one picture out, and one line for what cannot be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pagoda
from pagoda.artifacts import open_artifact
from pagoda.data.store import open_images
from pagoda.editing.edits import transfer
from pagoda.models import Generator, Teacher
from pagoda.pipeline import cli
from tests.tiny_run import GEN, TEACHER


@pytest.fixture
def run(linked_run: Path) -> Path:
    """A folder with the run, two pictures of class 3, a small one, and masks."""
    images = open_images(open_artifact("runs/tiny/data/16", "images"), "test")
    for name, row in (("a", 3), ("b", 13)):
        save(f"{name}.png", images[row].transpose(1, 2, 0))
    small = open_images(open_artifact("runs/tiny/data/8", "images"), "test")
    save("small.png", small[3].transpose(1, 2, 0))
    mask = np.full((16, 16), 255, np.uint8)
    save("white.png", mask)
    mask[4:12, 4:12] = 0
    save("mask.png", mask)
    save("black.png", 0 * mask)
    save("grey.png", mask // 2)
    Path("text.png").write_text("no picture", encoding="utf-8")
    return linked_run


def save(name: str, pixels: np.ndarray) -> None:
    Image.fromarray(np.ascontiguousarray(pixels)).save(name)


def edit(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pagoda", "edit", *words.split()])
    try:
        cli.main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def pixels(name: str) -> np.ndarray:
    return np.asarray(Image.open(name))


def test_holes_are_filled_and_the_rest_is_the_files(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"inpaint {GEN} a.png b.png --mask mask.png --class ring --steps 3 --answers 2"
    assert edit(monkeypatch, f"{words} --out x.png") == 0
    whole, held = pixels("x.png"), pixels("mask.png") > 0
    assert whole.shape == (32, 32, 3)
    for line, name in enumerate("ab"):
        for column in range(2):
            part = whole[16 * line :, 16 * column :][:16, :16]
            np.testing.assert_array_equal(part[held], pixels(f"{name}.png")[held])
    assert (whole[4:12, 4:12] != whole[4:12, 20:28]).any()  # two answers
    with Image.open("x.png") as image:
        about = json.loads(image.text["pagoda"])  # type: ignore[attr-defined]
    assert about["edit"] == "inpaint" and about["source"] == GEN and about["calls"] == 6
    assert edit(monkeypatch, f"{words} --out x.png --seed 1") == 0  # takes the place of its own
    assert (pixels("x.png") != whole).any()


def test_an_enlarged_picture_has_the_means_it_was_given(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert edit(monkeypatch, f"super-resolve {GEN} small.png --class 3 --out x.png") == 0
    means = pixels("x.png").reshape(8, 2, 8, 2, 3).mean((1, 3))
    inside = (pixels("x.png") > 0) & (pixels("x.png") < 255)  # elsewhere values were cut off
    sure = inside.reshape(8, 2, 8, 2, 3).all((1, 3))
    assert sure.any()
    assert np.abs(means - pixels("small.png"))[sure].max() <= 0.5


def test_transfer_and_paths_are_those_of_the_functions(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"transfer {GEN} a.png --class 3 --to disc,7 --out x.png --teacher {TEACHER}"
    assert edit(monkeypatch, words) == 0
    g, t = pagoda.load(GEN), pagoda.load(TEACHER)
    assert isinstance(g, Generator) and isinstance(t, Teacher)
    image = pixels("a.png").transpose(2, 0, 1)[None].copy()
    wanted = [transfer(g, t, image, 3, y).images[0, 0].permute(1, 2, 0).numpy() for y in (0, 7)]
    levels = (np.clip(np.concatenate(wanted, 1), -1, 1) + 1) * 127.5
    assert np.abs(pixels("x.png") - levels).max() <= 0.51
    assert edit(monkeypatch, f"interpolate {GEN} a.png b.png --class 3 --frames 4 --out y.png") == 0
    assert pixels("y.png").shape == (16, 64, 3)


def test_an_edit_never_replaces_what_it_edits(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"transfer {GEN} a.png --class 3 --to 3 --out x.png"
    assert edit(monkeypatch, words) == 0
    made = Path("x.png").read_bytes()
    assert edit(monkeypatch, words.replace("a.png", "x.png")) == 1
    assert "x.png is one of the files to edit, so it stays" in capsys.readouterr().err
    assert Path("x.png").read_bytes() == made


INPAINT = f"inpaint {GEN} a.png --class 3 --steps 1 --out x.png --mask"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (f"{INPAINT} white.png", "white.png has no hole: all of it is white"),
        (f"{INPAINT} black.png", "black.png is all black: nothing is kept"),
        (f"{INPAINT} grey.png", "grey.png is no mask: it has greys"),
        (f"{INPAINT} small.png", "small.png has 8 x 8 pixels; the mask is as large"),
        (f"{INPAINT} none.png", "there is no file none.png"),
        (f"{INPAINT} text.png", "text.png is no PNG, JPEG, WebP or BMP"),
        (f"{INPAINT} mask.png --norm round", "--norm round; it is one of cache, sphere, free"),
        (f"{INPAINT} mask.png --lr 0", "a search of 1 steps with lr = 0"),
        (f"inpaint {GEN} small.png --class 3 --out x.png --mask mask.png", "16 x 16 are needed"),
        (f"inpaint {GEN} mask.png --class 3 --out x.png --mask mask.png", "is of mode L, not RGB"),
        (f"super-resolve {GEN} a.png --class 3 --out x.png", "16 x 16 pixels cannot become 16"),
        (f"super-resolve {GEN} small.png --class cube --out x.png", "there is no class 'cube'"),
        (f"super-resolve {GEN} small.png --class 3 --out a.png", "a.png is not of pagoda's making"),
        (f"super-resolve {GEN} small.png --class 3 --out x.jpg", "--out x.jpg; it is a picture"),
        (f"super-resolve {TEACHER} small.png --class 3 --out x.png", "is a teacher; edits are"),
        ("super-resolve runs small.png --class 3 --out x.png", "runs is no generator or teacher"),
        (f"super-resolve {GEN} small.png --class 3 --out x.png --teacher {GEN}", "is a generator;"),
        ("super-resolve runs/tiny/b8/gen/8 small.png --class 3 --out x.png", "with --teacher"),
        (f"transfer {GEN} a.png --class 3 --to 3,12 --out x.png", "there is no class 12"),
        (f"interpolate {GEN} a.png --class 3 --out x.png", "a path is between 2 images, not 1"),
        (f"interpolate {GEN} a.png small.png --class 3 --out x.png", "squares of one size"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str,
    line: str,
) -> None:  # fmt: skip
    before = {f: f.read_bytes() for f in run.glob("*.*")}
    assert edit(monkeypatch, words) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and line in said and said.count("\n") == 1
    assert {f: f.read_bytes() for f in run.glob("*.*")} == before
