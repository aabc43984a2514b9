"""``pagoda export``: a folder that stands alone, says what it is, and replaces only its like."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import pagoda
from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import export
from pagoda.pipeline.stages.export import Request
from pagoda.weights.graphs import example
from tests.tiny_run import GEN, TEACHER


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tiny_run / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(source: str = GEN, out: str = "out", **options: bool | str) -> None:
    export.run(Request(source, Path(out), **options))  # type: ignore[arg-type]


def test_an_exported_generator_stands_alone(run: Path) -> None:
    write()
    kept, names = pagoda.load(GEN).sample(seeds=range(3)), pagoda.load(GEN).classes
    shutil.rmtree("runs")
    g = pagoda.load("out")
    np.testing.assert_array_equal(g.sample(seeds=range(3)), kept)
    assert g.classes == names and "disc" in names
    write("out", "again")  # what it tells of its run is handed on
    assert pagoda.load("again").card["provenance"] == g.card["provenance"]
    assert g.card["provenance"]["data"]["source"] == "embedded"


def test_an_exported_teacher_inverts_as_before(run: Path) -> None:
    t = pagoda.load(TEACHER)
    assert isinstance(t, pagoda.Teacher)
    images = t.sample(2, range(3))
    write(TEACHER)
    z = t.invert(images, 2)
    shutil.rmtree("runs")
    alone = pagoda.load("out")
    assert isinstance(alone, pagoda.Teacher) and alone.inversion["noise"] > 0
    np.testing.assert_array_equal(alone.invert(images, 2), z)


def test_the_model_card_tells_what_was_measured_of_it(run: Path) -> None:
    facts = {"n": 64, "seed": 7, "resolution": 16, "revision": "abc", "reference": "0" * 64}
    rows = [
        {"metric": "fd", "protocol": "fd_x_64", "value": value, "generator": name, **facts}
        for name, value in (("grown", 1.25), ("upsampled_base", 77.5), ("real", 0.5))
    ]
    inputs = {"generator": artifacts.open_artifact(GEN, "generator")}
    with artifacts.create("runs/tiny/b8/evaluate/16", "evaluation", config={}, inputs=inputs) as e:
        artifacts.write_json(e / "results.json", {"rows": rows})
        for name in ("samples", "neighbours"):
            np.save(e / f"{name}.npy", np.zeros((1,) * 6, np.uint8))
    write(licence="cc0-1.0")
    text = Path("out/README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "cc0-1.0" and head["library_name"] == "pagoda"
    assert "| `fd_x_64` | 1.25 | 64 | 7 |" in text and "77.5" not in text
    assert "embedded" in text and "200 train" in text and "arxiv.org/abs/2405.14822" in text
    for heading in ("Data", "Training", "Metrics", "Intended use", "Limits", "Licence", "Files"):
        assert f"\n## {heading}\n" in text
    assert all((run / "out" / name).is_file() for name in re.findall(r"^- `(\S+)`:", text, re.M))
    shutil.rmtree("runs/tiny/b8/evaluate")
    write(licence="mine: see LICENCE")
    text = Path("out/README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(text.split("---")[1])["license"] == "mine: see LICENCE"
    write()
    text = Path("out/README.md").read_text(encoding="utf-8")
    assert "Not measured" in text and "Not stated" in text


@pytest.mark.longer
def test_only_what_was_exported_is_replaced(run: Path) -> None:
    write()
    write(TEACHER)  # another model, exported too
    Path("out/README.md").write_text("mine", encoding="utf-8")
    assert pagoda.load("out").num_classes == 10  # a page may be edited
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine", encoding="utf-8")
    for out, line in (
        ("out", "holds a README.md that was edited"),
        ("full", "is no exported model"),
        ("runs/tiny/b8/gen/8", "is a model of a run"),
        (GEN, "is a model of a run"),
    ):
        with pytest.raises(PagodaError, match=line):
            write(out=out)
    with pytest.raises(PagodaError, match="no generator or teacher"):
        write("runs/tiny/b8", "new")
    assert Path("out/README.md").read_text(encoding="utf-8") == "mine"
    assert sorted(p.name for p in run.iterdir()) == ["full", "out", "runs"]
    Path("out/README.md").unlink()
    write("out", "new")
    with pytest.raises(PagodaError, match="is the model itself"):
        write("new", "new")


def test_without_the_packages_nothing_is_written(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(PagodaError, match="uv sync --extra export") as caught:
        write("runs/tiny/b8/gen/8", onnx=True)
    assert "\n" not in str(caught.value) and not Path("out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("source", [GEN, TEACHER])
def test_graphs_equal_the_network_for_any_batch(run: Path, source: str) -> None:
    """By programs that know nothing of pagoda."""
    write(source, program=True, onnx=True)
    network = pagoda.load("out").network
    for n in (1, 2, 7):
        inputs = example(network, n)
        torch.save((inputs, network(*inputs.values())), "case.pt")
        done = subprocess.run([sys.executable, "-c", _RUN], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


_RUN = """
import sys
sys.modules["pagoda"] = None
import onnxruntime, torch
inputs, wanted = torch.load("case.pt")
with torch.no_grad():
    made = torch.export.load("out/model.pt2").module()(*inputs.values())
torch.testing.assert_close(made, wanted, rtol=0, atol=1e-4)
session = onnxruntime.InferenceSession("out/model.onnx")
assert [i.shape[0] for i in session.get_inputs()] == ["batch"] * len(inputs)
made = session.run(["images"], {name: x.numpy() for name, x in inputs.items()})[0]
torch.testing.assert_close(torch.from_numpy(made), wanted, rtol=0, atol=1e-4)
"""
