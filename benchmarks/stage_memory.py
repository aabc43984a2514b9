"""Peak memory of every stage of a small experiment, one after the other, each in its own process.

The experiment is the smoke profile cut short. Memory is the peak resident memory of a stage's
largest process, read when it ends; on a GPU, what was in use there at most, looked at twice a
second. :func:`more_images` runs the stages with four times as many images, which shows whether
memory grows with the data. :func:`studies` runs a variant of each kind of step (the largest of the
kind), all variants of the study of cost, and what puts that one's results together.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pieces import ROOT, compose, environment, gpu_gib
from benchmarks.pieces import stages as pipeline

SMALL = {
    "data.train_images": 2048, "data.test_images": 512, "features.images": 1536,
    "teacher.optim.images": 1280, "distill.optim.images": 1280, "grow.optim.images": 640,
    "invert.images": 128, "evaluate.samples": 256, "reference.manifold_images": 256,
}  # fmt: skip
"""Settings of the experiment."""

_COUNTS = ("data.train_images", "data.test_images", "invert.images", "evaluate.samples")
_TIMES = 4
_STUDIES = {"studies.samples": 256, "studies.usual.seeds": "[0]", "studies.costly.seeds": "[0]"}
_WHOLE = "cost"  # a study that trains nothing, so that all its variants are run

Row = dict[str, Any]


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where the small experiment lives while this program runs."""
    return tempfile.TemporaryDirectory()


def stages(_quick: bool) -> dict[str, Any]:
    """Every stage of the pipeline."""
    return {"settings": SMALL, "rows": _experiment(SMALL, Path(_folder().name))}


def more_images(_quick: bool) -> dict[str, Any]:
    """The same with four times as many images."""
    settings = SMALL | {key: _TIMES * SMALL[key] for key in _COUNTS}
    changed = {key: settings[key] for key in _COUNTS}
    with tempfile.TemporaryDirectory() as folder:
        return {"settings": changed, "rows": _experiment(settings, Path(folder))}


def studies(quick: bool) -> dict[str, Any]:
    """Variants of studies, beside the stages that they read from."""
    folder = Path(_folder().name)
    if not (folder / "params.yaml").is_file():
        stages(quick)
    settings = SMALL | _STUDIES
    _write(settings, folder)
    for file in (ROOT / "experiments").glob("*/study.yaml"):  # runs are kept beside them
        (folder / "experiments" / file.parent.name).mkdir(parents=True)
        shutil.copy(file, folder / "experiments" / file.parent.name)
    commands = [["variant", study, variant, "--seed", "0"] for study, variant in variants()]
    rows = [peak(command, folder) for command in [*commands, ["study", _WHOLE]]]
    return {"settings": _STUDIES, "rows": rows}


def variants() -> list[tuple[str, str]]:
    """Study and variant: the last of each kind of steps, after those that it reads from."""
    found: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for file in sorted((ROOT / "experiments").glob("*/study.yaml")):
        study, tree = file.parent.name, yaml.safe_load(file.read_text())["variants"]
        for name, variant in tree.items():
            chain = [(study, name)]
            while (parent := tree[chain[0][1]].get("of")) is not None:
                chain.insert(0, (study, parent))
            steps = tuple(variant.get("steps", ()))
            kind = (study, name) if study == _WHOLE else steps
            found[kind] = chain
    return list(dict.fromkeys(one for chain in found.values() for one in chain))


def _experiment(settings: dict[str, Any], folder: Path) -> list[Row]:
    tree = _write(settings, folder)
    commands = [list(stage.command) for stage in pipeline(tree)]
    if importlib.util.find_spec("mlflow"):
        commands.append(["track"])
    return [peak(command, folder) for command in commands]


def _write(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    tree = compose("smoke", [f"{key}={value}" for key, value in settings.items()])
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    return tree


def peak(command: list[str], folder: Path) -> Row:
    """Run a stage; its peak memory. A child of a child, so that no other stage's peak counts."""
    script = (
        "import resource, subprocess, sys;"
        "done = subprocess.run([sys.executable, '-m', 'pagoda', *sys.argv[1:]], stdout=2);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *command], cwd=folder, text=True,
        env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    gpu = 0.0
    while True:
        try:
            out, errors = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            gpu = max(gpu, gpu_gib())
    if process.returncode:
        raise SystemExit(f"pagoda {' '.join(command)} failed:\n{errors[-2000:]}")
    unit = 2**20 if sys.platform != "darwin" else 2**30
    row = {"stage": " ".join(command), "peak_gib": round(float(out) / unit, 3)}
    return row | ({"peak_gpu_gib": round(gpu, 2)} if gpu else {})
