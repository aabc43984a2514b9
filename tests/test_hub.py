"""Pushing to and loading from a hub: the library's own requests, answered by a server here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pagoda
from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.hub import push
from pagoda.pipeline.stages import export
from tests.hub_server import Hub, local_hub
from tests.tiny_run import GEN, TEACHER

FILES = {"README.md", "card.json", "manifest.json", "model.safetensors", "samples.png"}


@pytest.fixture(scope="module")
def made(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    (folder / "runs").symlink_to(tiny_run / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        export.run(export.Request(GEN, Path("out")))
        export.run(export.Request(TEACHER, Path("teacher")))
    return folder


def program(folder: Path, hub: Hub, code: str, **environment: str) -> str:
    """What a program prints that talks to the hub; huggingface_hub reads its address once."""
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "good", "HF_HUB_CACHE": str(folder / "cache"),
           "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_ETAG_TIMEOUT": "2"}  # fmt: skip
    lines = (
        "import numpy as np, pagoda, time\nfrom pathlib import Path\nfrom pagoda.hub import push\n"
    )
    lines += "time.sleep = lambda seconds: None\n"  # the library waits before it asks again
    done = subprocess.run(
        [sys.executable, "-c", lines + code], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "0"} | own | environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


TRY = """
def tried(function, *arguments):
    try:
        print("no error", function(*arguments))
    except pagoda.PagodaError as error:
        print(repr(str(error)))
"""


@pytest.mark.slow
def test_what_is_pushed_is_loaded_elsewhere(made: Path) -> None:
    with local_hub() as hub:
        code = 'print(push(Path("out"), "me/rings"))\n'
        code += 'np.save("made.npy", pagoda.load("me/rings").sample(["ring", 0], range(3)))'
        assert program(made, hub, code) == f"{hub.url}/me/rings\n"
        assert set(hub.files["me/rings"]) == FILES | {".gitattributes"}
        # a second push, of another kind and with an older graph there, replaces it all
        hub.files["me/rings"]["model.onnx"] = b"older"
        code = 't = pagoda.load("me/rings"); print(type(t).__name__, t.inversion["noise"])'
        assert program(made, hub, f'push(Path("teacher"), "me/rings"); {code}') == "Teacher 0.05\n"
        assert set(hub.files["me/rings"]) == FILES | {".gitattributes"}
    # the hub is out of reach now: what was fetched is there, and the rest is a line
    code += TRY + 'tried(pagoda.load, "some/model"); tried(push, Path("out"), "me/rings")'
    there, *lines = program(made, hub, code).splitlines()
    assert there == "Teacher 0.05" and len(lines) == 2
    assert all("network" in line and r"\n" not in line for line in lines)
    wanted = pagoda.load(made / "out").sample(["ring", 0], range(3))
    np.testing.assert_array_equal(np.load(made / "made.npy"), wanted)


@pytest.mark.longer
def test_trouble_with_the_hub_is_one_line(made: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(made / "out")
    expected = {
        'pagoda.load, "no/body"': "no folder no/body, and the hub does not give it",
        'pagoda.load, "other/thing"': "it has no manifest.json",
        'pagoda.load, "sly/data"': "is an artifact of kind images",
        'push, Path("out"), "other/thing"': "other/thing holds weights.bin",
        'pagoda.load, "me/rings"': "no folder me/rings, and the hub does not give it",  # breaks off
    }
    code = TRY + "".join(f"tried({call})\n" for call in expected)
    code += 'import os; os.environ["HF_TOKEN"] = "bad"; tried(push, Path("out"), "me/new")'
    with local_hub() as hub:
        hub.files["other/thing"] = {"weights.bin": b"\0", "README.md": b"x"}
        hub.files["sly/data"] = {
            "manifest.json": (made / "runs/tiny/data/8" / artifacts.MANIFEST).read_bytes()
        }
        hub.files["me/rings"] = {f.name: f.read_bytes() for f in (made / "out").iterdir()}
        hub.breaks, before = True, {name: dict(files) for name, files in hub.files.items()}
        said = program(tmp_path, hub, code).splitlines()
        for line, words in zip(said, [*expected.values(), "'hf auth login' allows"], strict=True):
            assert words in line and r"\n" not in line
        assert hub.files == before
        hub.breaks = False
        assert program(tmp_path, hub, 'print(pagoda.load("me/rings").resolution)') == "16\n"


@pytest.mark.parametrize(
    ("folder", "name", "line"),
    [
        ("out", "rings", "is no name on the hub"),
        (GEN, "me/rings", "'pagoda export .*gen/16 DIR' comes first"),
        ("runs/tiny/data/8", "me/rings", "not generator or teacher"),
        ("nowhere", "me/rings", "there is no nowhere; give the folder"),
    ],
)
def test_only_exported_models_are_pushed(
    made: Path, monkeypatch: pytest.MonkeyPatch, folder: str, name: str, line: str
) -> None:
    monkeypatch.chdir(made)
    with pytest.raises(PagodaError, match=line):
        push(Path(folder), name)


def test_without_the_package_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    without: Any = None
    monkeypatch.setitem(sys.modules, "huggingface_hub", without)
    with pytest.raises(PagodaError, match="uv sync --extra hub") as caught:
        pagoda.load("me/rings")
    assert "\n" not in str(caught.value)
