"""Every benchmark of a GPU machine in one command.

    python -m benchmarks.gpu --work FOLDER [--edm EDM] [--quick] [--only WORD]

Training step and sampling with inversion (beside NVlabs/edm where EDM is a checkout of it), metrics
through torch, images/s over sizes with the peak memory of every stage, and what ``pagoda plan
--probe`` foretells for the profile ``imagenette``. Each part is a process whose results go to a
file in FOLDER; the same command again goes on where it stopped, so that it can be cut into pieces.
At the end, ``FOLDER/gpu.json`` holds everything and ``FOLDER/gpu.md`` the tables for
benchmarks/README.md. Needs torch, timm, numpy, pandas, scipy, typer, rich and what they bring, but
none of DVC, Hydra, MLflow or the metrics' peers. Without a GPU all runs on the CPU, for a trial:
``--quick`` takes the smallest sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Part:
    """One process: a module with arguments. Its output is markdown, or JSON where ``json``."""

    name: str
    command: list[str]
    json: bool = False


def parts(work: Path, edm: Path | None, quick: bool, device: str) -> list[Part]:
    """What is run, the quickest first."""
    beside = ["--edm", str(edm)] if edm else []
    short = ["--quick"] if quick else []
    few = ["--rows", "n < d"] if quick else []
    profile = "smoke" if quick else "imagenette"

    def out(name: str) -> list[str]:
        return ["--out", str(work / f"{name}.json")]

    return [
        Part("plan", ["pagoda", "plan", "--profile", profile, "--probe"]),
        Part("teacher_step", ["benchmarks.teacher_step", *beside, *short, *out("teacher_step")]),
        Part("sampling", ["benchmarks.sampling", *beside, *short, *out("sampling"),
                          *(["--levels", "6"] if quick else [])]),
        Part("metrics", ["benchmarks.metrics", "--torch", device, *short, *few, *out("metrics")]),
        Part("training", ["benchmarks.training", *short, *out("training")], json=True),
    ]  # fmt: skip


def run(part: Part, work: Path) -> dict[str, Any]:
    """Run a part; a finished one is read from its file."""
    file = work / f"{part.name}.done.json"
    if file.is_file():
        return dict(json.loads(file.read_text()))
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *part.command], env=os.environ | {"PYTHONPATH": path}, cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    result = {"part": part.name, "seconds": round(time.monotonic() - start, 1),
              "command": " ".join(part.command), "status": done.returncode}  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return result | {"failed": lines[-1] if lines else f"exit status {done.returncode}"}
    result["output"] = json.loads(done.stdout) if part.json else done.stdout
    file.write_text(json.dumps(result, indent=1) + "\n")
    return result


def as_markdown(results: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """All tables, for benchmarks/README.md."""
    lines = ["## On a GPU: `benchmarks/gpu.py`", "", f"`{json.dumps(machine)}`", ""]
    for result in results:
        lines += [f"### {result['part']}", "", f"`{result['command']}`, {result['seconds']} s", ""]
        if "failed" in result:
            lines += [f"Failed: {result['failed']}", ""]
        elif isinstance(result["output"], str):
            lines += [result["output"].strip(), ""]
        else:
            lines += ["```json", json.dumps(result["output"], indent=1), "```", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the results")
    parser.add_argument("--edm", type=Path, help="checkout of NVlabs/edm")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, for a trial")
    parser.add_argument("--only", default="", help="only parts whose name holds this")
    args = parser.parse_args()
    import torch

    from benchmarks.timing import machine

    args.work.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    edm = args.edm.resolve() if args.edm else None
    results = []
    for part in parts(args.work.resolve(), edm, args.quick, device):
        if args.only in part.name:
            results.append(run(part, args.work))
            failed = results[-1].get("failed")
            sys.stderr.write(f"{part.name}: {failed or 'done'}, {results[-1]['seconds']} s\n")
    conditions = machine("numpy", "timm")
    tree = {"machine": conditions, "quick": args.quick, "parts": results}
    (args.work / "gpu.json").write_text(json.dumps(tree, indent=1) + "\n")
    (args.work / "gpu.md").write_text(as_markdown(results, conditions))
    if any("failed" in result for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
