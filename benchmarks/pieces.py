"""Run a profile stage by stage without DVC, in pieces of limited time.

    python -m benchmarks.pieces --profile imagenette --minutes 8 --work WORK \
        --set data.source=zip --set data.path=imagenette128.zip

The same command again goes on where the last one stopped: finished stages are skipped, and the one
that was cut short resumes from its checkpoint. For machines that hold PyTorch but not DVC, and for
those that are lent for minutes. Exit status 0: all done; 75: time is up, run it again; anything
else is the failing stage's. ``WORK/stages.jsonl`` gets a row a piece: stage, seconds, images/s of
its history, peak memory of the host and of the GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from pagoda.config import derive_growth, derive_resolutions
from pagoda.derive import profile_tree

ROOT = Path(__file__).resolve().parents[1]
_TIME_IS_UP = 75
_GRACE_S = 60  # for a stage to save its state after it was told to stop


def compose(profile: str, settings: list[str]) -> dict[str, Any]:
    """The parameters of a profile with ``a.b=value`` settings and the lists that follow."""
    tree = profile_tree(profile, ROOT)
    for setting in settings:
        key, _, value = setting.partition("=")
        *parents, last = key.split(".")
        section = tree
        for parent in parents:
            section = section[parent]
        if last not in section:
            raise SystemExit(f"error: {profile} has no key {key}")
        section[last] = yaml.safe_load(value)
    if tree["data"]["path"]:
        tree["data"]["path"] = str(Path(tree["data"]["path"]).resolve())
    tree["resolutions"] = derive_resolutions(tree["base_res"], tree["target_res"])
    tree["growth"] = derive_growth(tree["base_res"], tree["target_res"])
    return tree


def stages(tree: dict[str, Any]) -> list[list[str]]:
    """Command lines of the main pipeline's stages in an order that serves."""
    each = [str(resolution) for resolution in tree["resolutions"]]
    return [
        *(["downsample", "--resolution", r] for r in each),
        ["features"],
        *(["reference", "--resolution", r] for r in each),
        ["teacher"],
        ["invert"],
        ["distill"],
        *(
            ["grow", "--from", str(s["from"]), "--to", str(s["to"])]
            for s in tree["growth"].values()
        ),
        *(["evaluate", "--resolution", r] for r in each),
        ["report"],
    ]


def run(command: list[str], work: Path, seconds: float) -> tuple[int | None, dict[str, Any]]:
    """One stage for at most ``seconds``: exit status, None if it was stopped, and what it took."""
    start = time.monotonic()
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), _inherited()]))}
    process = subprocess.Popen([sys.executable, "-m", "pagoda", *command], cwd=work, env=env)
    gpu, code = 0.0, None
    while code is None and time.monotonic() - start < seconds:
        try:
            code = process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            gpu = max(gpu, _gpu_gib())
    if code is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    host = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return code, {
        "stage": " ".join(command), "done": code == 0,
        "seconds": round(time.monotonic() - start, 1),
        "peak_host_gib_so_far": round(host, 2), "peak_gpu_gib": round(gpu, 2),
    }  # fmt: skip


def _inherited() -> str:
    return os.environ.get("PYTHONPATH", "")


def _gpu_gib() -> float:
    """Memory in use on the first GPU, of all programs; 0 without one."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return 0.0
    return float(found.stdout.split("\n")[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder that runs/ is written in")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    tree = compose(given.profile, given.settings)
    given.work.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(tree, sort_keys=False)
    params, log = given.work / "params.yaml", given.work / "stages.jsonl"
    if params.exists() and params.read_text() != text:
        raise SystemExit(f"error: {given.work} holds another run; take a new folder")
    params.write_text(text)
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    finished = {row["stage"] for row in rows if row["done"]}
    for command in stages(tree):
        if " ".join(command) in finished:
            continue
        code, took = run(command, given.work, deadline - time.monotonic())
        with log.open("a") as file:
            file.write(json.dumps(took) + "\n")
        sys.stderr.write(f"{took}\n")
        if code is None:
            raise SystemExit(_TIME_IS_UP)
        if code:
            raise SystemExit(code)


if __name__ == "__main__":
    main()
