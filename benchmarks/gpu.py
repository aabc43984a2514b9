"""Every measurement of a GPU machine in one command.

    python -m benchmarks.gpu --work FOLDER [--edm EDM] [--images ZIP] [--minutes M]

First whether the GPU computes what the CPU does, in which precision, compiled, and with checkpoints
that move between both; then what ``pagoda plan --probe`` predicts for the profile ``imagenette``,
training step and sampling with inversion (beside NVlabs/edm where EDM is a checkout of it), one
step eager, compiled and exported, metrics through torch, and images/s over sizes with the peak
memory of every stage. With ``--images``, an archive for ``data.source=zip``, the profile itself
comes last, with its ablations and seeds (``--runs``, :mod:`benchmarks.pieces`), and ``--report
FOLDER`` gets its comparison.

Each part is a process; one that fails does not keep the others from running, and is run again the
next time. Parts keep what they have measured, so that the same command again goes on where it
stopped: after ``--minutes``, with status 75. ``FOLDER/gpu.json`` holds everything and
``FOLDER/gpu.md`` the tables for benchmarks/README.md, of what is there, after every part. Needs
torch, timm, numpy, pandas, scipy, matplotlib, typer, rich, jinja2 and what they bring, but none of
DVC, Hydra, MLflow or the metrics' peers. Without a GPU all runs on the CPU, for a trial:
``--quick`` takes the smallest sizes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_TIME_IS_UP = 75
_GRACE_S = 90  # for a part to leave after it was told to
_LEAST_S = 20  # a part is not begun with less
_SAVES_S = 100  # longer than the profile takes to save its state and write its comparison


@dataclass(frozen=True)
class Part:
    """One process: a module with arguments.

    Attributes:
        name: of its file of results.
        command: module and arguments.
        json: whether it prints JSON; otherwise markdown.
        shown: a file whose text is shown instead of what is printed. Such a part stops by itself,
            told how many minutes it has.
    """

    name: str
    command: list[str]
    json: bool = False
    shown: Path | None = None


def parts(given: argparse.Namespace, work: Path, device: str) -> list[Part]:
    """What is run, the quickest first."""
    quick = given.quick
    beside = ["--edm", str(given.edm.resolve())] if given.edm else []
    short = ["--quick"] if quick else []
    few = ["--rows", "n < d"] if quick else []
    profile = "smoke" if quick else "imagenette"

    def out(name: str) -> list[str]:
        return ["--out", str(work / f"{name}.json")]

    found = [
        Part("check", ["benchmarks.gpu_check"]),
        Part("plan", ["pagoda", "plan", "--profile", profile, "--probe"]),
        Part("teacher_step", ["benchmarks.teacher_step", *beside, *short, *out("teacher_step")]),
        Part("sampling", ["benchmarks.sampling", *beside, *short, *out("sampling"),
                          *(["--levels", "6"] if quick else [])]),
        Part("sampling_speed", ["benchmarks.sampling_speed", "--profile", profile, "--bf16",
                                "--device", device, *short, "--out", str(work / "speed")]),
        Part("metrics", ["benchmarks.metrics", "--torch", device, *short, *few, *out("metrics")]),
        # Two processes of one group cannot use one card.
        Part("training", ["benchmarks.training", "--parts", "rates,stages", *short,
                          *out("training")], json=True),
    ]  # fmt: skip
    if given.images:
        runs = work / "profile"
        command = ["benchmarks.pieces", "--profile", given.profile, "--work", str(runs),
                   "--runs", given.runs, "--set", "data.source=zip",
                   "--set", f"data.path={given.images.resolve()}"]  # fmt: skip
        for setting in given.settings:
            command += ["--set", setting]
        if given.report:
            command += ["--report", str(given.report.resolve())]
        if given.revision:
            command += ["--revision", given.revision]
        found.append(Part("profile", command, shown=runs / "comparison.md"))
    return found


def run(part: Part, work: Path, seconds: float) -> dict[str, Any]:
    """Run a part for at most ``seconds``; one that finished is read from its file."""
    if (kept := finished(part, work)) is not None:
        return kept
    limited = part.shown is not None and math.isfinite(seconds)
    more = [f"--minutes={seconds / 60:.2f}"] if limited else []
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    start = time.monotonic()
    command = [sys.executable, "-m", *part.command, *more]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path}, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    stopped, output, errors = _finish(process, seconds + _SAVES_S * limited)
    result: dict[str, Any] = {
        "part": part.name, "seconds": round(time.monotonic() - start, 1),
        "command": _shown_command(part), "status": process.returncode,
    }  # fmt: skip
    (work / f"{part.name}.log").write_text(errors)
    text = part.shown.read_text() if part.shown and part.shown.exists() else output
    if stopped or process.returncode == _TIME_IS_UP:
        return result | {"unfinished": True, "output": text if part.shown else ""}
    if process.returncode:
        lines = (errors.strip() or output.strip()).splitlines()
        failed = lines[-1] if lines else f"exit status {process.returncode}"
        return result | {"failed": failed, "output": text}
    result["output"] = json.loads(text) if part.json else text
    (work / f"{part.name}.done.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def finished(part: Part, work: Path) -> dict[str, Any] | None:
    """What a part gave when it was run before by the same command; None: it was not."""
    file = work / f"{part.name}.done.json"
    found = dict(json.loads(file.read_text())) if file.is_file() else {}
    return found if found.get("command") == _shown_command(part) else None


def _finish(process: subprocess.Popen[str], seconds: float) -> tuple[bool, str, str]:
    """Whether a process had to be stopped, with all that it started, and what it printed."""
    try:
        return False, *process.communicate(timeout=seconds if math.isfinite(seconds) else None)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
    try:
        return True, *process.communicate(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    return True, *process.communicate()


def _shown_command(part: Part) -> str:
    """Without the folders of this machine."""
    return " ".join(Path(word).name if os.sep in word else word for word in part.command)


def as_markdown(results: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """All tables, for benchmarks/README.md."""
    lines = ["## On a GPU: `benchmarks/gpu.py`", "", f"`{json.dumps(machine)}`", ""]
    for result in results:
        lines += [f"### {result['part']}", "", f"`{result['command']}`, {result['seconds']} s", ""]
        if "failed" in result:
            lines += [f"Failed: {result['failed']}", ""]
        if "unfinished" in result:
            lines += ["Not finished: time was up.", ""]
        if not isinstance(result["output"], str):
            lines += ["```json", json.dumps(result["output"], indent=1), "```", ""]
        elif result["output"].strip():
            lines += [result["output"].strip(), ""]
    return "\n".join(lines)


def write(work: Path, results: list[dict[str, Any]], conditions: dict[str, Any]) -> None:
    """Put ``gpu.json`` and ``gpu.md`` in place of those of the part before."""
    tree = {"machine": conditions, "parts": results}
    for name, text in (
        ("gpu.json", json.dumps(tree, indent=1) + "\n"),
        ("gpu.md", as_markdown(results, conditions)),
    ):
        partial = work / f"{name}.partial"
        partial.write_text(text)
        partial.replace(work / name)


def main() -> None:
    given = arguments()
    deadline = time.monotonic() + 60 * given.minutes
    import torch

    from benchmarks.timing import machine

    given.work.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    conditions = machine("numpy", "timm") | {"quick": given.quick}
    results: list[dict[str, Any]] = []
    status = 0
    for part in parts(given, given.work.resolve(), device):
        done = finished(part, given.work) is not None
        if given.only not in part.name and not done:
            continue
        left = deadline - time.monotonic()
        if left < _LEAST_S and not done:
            status = _TIME_IS_UP
            continue
        results.append(result := run(part, given.work, left))
        write(given.work, results, conditions)
        said = "time is up" if "unfinished" in result else result.get("failed", "done")
        sys.stderr.write(f"{part.name}: {said}, {result['seconds']} s\n")
        if "unfinished" in result:
            status = _TIME_IS_UP
    if any("failed" in result for result in results):
        status = status or 1
    raise SystemExit(status)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=math.inf,
                        help="stop then, with status 75; to save can take 1.5 more")  # fmt: skip
    parser.add_argument("--edm", type=Path, help="checkout of NVlabs/edm")
    parser.add_argument("--images", type=Path, help="archive of images: run the profile too")
    parser.add_argument("--profile", default="imagenette", help="which one, with --images")
    parser.add_argument("--runs", default="all", help="of benchmarks.pieces, with --images")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--report", type=Path, help="folder of the comparison, with --images")
    parser.add_argument("--revision", help="of this code, where it is no git checkout")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, for a trial")
    parser.add_argument("--only", default="", help="run only parts whose name holds this")
    return parser.parse_args()


if __name__ == "__main__":
    main()
