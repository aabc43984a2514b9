"""Run a profile, and its ablations, stage by stage without DVC, in pieces of limited time.

    python -m benchmarks.pieces --profile imagenette --minutes 8 --work WORK \
        --set data.source=zip --set data.path=imagenette128.zip
    python -m benchmarks.pieces --profile imagenette --minutes 8 --work WORK --runs all ...

The same command again goes on where the last one stopped: finished stages are skipped, and the one
that was cut short resumes from its checkpoint. For machines that hold PyTorch but not DVC, and for
those that are lent for minutes. Exit status 0: all done; 75: time is up, run it again; 130:
stopped; anything else is that of a stage that failed. That run ends there, the others go on.

``--runs`` names what is run, ``main`` alone unless told otherwise; ``all`` is every one of
:data:`RUNS`. Each has a folder ``WORK/<run>``. A stage that another run has finished with the same
parameters and inputs is not run again: its outputs are linked. Before a run's first stage ``pagoda
plan --probe`` predicts its seconds. ``WORK/stages.jsonl`` gets a row a piece: run, stage, seconds,
images/s of its history, peak memory of the host and of the GPU.

Whenever it stops, ``WORK/comparison.md``, ``.csv`` and pictures are of what is there: values of all
runs, their spread over seeds, samples side by side, time and memory, and what all of it was
measured with. ``--report FOLDER`` puts them there too, and the pages of the run ``main`` where its
lengths are the profile's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.comparison import LOG, PREDICTED, Compared, write_comparison
from pagoda.artifacts import digest
from pagoda.config import NO_WEIGHTS, with_derived
from pagoda.errors import PagodaError
from pagoda.pipeline.derive import profile_tree

ROOT = Path(__file__).resolve().parents[1]
RUNS: dict[str, tuple[str, ...]] = {
    "main": (),
    # Without a regression nothing would be trained before the adversarial loss sets in.
    "adversarial_growth": ("grow.loss.regression=none", "grow.loss.adversarial_start=0.0"),
    "noise_to_data": ("distill.loss.regression=noise_to_data",),
    # One of the paper's two discriminator networks, with ImageNet's weights from its package.
    "efficientnet_lite0": (
        "grow.discriminator.kind=projected",
        "grow.discriminator.backbones=[tf_efficientnet_lite0]",
        "grow.discriminator.input_side=128",
        "grow.loss.adversarial=hinge",
        "grow.loss.weighting=adaptive",
        "grow.loss.weight=0.5",
    ),
    "half_base": ("base_res={half_base}",),
    "seed_1": ("seed=1",),
    "seed_2": ("seed=2",),
}
"""Settings of each run, beside those of the command line."""

_PATHS = ("data.path", "reference.weights", "reference.code", "teacher.imported",
          "distill.imported", "grow.imported")  # fmt: skip
_TIME_IS_UP = 75
_INTERRUPTED = 130
_GRACE_S = 60  # for a stage to save its state after it was told to stop
_NOT_HERE = "track"  # needs MLflow; the reports are what it reads
_PROBE_S = 300
_WAIT_S = 0.2  # between looks at a stage


@dataclass(frozen=True)
class Stage:
    """A stage of ``dvc.yaml``.

    Attributes:
        command: arguments of ``pagoda``.
        key: of its command, its parameters and the stages that it reads from.
        outs: files and folders that it writes.
    """

    command: tuple[str, ...]
    key: str
    outs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The command line."""
        return " ".join(self.command)


def compose(profile: str, settings: Iterable[str]) -> dict[str, Any]:
    """The parameters of a profile with ``a.b=value`` settings and the lists that follow."""
    tree = profile_tree(profile, ROOT)
    for setting in settings:
        key, _, value = setting.partition("=")
        *parents, last = key.split(".")
        section = tree
        for parent in parents:
            section = section.get(parent, {})
        if last not in section:
            raise PagodaError(f"{profile} has no key {key}")
        half = str(tree["base_res"] // 2)
        section[last] = yaml.safe_load(value.replace("{half_base}", half))
    for key in _PATHS:  # stages run in another folder
        part, last = key.split(".")
        if (path := tree[part][last]) not in (None, NO_WEIGHTS):
            tree[part][last] = str(Path(path).resolve())
    return with_derived(tree)


def stages(tree: dict[str, Any]) -> list[Stage]:
    """The stages of the main pipeline, in the order of ``dvc.yaml``, which serves."""
    found: list[Stage] = []
    for name, body in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        if name == _NOT_HERE:
            continue
        each = _value(tree, body["foreach"].strip("${}")) if "foreach" in body else [None]
        for item in each.values() if isinstance(each, dict) else each:
            found.append(_stage(body.get("do", body), tree, item, found))
    return found


def _stage(body: dict[str, Any], tree: dict[str, Any], item: Any, before: list[Stage]) -> Stage:
    command = _filled(body["cmd"], tree, item).removeprefix("python -m pagoda ")
    given = {key: _value(tree, key) for key in body["params"]}
    listed = [*body["outs"], *body.get("metrics", [])]
    outs = [_filled(out if isinstance(out, str) else next(iter(out)), tree, item) for out in listed]
    read = [_filled(dep, tree, item) for dep in body.get("deps", [])]
    above = sorted({s.key for s in before if any(_meet(o, dep) for o in s.outs for dep in read)})
    return Stage(tuple(command.split()), digest([command, given, above]), tuple(outs))


def _meet(first: str, second: str) -> bool:
    """Whether one path is the other, or lies in it."""
    return first == second or first.startswith(f"{second}/") or second.startswith(f"{first}/")


def _filled(text: str, tree: dict[str, Any], item: Any) -> str:
    """``${a.b[0]}`` -> its value, ``${item}`` and ``${item.key}`` of a foreach among them."""
    return re.sub(r"\$\{(.+?)\}", lambda m: str(_value(tree | {"item": item}, m[1])), text)


def _value(tree: Any, path: str) -> Any:
    for part in re.findall(r"[^.\[\]]+", path):
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    return tree


def run(stage: Stage, folder: Path, seconds: float) -> tuple[int | None, dict[str, Any]]:
    """One stage for at most ``seconds``: exit status, None if it was stopped, and what it took."""
    start, load = time.monotonic(), os.getloadavg()[0]
    at = datetime.now(UTC).isoformat(timespec="seconds")
    process = subprocess.Popen(_pagoda(*stage.command), cwd=folder, env=environment())
    gpu, code, usage = 0.0, None, None
    try:
        for look in itertools.count():
            code, usage = _ended(process)
            if code is not None or time.monotonic() - start >= seconds:
                break
            if look % 10 == 0:
                gpu = max(gpu, gpu_gib())
            time.sleep(_WAIT_S)
    finally:
        if code is None:
            usage = _stop(process)
    return code, {
        "at": at, "done": code == 0, "seconds": round(time.monotonic() - start, 1),
        "images_per_second": _speed(stage, folder) if code == 0 else None,
        "peak_host_gib": round(usage.ru_maxrss / 2**20, 2) if usage else None,
        "peak_gpu_gib": round(gpu, 2), "load_before": round(load, 1),
    }  # fmt: skip


def _pagoda(*command: str) -> list[str]:
    return [sys.executable, "-m", "pagoda", *command]


def environment() -> dict[str, str]:
    """Of a stage: it imports this code, and names its revision wherever its folder is."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    found = os.environ | {"PYTHONPATH": path}
    asked = ["git", "-C", str(ROOT), "rev-parse", "--absolute-git-dir", "--show-toplevel"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return found
    folder, top = done.stdout.splitlines()
    return found | {"GIT_DIR": folder, "GIT_WORK_TREE": top} if Path(top) == ROOT else found


def _ended(process: subprocess.Popen[bytes]) -> tuple[int | None, Any]:
    """Exit status and use of a process, and of those that it waited for; None while it runs."""
    found, status, usage = os.wait4(process.pid, os.WNOHANG)
    if not found:
        return None, None
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage


def _stop(process: subprocess.Popen[bytes]) -> Any:
    """Tell a stage to save its state and leave; what it used."""
    process.send_signal(signal.SIGINT)
    limit = time.monotonic() + _GRACE_S
    while time.monotonic() < limit:
        code, usage = _ended(process)
        if code is not None:
            return usage
        time.sleep(_WAIT_S)
    process.kill()
    process.wait()
    return None


def predict(folder: Path) -> None:
    """Keep what ``pagoda plan --probe`` says of a run, once; nothing if it fails."""
    kept = folder / PREDICTED
    if kept.exists():
        return
    try:
        command = _pagoda("plan", "--probe", "--json")
        done = subprocess.run(
            command, cwd=folder, env=environment(), timeout=_PROBE_S, stdout=subprocess.PIPE,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return
    if done.returncode == 0:
        kept.write_bytes(done.stdout)


def _speed(stage: Stage, folder: Path) -> float | None:
    """Images a second over the whole of the stage's history, None if it has none."""
    for out in stage.outs:
        if out.endswith(".jsonl"):
            last = json.loads((folder / out).read_text().splitlines()[-1])
            return round(last["images"] / last["seconds"], 1) if last.get("seconds") else None
    return None


def gpu_gib() -> float:
    """Memory in use on the first GPU, of all programs; 0 without one."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return 0.0
    return float(found.stdout.split("\n")[0]) / 1024


def link(stage: Stage, theirs: Path, ours: Path) -> None:
    """Give a run the outputs that another run's stage has written; artifacts are never edited."""
    for out in stage.outs:
        here = ours / out
        here.parent.mkdir(parents=True, exist_ok=True)
        if (theirs / out).is_dir():
            shutil.rmtree(here, ignore_errors=True)
            shutil.copytree(theirs / out, here, copy_function=os.link)
        else:
            here.unlink(missing_ok=True)
            os.link(theirs / out, here)


def prepare(folder: Path, tree: dict[str, Any]) -> None:
    """Write a run's ``params.yaml``, or see that it is the one that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    params, text = folder / "params.yaml", yaml.safe_dump(tree, sort_keys=False)
    if params.exists() and params.read_text() != text:
        raise SystemExit(f"error: {folder} holds other parameters; take a new --work folder")
    params.write_text(text)


def run_all(work: Path, trees: dict[str, dict[str, Any]], deadline: float) -> int:
    """Every stage of every run that is not done yet; the exit status.

    A stage that fails ends its run; the others go on.
    """
    status = 0
    for name, tree in trees.items():
        code = run_one(work, name, tree, deadline)
        if code == _TIME_IS_UP:
            return code
        status = status or code
    return status


def run_one(work: Path, name: str, tree: dict[str, Any], deadline: float) -> int:
    """Every stage of a run that is not done yet; the exit status."""
    log = work / LOG
    rows = read_log(log)
    finished = {row["key"]: row["run"] for row in reversed(rows) if row["done"]}
    done = {row["key"] for row in rows if row["done"] and row["run"] == name}
    for stage in stages(tree):
        if stage.key in done:
            continue
        code: int | None
        if stage.key in finished:
            link(stage, work / finished[stage.key], work / name)
            code, took = 0, {"done": True, "linked_from": finished[stage.key]}
        else:
            if time.monotonic() >= deadline:
                return _TIME_IS_UP
            if not name.startswith("seed_"):  # another seed takes as long
                predict(work / name)
            code, took = run(stage, work / name, deadline - time.monotonic())
        row = {"run": name, "stage": stage.name, "key": stage.key} | took
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        sys.stderr.write(f"{row}\n")
        if code is None:
            return _TIME_IS_UP
        if code:
            return code
    return 0


def read_log(log: Path) -> list[dict[str, Any]]:
    """A row a piece."""
    return (
        [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        if log.exists()
        else []
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder that everything goes to")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--runs", default="main", help=f"all, or some of {','.join(RUNS)}")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--report", type=Path, help="folder that the comparison is copied to")
    parser.add_argument("--revision", help="of this code, where it is no git checkout")
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    names = list(RUNS) if given.runs == "all" else given.runs.split(",")
    if unknown := [name for name in names if name not in RUNS]:
        parser.error(f"no run {unknown[0]!r}; there are {', '.join(RUNS)}")
    try:
        trees = {name: compose(given.profile, [*given.settings, *RUNS[name]]) for name in names}
    except PagodaError as error:
        raise SystemExit(f"error: {error}") from error
    for name, tree in trees.items():
        prepare(given.work / name, tree)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: state is saved
    try:
        status = run_all(given.work, trees, deadline)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    runs = {name: (RUNS[name], len(stages(trees[name]))) for name in names}
    about = Compared(given.work, given.profile, tuple(given.settings), runs, given.revision)
    folders = [given.work, *([given.report] if given.report else [])]
    for folder in folders:
        write_comparison(about, folder)
    if given.report and not about.changed and (pages := about.pages()) is not None:
        shutil.copytree(pages, given.report / pages.name, dirs_exist_ok=True)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
