"""``pagoda compare``: images against images of the same number and size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation import pairs
from pagoda.metrics.high_frequency import high_frequency_energy, high_frequency_error
from pagoda.metrics.psnr import psnr
from pagoda.metrics.ssim import ssim
from pagoda.stages import compare
from pagoda.stages.request import Source
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
    assert json.loads(Path("rows.json").read_text()) == tree
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
        if rows[name]["interval"]:
            assert rows[name]["low"] < rows[name]["value"] < rows[name]["high"]
    assert set(rows) == {*expected, "hf_share_pixels_30", "hf_share_second_pixels_30"}


def test_equal_images_have_no_finite_psnr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {r["metric"]: r for r in run("made.npz", "made.npz", out=Path("o.json"))["rows"]}
    assert rows["psnr"]["value"] is None and rows["mse"]["value"] == 0
    assert rows["ssim"]["value"] == pytest.approx(1) and rows["hf_ratio"]["value"] == 1
    assert "infinite: there are equal pairs" in capsys.readouterr().out


def test_trouble_is_one_line(folder: Path) -> None:
    write_folder(folder / "few", pictures(9, seed=3))
    write_zip(folder / "small.zip", pictures(30, 8))
    np.savez(folder / "wide.npz", pictures(9, seed=3)[:, :, :12])
    assert run("wide.npz", "wide.npz", "mse,ssim")["rows"][0]["value"] == 0  # only hf needs squares
    cases: list[tuple[tuple[str, str], dict[str, Any], str]] = [
        (("few", "originals.zip"), {}, "few has 9 of .* and originals.zip has 30"),
        (("small.zip", "originals.zip"), {}, "equal numbers and equal sizes"),
        (("small.zip", "small.zip"), {"metrics": "ssim"}, "window of 11 pixels"),
        (("wide.npz", "wide.npz"), {"metrics": "hf"}, "hf takes square images"),
        (("wide.npz", "few"), {"metrics": "mse"}, "equal numbers and equal sizes"),
        (("few", "few"), {"metrics": "fid"}, "--metrics 'fid' is unknown; known: mse"),
        (("few", "few"), {"metrics": ","}, "is unknown"),
        (("few", "few"), {"out": Path("made.npz/x")}, "cannot write"),
    ]
    for names, changes, wanted in cases:
        with pytest.raises(PagodaError, match=wanted) as raised:
            run(*names, **changes)
        assert "\n" not in str(raised.value)
