"""The command line: quick help, one line for every trouble, orderly interruption."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import pagoda
from pagoda import distributed
from pagoda.pipeline import cli
from tests.disk import small_disk
from tests.tiny import ROOT, override, tiny_tree

Done = subprocess.CompletedProcess[str]
Call = Callable[..., Done]


def run(folder: Path, *args: str, **options: Any) -> Done:
    """``pagoda ARGS`` in ``folder``."""
    return subprocess.run(
        [sys.executable, "-m", "pagoda", *args], cwd=folder, capture_output=True, text=True,
        timeout=300, **options,
    )  # fmt: skip


def write_params(folder: Path, **overrides: Any) -> Path:
    """The tiny experiment's ``params.yaml``; the derived lists stay those of 8 -> 32."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(override(tiny_tree(), overrides), sort_keys=False))
    return path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """``pagoda ARGS`` in ``folder``, in this process: without the seconds of importing torch."""

    def made(folder: Path, *args: str) -> Done:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["pagoda", *args])
        status: Any = 0
        try:
            cli.main()
        except SystemExit as left:
            status = left.code or 0
        said = capsys.readouterr()
        return Done(args, status, said.out, said.err)

    return made


def only_line(done: Done) -> str:
    """The one line of a command that failed with status 1 and said nothing else."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


HEAVY = {"torch", "torchvision", "mlflow", "pandas", "matplotlib", "dvc", "hydra", "numpy", "PIL",
         "rich", "yaml"}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("pagoda", HEAVY),
        ("pagoda.pipeline.cli", HEAVY),
        ("pagoda.config", HEAVY),
        ("pagoda.artifacts", HEAVY - {"numpy"}),
        ("pagoda.data.registry", HEAVY),
        ("pagoda.data.base", {"torch", "torchvision", "mlflow"}),
        ("pagoda.pipeline.stages.downsample", {"torch", "torchvision", "mlflow"}),
        ("pagoda.pipeline.stages.sample", HEAVY - {"numpy", "torch", "PIL"}),
        ("pagoda.results.grids as g; g._font('DejaVuSans.ttf')", HEAVY - {"numpy", "PIL"}),
        ("pagoda.pipeline.stages.report", {"torch", "mlflow"}),
        ("pagoda.pipeline.stages.track", {"torch", "mlflow"}),
    ],
)
def test_light_imports(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_every_stage_is_a_command(tmp_path: Path) -> None:
    listed = run(tmp_path, "--help").stdout.split("Commands:")[1]
    commands = set(re.findall(r"^  (\w+) ", listed, re.MULTILINE))
    stages = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    assert stages | {"derive", "doctor"} <= commands
    assert not re.search(r"\.\.\.$", listed, re.MULTILINE), "a summary is cut off"


def test_version(call: Call, tmp_path: Path) -> None:
    assert call(tmp_path, "--version").stdout == f"pagoda {pagoda.__version__}\n"


@pytest.mark.parametrize(
    ("args", "overrides", "wanted"),
    [
        (["teacher"], {"base_res": 48}, ["params.yaml", "base_res = 48", "power of two"]),
        (["teacher"], {"base_res": 64}, ["base_res = 64", "at most target_res = 32"]),
        (["teacher"], {"base_res": 16}, ["pagoda derive", "dvc exp run -S base_res=16"]),
        (["distill"], {"seed": "many"}, ["params.yaml", "seed = 'many'", "a whole number"]),
        (["teacher"], {}, ["runs/tiny/data/8 is missing", "dvc repro"]),
        (["reference", "--resolution", "12"], {}, ["12", "[8, 16, 32]"]),
        (["grow", "--from", "8", "--to", "32"], {}, ["--from 8 --to 16", "--from 16 --to 32"]),
        (["downsample", "--resolution", "8"], {"data.source": "npz", "data.path": "no/file.npz"},
         ["no/file.npz", "no such file"]),
        (["derive"], {"base_res": 48}, ["params.yaml", "base_res = 48", "power of two"]),
        (["evaluate"], {}, ["either --resolution", "or --images"]),
        (["reference", "--resolution", "8", "--images", "x"], {}, ["either --resolution"]),
        (["reference", "--images", "x"], {}, ["--out is missing"]),
        (["evaluate", "--images", "x.zip"], {}, ["--reference is missing"]),
        (["evaluate", "--images", "x.zip", "--reference", "y", "--seeds", "a"], {}, ["--seeds"]),
        (["evaluate", "--images", "x.zip", "--reference", "y.zip"], {}, ["there is no x.zip"]),
        (["evaluate", "--images", ".", "--reference", "y.zip", "--extractor", "resnet"], {},
         ["unknown extractor 'resnet'", "inception"]),
    ],
)  # fmt: skip
def test_trouble_is_one_line(
    call: Call, tmp_path: Path, args: list[str], overrides: dict[str, Any], wanted: list[str]
) -> None:
    write_params(tmp_path, **overrides)
    line = only_line(call(tmp_path, *args))
    assert all(word in line for word in wanted), line


@pytest.mark.parametrize("command", ["teacher", "report", "derive"])
def test_no_params_file(call: Call, tmp_path: Path, command: str) -> None:
    assert "no params.yaml here" in only_line(call(tmp_path, command))
    assert "no other.yaml here" in only_line(call(tmp_path, "--params", "other.yaml", command))


def test_unknown_key(call: Call, tmp_path: Path) -> None:
    path = write_params(tmp_path)
    path.write_text(path.read_text() + "sede: 1\n")
    line = only_line(call(tmp_path, "teacher"))
    assert "params.yaml: unknown key sede" in line
    assert "seed" in line


@pytest.mark.parametrize("args", [["techer"], ["grow", "--from", "8"], ["teacher", "--quick"]])
def test_wrong_usage(call: Call, tmp_path: Path, args: list[str]) -> None:
    done = call(tmp_path, *args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    write_params(tmp_path)
    tight = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))}
    line = only_line(run(tmp_path, "downsample", "--resolution", "8", **tight))
    assert f"cannot write runs/tiny/data/8: {os.strerror(errno.EFBIG)}" in line
    assert not list((tmp_path / "runs").rglob("*.*"))


@pytest.fixture
def latin1(tmp_path: Path) -> dict[str, str]:
    """Environment of a locale whose encoding is ISO-8859-1."""
    name = "en_US.ISO-8859-1"
    make = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / name)]
    try:
        subprocess.run(make, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no locale of ISO-8859-1 can be made here")
    return {k: v for k, v in os.environ.items() if k != "PYTHONUTF8"} | {
        "LOCPATH": str(tmp_path), "LC_ALL": name,
    }  # fmt: skip


def test_files_and_their_names_are_utf8_in_any_locale(
    tmp_path: Path, latin1: dict[str, str]
) -> None:
    for kind in ("café", "ωmega"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(10):
            pixels = np.full((8, 8, 3), 20 * i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / kind / f"{i}.png")
    own = {"source": "folder", "path": "set", "num_classes": 2, "test_share": 0.2,
           "train_images": None, "test_images": None}  # fmt: skip
    write_params(tmp_path, **{f"data.{key}": value for key, value in own.items()})
    done = run(tmp_path, "downsample", "--resolution", "8", env=latin1)
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "runs/tiny/data/8/card.json").read_bytes())
    assert card["classes"] == ["café", "ωmega"]


def test_a_message_that_the_terminal_cannot_show_is_no_traceback(
    tmp_path: Path, latin1: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pagoda", "--params", "ω é.yaml", "derive"], cwd=tmp_path,
        env=latin1 | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no \\u03c9 é.yaml here".encode("latin-1") in done.stderr


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space left"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "no space left"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left"),
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (ModuleNotFoundError(name="timm.models"), r"\S+ has no timm.models, which pagoda needs"),
    ],
)
def test_full_disk_memory_and_packages(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, wanted: str
) -> None:
    from pagoda.pipeline.stages import downsample

    def fails(*_: Any) -> None:
        raise error

    write_params(tmp_path)
    monkeypatch.setattr(downsample, "run", fails)
    done = call(tmp_path, "downsample", "--resolution", "8")
    assert re.match(f"error: {wanted}", only_line(done))


def test_a_bug_keeps_its_traceback(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pagoda.pipeline.stages import downsample

    write_params(tmp_path)
    monkeypatch.setattr(downsample, "run", lambda: None)  # called with two arguments
    with pytest.raises(TypeError):
        call(tmp_path, "downsample", "--resolution", "8")
    assert cli.explain(ModuleNotFoundError(name="pagoda.nowhere")) is None


COMMENTED = """\
# An experiment.
base_res: {base}  # the teacher's
target_res: 32

# Derived.
resolutions: {resolutions}
growth:{growth}
# Data.
data: {{path: null, odd:   [ 1,2 ]}}
code: {{}}
space:
  modelled: data
  autoencoder: []
  encode: []
  clip: []
  scorer: []
  caption: []
  reader: data
"""


def test_derive_there_and_back(call: Call, tmp_path: Path) -> None:
    start = COMMENTED.format(
        base=8, resolutions="[8, 16, 32]",
        growth="\n  '16': {from: 8, to: 16}\n  '32': {from: 16, to: 32}",
    )  # fmt: skip
    path = tmp_path / "params.yaml"
    path.write_text(start)
    ladders = {4: [4, 8, 16, 32], 16: [16, 32], 32: [32], 8: [8, 16, 32]}
    for base, resolutions in ladders.items():
        path.write_text(re.sub(r"base_res: \d+", f"base_res: {base}", path.read_text()))
        assert call(tmp_path, "derive").returncode == 0
        tree = yaml.safe_load(path.read_text())
        assert tree["resolutions"] == resolutions
        assert list(tree["growth"]) == [str(r) for r in resolutions[1:]]
        for kept in ("# An experiment.", "# the teacher's", "# Data.", "odd:   [ 1,2 ]"):
            assert kept in path.read_text()
    assert path.read_text() == start


def interrupt(folder: Path, args: list[str], begun: Callable[[], bool]) -> tuple[int, str]:
    """Start a command, press Ctrl-C (which reaches the whole group) once ``begun``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pagoda", *args], cwd=folder, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not begun() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=300)
    return process.returncode, said


INTERRUPTED = "interrupted; run the same command again to go on\n"


@pytest.mark.parametrize(("launched", "rank", "speaks"), [("", 0, True), ("", 1, False),
                                                         ("1", 0, False)])  # fmt: skip
def test_one_of_a_group_says_that_it_was_interrupted(
    launched: str, rank: int, speaks: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The first process, or the launcher that started it."""
    for name, value in {"WORLD_SIZE": "2", "RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)
    if launched:
        monkeypatch.setenv(distributed.LAUNCHED, launched)

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit, match=r"^130$"):
        cli.main()
    assert capsys.readouterr().err == (INTERRUPTED if speaks else "")


def test_interrupted_downsample_leaves_nothing_half_done(tmp_path: Path) -> None:
    # Below what takes several processes, and 30 MB, so that the signal comes before all is written.
    write_params(tmp_path, target_res=32, **{"data.train_images": 10_000, "data.render_res": 32})
    data = tmp_path / "runs/tiny/data"
    status, said = interrupt(
        tmp_path, ["downsample", "--resolution", "32"], lambda: any(data.glob(".32.partial-*/*"))
    )
    assert status == 130 and said.endswith(INTERRUPTED)  # a slow machine shows progress first
    assert not list(data.iterdir())


@pytest.mark.longer
def test_interrupted_training_keeps_its_scratch(tmp_path: Path) -> None:
    write_params(tmp_path, **{"teacher.optim.images": 32_000_000})
    assert run(tmp_path, "downsample", "--resolution", "8").returncode == 0
    history = tmp_path / "runs/tiny/b8/history/teacher.jsonl"
    status, said = interrupt(
        tmp_path, ["teacher"], lambda: history.is_file() and bool(history.read_text())
    )
    assert status == 130 and said.endswith(INTERRUPTED)  # a slow machine shows progress first
    assert len(list(tmp_path.glob(".scratch/teacher/*/*.safetensors"))) == 1
    assert not (tmp_path / "runs/tiny/b8/teacher").exists()


def test_a_read_only_project_is_one_line(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    with small_disk(project, "16m"):
        write_params(project, **{"data.train_images": 20, "data.test_images": 20})
        subprocess.run(["mount", "-o", "remount,ro", str(project)], check=True)
        line = only_line(run(project, "downsample", "--resolution", "8"))
    assert f"{project} is no folder that is yours to write to" in line


@pytest.mark.parametrize(
    "args",
    [
        ["evaluate", "--images", "x", "--reference", "y", "--out", "runs/tiny/results.json"],
        ["reference", "--images", "x", "--out", "runs/tiny/reference/8/classifier"],
        ["import", "x.pt", "--out", "runs/tiny/b8/teacher"],
        ["export", "runs/tiny/b8/gen/8", "runs/tiny/b8/gen/16"],
        ["edit", "transfer", "g", "a.png", "--class", "3", "--to", "4", "--out", "runs/x.png"],
    ],
)
def test_nothing_is_written_among_what_the_pipeline_keeps(
    call: Call, tmp_path: Path, args: list[str]
) -> None:
    (tmp_path / ".dvc").mkdir()
    line = only_line(call(tmp_path, *args))
    assert f"{args[-1]} lies in runs/, which is the pipeline's; choose another place" in line


def test_doctor_names_what_is_broken(call: Call, tmp_path: Path) -> None:
    write_params(tmp_path, **{"data.source": "npz", "data.path": "no/file.npz"})
    done = call(tmp_path, "doctor")
    assert done.returncode == 1
    lines = {words[1]: words for line in done.stdout.splitlines() if len(words := line.split()) > 1}
    assert lines["git"][0] == "broken"
    assert lines["data"][0] == "broken"
    assert lines["params"][0] == "ok"
    assert "no/file.npz" in done.stdout
    assert len(done.stdout.splitlines()) <= 30
