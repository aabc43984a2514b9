"""``pagoda compare``: images against images of the same number and size."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pagoda.errors import PagodaError
from pagoda.evaluation import pairs
from pagoda.evaluation.metrics.high_frequency import high_frequency_energy, high_frequency_error
from pagoda.evaluation.metrics.image_pairs import psnr
from pagoda.evaluation.metrics.ssim import ssim
from pagoda.pipeline.cli import app
from pagoda.pipeline.stages import compare
from pagoda.pipeline.stages.score import Source
from tests.evaluation.pictures import pictures, write_folder, write_zip

ALL = "mse,psnr,ssim,hf"


def run(first: str, second: str, metrics: str = ALL, **changes: Any) -> dict[str, Any]:
    out = changes.pop("out", None)
    return compare.run(
        Source(Path(first), **changes), Source(Path(second)), metrics, "alex", None, out
    )


def nchw(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "originals.zip", pictures(30, seed=1))
    np.savez(tmp_path / "made.npz", pictures(30, seed=2))
    return tmp_path


def test_values_are_means_over_pairs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_BLOCK", 7)
    tree = run("made.npz", "originals.zip", out=Path("rows.json"))
    assert json.loads(Path("rows.json").read_text(encoding="utf-8")) == tree
    rows = {row["protocol"]: row for row in tree["rows"]}
    x, y = nchw(pictures(30, seed=2)), nchw(pictures(30, seed=1))
    expected = {
        "mse_pixels_30": np.mean(((x.astype(float) - y) / 127.5) ** 2),
        "psnr_pixels_30": psnr(x, y).mean(),
        "ssim_pixels_30": ssim(x, y).mean(),
        "hf_mse_pixels_30": high_frequency_error(x, y),
        "hf_ratio_pixels_30": high_frequency_energy(x) / high_frequency_energy(y),
    }
    for name, value in expected.items():
        assert rows[name]["value"] == pytest.approx(value, rel=1e-5)
        if "interval" in rows[name]:
            assert rows[name]["low"] < rows[name]["value"] < rows[name]["high"]
    assert set(rows) == {*expected, "hf_share_pixels_30", "hf_share_second_pixels_30"}


NAMES = [
    ("{}.png", "{:04d}.png", "number"),
    ("{}.png", "{}.bmp", "name"),
    ("img{:08d}.png", "{}.png", "number"),
    ("cat/{}.png", "made/cat/{:03d}.png", "folder and number"),
    ("a{}/x.png", "out/a{}/x.png", "folder"),
    ("0/{}.png", "1/{}.png", "name, folders aside"),
    ("{}.png", None, "number and row"),
    (None, "{}.png", "row and number"),
]


@pytest.mark.parametrize(("first", "second", "rule"), NAMES, ids=[n[2] for n in NAMES])
def test_pairs_are_files_of_one_name_or_number(
    tmp_path: Path, first: str | None, second: str | None, rule: str
) -> None:
    """12 files: 0, 1, 10, 11, 2 ... in the order of text."""
    images = pictures(12)
    lighter = np.minimum(images, 253) + np.uint8(2)
    for folder, name, content in (("x", first, images), ("y", second, lighter)):
        if name is None:
            np.savez(tmp_path / f"{folder}.npz", content)
        for i in range(12 if name else 0):
            path = tmp_path / folder / str(name).format(i)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content[i]).save(path)
    places = [tmp_path / (f if name else f"{f}.npz") for f, name in (("x", first), ("y", second))]
    row = run(str(places[0]), str(places[1]), "psnr")["rows"][0]
    gaps = (images.astype(float) - lighter) ** 2
    assert row["value"] == pytest.approx(np.mean(-10 * np.log10(gaps.mean((1, 2, 3)) / 255**2)))


@pytest.mark.parametrize(
    ("first", "second", "alone"),
    [
        (["a.png", "b.png"], ["a.png", "c.png"], "b.png"),
        (["1.png", "2.png"], ["1.png", "3.png"], "2.png"),
        (["a.png", "a.jpg"], ["a.png", "b.png"], r"a\.(png|jpg) has no partner of its own"),
        (["1.png", "01.png"], ["1.png", "2.png"], "01.png"),
    ],
)
def test_names_that_do_not_correspond_are_refused(
    tmp_path: Path, first: list[str], second: list[str], alone: str
) -> None:
    for folder, names in (("x", first), ("y", second)):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(pictures(1)[0]).save(tmp_path / folder / name)
    with pytest.raises(PagodaError, match=r"names in .* do not correspond") as error:
        run(str(tmp_path / "x"), str(tmp_path / "y"), "psnr")
    assert re.search(alone, str(error.value)) and "\n" not in str(error.value)


def test_equal_images_have_no_finite_psnr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {r["metric"]: r for r in run("made.npz", "made.npz", out=Path("o.json"))["rows"]}
    assert rows["psnr"]["value"] is None and rows["mse"]["value"] == 0
    assert rows["ssim"]["value"] == pytest.approx(1) and rows["hf_ratio"]["value"] == 1
    assert "infinite: there are equal pairs" in capsys.readouterr().out


def test_exif_turns_both_sets(folder: Path) -> None:
    lying = Image.Exif()
    lying[0x0112] = 6
    for i, pixels in enumerate(pictures(3)):
        for kind, stored, exif in (("upright", pixels, None), ("phone", np.rot90(pixels), lying)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(stored).save(folder / kind / f"{i}.png", exif=exif)
    for options, equal in (([], False), (["--exif"], True)):
        for pair in (("phone", "upright"), ("upright", "phone")):
            asked = ["compare", *pair, "--metrics", "mse", "--out", "o.json", *options]
            assert CliRunner().invoke(app, asked).exit_code == 0
            tree = json.loads(Path("o.json").read_text(encoding="utf-8"))
            assert (tree["rows"][0]["value"] == 0) == equal == tree["first"].get("exif", False)


def test_trouble_is_one_line(folder: Path) -> None:
    write_folder(folder / "few", pictures(9, seed=3))
    write_zip(folder / "small.zip", pictures(30, 8))
    np.savez(folder / "wide.npz", pictures(9, seed=3)[:, :, :12])
    assert run("wide.npz", "wide.npz", "mse,ssim")["rows"][0]["value"] == 0  # only hf needs squares
    cases: list[tuple[tuple[str, str], dict[str, Any], str]] = [
        (("few", "originals.zip"), {}, "9 of 24x24 in few, 30 of .* in originals.zip"),
        (("small.zip", "originals.zip"), {}, "30 of 8x8 in small.zip"),
        (("small.zip", "small.zip"), {"metrics": "ssim"}, "window of 11 pixels"),
        (("wide.npz", "wide.npz"), {"metrics": "hf"}, "hf takes square images"),
        (("wide.npz", "few"), {"metrics": "mse"}, "9 of 12x24 in wide.npz, 9 of 24x24 in few"),
        (("few", "few"), {"metrics": "fid"}, "--metrics 'fid' is unknown; known: mse"),
        (("few", "few"), {"metrics": ","}, "is unknown"),
        (("few", "few"), {"out": Path("made.npz/x")}, "cannot write"),
    ]
    for names, changes, wanted in cases:
        with pytest.raises(PagodaError, match=wanted) as raised:
            run(*names, **changes)
        assert "\n" not in str(raised.value)


def test_two_pairs_leave_room_for_no_negative_error(folder: Path) -> None:
    """Student's factor is 12.7 there: below 0 nothing can be; SSIM can."""
    images = pictures(2, seed=3)
    off = images.copy()
    off[0] //= 2
    np.savez(folder / "two.npz", images)
    np.savez(folder / "off.npz", off)
    rows = {row["metric"]: row for row in run("two.npz", "off.npz", "mse,ssim")["rows"]}
    assert rows["mse"]["low"] == 0 < rows["mse"]["value"] < rows["mse"]["high"]
    assert -1 <= rows["ssim"]["low"] < 0 < rows["ssim"]["value"] < rows["ssim"]["high"] == 1
