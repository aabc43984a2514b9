"""Metrics of pagoda against named peers: single-thread CPU seconds, peak memory, error.

The Fréchet distance beside its peers is in ``benchmarks/frechet.py``.

    python -m benchmarks.metrics [--quick] [--rows WORD] [--out FILE]

Rows that FILE has already are not run again, so that a run that was stopped goes on; the table,
in markdown for benchmarks/README.md, is of all rows in FILE. It takes about a quarter of an hour of
a quiet core, a third of that for the manifold of 50k, which comes last.

Every measurement is a process of its own. Inputs are loaded and libraries imported before the clock
starts; the peak is VmHWM, reset at that point, less what was resident then. All of one row take
turns, so that a change of the machine's load meets all of them. Where CUDA is at hand, rows marked
"cuda" run ours on it too, in wall seconds. ``--torch DEVICE`` runs these alone: ours through torch
on a device, which needs none of the peers.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metric_inputs import load, make_inputs
from benchmarks.metric_table import EIGVALS, SQRTM, table
from benchmarks.timing import versions

ONE_THREAD = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"], "1"
)
Implementation = Callable[[Path], Callable[[], Any]]
IMPLEMENTATIONS: dict[str, dict[str, Implementation]] = {}
REPEATS = {"manifold": 2, "manifold of 50k": 1, "Frechet, rank 1000, truth known": 1,
           "Frechet, n < d, truth known": 1}  # fmt: skip
LAST = "manifold of 50k"


def implementation(row: str, name: str) -> Callable[[Implementation], Implementation]:
    """Register a function that prepares inputs and returns what is timed."""

    def register(function: Implementation) -> Implementation:
        IMPLEMENTATIONS.setdefault(row, {})[name] = function
        return function

    return register


def _difference(m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    return float((m1 - m2) @ (m1 - m2) + np.trace(s1) + np.trace(s2))


def by_sqrtm(m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    from cleanfid.fid import frechet_distance

    return float(frechet_distance(m1, s1, m2, s2))


def by_eigvals(m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    """As torch-fidelity does."""
    roots = np.sqrt(np.linalg.eigvals(s1 @ s2).astype(complex)).real.sum()
    return _difference(m1, s1, m2, s2) - 2 * float(roots)


def covariances(inputs: Path, kind: str) -> list[np.ndarray]:
    return [load(inputs, f"{kind}_{name}") for name in ("m1", "s1", "m2", "s2")]


@implementation("Frechet, n > d", "pagoda, cached factor")
def full_ours(inputs: Path, device: str | None = None) -> Callable[[], Any]:
    from pagoda.evaluation.metrics.frechet import frechet_distance
    from pagoda.evaluation.metrics.statistics import covariance_factor

    m1, s1, m2, s2 = covariances(inputs, "full")
    factor = covariance_factor(s1)
    return lambda: frechet_distance(m1, s1, m2, s2, factor, device)


@implementation("Frechet, n > d", "pagoda")
def full_ours_cold(inputs: Path) -> Callable[[], Any]:
    from pagoda.evaluation.metrics.frechet import frechet_distance

    m1, s1, m2, s2 = covariances(inputs, "full")
    return lambda: frechet_distance(m1, s1, m2, s2)


@implementation("Frechet, n < d", "pagoda")
def few_ours(inputs: Path, device: str | None = None) -> Callable[[], Any]:
    from pagoda.evaluation.metrics.frechet import frechet_distance_of_features

    x, y = load(inputs, "few_x"), load(inputs, "few_y")
    return lambda: frechet_distance_of_features(x, y, device)


def manifold_inputs(inputs: Path, n: str = "10k") -> tuple[np.ndarray, np.ndarray]:
    return load(inputs, f"real_{n}"), load(inputs, f"generated_{n}")


@implementation("manifold", "prdc")
def manifold_prdc(inputs: Path) -> Callable[[], Any]:
    from prdc import compute_prdc

    real, generated = manifold_inputs(inputs)
    return lambda: compute_prdc(real, generated, nearest_k=3)


@implementation("manifold", "pagoda")
def manifold_ours(inputs: Path, device: str | None = None) -> Callable[[], Any]:
    from pagoda.evaluation.metrics.precision_recall import manifold_scores

    real, generated = manifold_inputs(inputs)
    return lambda: manifold_scores(real, generated, 3, device=device)._asdict()


@implementation("manifold of 50k", "pagoda")
def manifold_large(inputs: Path, device: str | None = None) -> Callable[[], Any]:
    from pagoda.evaluation.metrics.precision_recall import manifold_scores

    real, generated = manifold_inputs(inputs, "50k")
    return lambda: manifold_scores(real, generated, 3, device=device)._asdict()


@implementation("statistics", "numpy cov (pytorch-fid)")
def statistics_numpy(inputs: Path) -> Callable[[], Any]:
    rows = load(inputs, "real_50k")

    def run() -> float:
        kept = np.empty(rows.shape)
        for start in range(0, len(rows), 64):
            kept[start : start + 64] = rows[start : start + 64]
        return float(np.trace(np.cov(kept, rowvar=False)) + kept.mean(axis=0).sum())

    return run


@implementation("statistics", "pagoda")
def statistics_ours(inputs: Path, device: str | None = None) -> Callable[[], Any]:
    from pagoda.evaluation.metrics.statistics import RunningMoments

    rows = load(inputs, "real_50k")

    def run() -> float:
        running = RunningMoments(rows.shape[1], device=device)
        for start in range(0, len(rows), 64):
            running.update(rows[start : start + 64])
        found = running.moments()
        return float(np.trace(found.covariance) + found.mean.sum())

    return run


@implementation("KID, 100 subsets of 1000", "clean-fid")
def kid_clean(inputs: Path) -> Callable[[], Any]:
    from cleanfid.fid import kernel_distance

    real, generated = manifold_inputs(inputs)
    return lambda: kernel_distance(real, generated)


@implementation("KID, 100 subsets of 1000", "torch-fidelity")
def kid_fidelity(inputs: Path) -> Callable[[], Any]:
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric

    torch.set_num_threads(1)
    real, generated = (torch.from_numpy(np.array(f)) for f in manifold_inputs(inputs))
    return lambda: kid_features_to_metric(
        real, generated, kid_subsets=100, kid_subset_size=1000, verbose=False
    )["kernel_inception_distance_mean"]


@implementation("KID, 100 subsets of 1000", "pagoda")
def kid_ours(inputs: Path, device: str | None = None) -> Callable[[], Any]:
    from pagoda.evaluation.metrics.kid import kernel_distance_of_subsets

    real, generated = manifold_inputs(inputs)
    return lambda: kernel_distance_of_subsets(real, generated, device=device)[0]


@implementation("KID, 100 subsets of 1000", "pagoda, all pairs instead")
def kid_whole(inputs: Path, device: str | None = None) -> Callable[[], Any]:
    from pagoda.evaluation.metrics.kid import kernel_distance

    real, generated = manifold_inputs(inputs)
    return lambda: kernel_distance(real, generated, device)


def _error(find: Callable[..., float]) -> Implementation:
    def prepare(inputs: Path) -> Callable[[], Any]:
        given, truth = covariances(inputs, "truth"), float(load(inputs, "truth_value"))
        return lambda: {"relative_error": abs(find(*given) / truth - 1)}

    return prepare


def by_pagoda(m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    from pagoda.evaluation.metrics.frechet import frechet_distance

    return frechet_distance(m1, s1, m2, s2)


for _name, _find in ((SQRTM, by_sqrtm), (EIGVALS, by_eigvals), ("pagoda", by_pagoda)):
    implementation("Frechet, rank 1000, truth known", _name)(_error(_find))


@implementation("Frechet, n < d, truth known", "pagoda")
def features_truth(inputs: Path) -> Callable[[], Any]:
    from pagoda.evaluation.metrics.frechet import frechet_distance_of_features

    x, y = load(inputs, "map_x"), load(inputs, "map_y")
    truth = float(load(inputs, "map_value"))
    return lambda: {"relative_error": abs(frechet_distance_of_features(x, y) / truth - 1)}


def _resident(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure(row: str, name: str, inputs: Path, device: str | None) -> dict[str, Any]:
    """Run one implementation in this process: CPU seconds, or wall seconds on a device, and MiB."""
    prepare = IMPLEMENTATIONS[row][name]
    run = prepare(inputs, device) if device else prepare(inputs)  # type: ignore[call-arg]
    if device:
        run()  # the device starts up
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, clock = _resident("VmRSS"), time.perf_counter if device else time.process_time
    start = clock()
    value = run()
    return {"seconds": clock() - start, "mib": _resident("VmHWM") - before, "value": value}


def in_child(row: str, name: str, inputs: Path, device: str | None = None) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.metrics", "--one", row, name]
    command += ["--inputs", str(inputs), *(["--device", device] if device else [])]
    done = subprocess.run(
        command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{row}, {name}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _takes_device(function: Implementation) -> bool:
    return "device" in inspect.signature(function).parameters


def on_device(row: str, inputs: Path, device: str) -> list[dict[str, Any]]:
    """Ours of a row through torch on a device, in wall seconds."""
    names = [name for name, function in IMPLEMENTATIONS[row].items() if _takes_device(function)]
    return [{"row": row, "name": f"{name}, torch on {device} (wall)",
             "runs": [in_child(row, name, inputs, device)]} for name in names]  # fmt: skip


def run_row(row: str, inputs: Path, quick: bool) -> list[dict[str, Any]]:
    repeats = 1 if quick else REPEATS.get(row, 3)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in IMPLEMENTATIONS[row]}
    for _ in range(repeats):
        for name in runs:
            runs[name].append(in_child(row, name, inputs))
            print(f"{row} | {name} | {runs[name][-1]}", flush=True)
    results = [{"row": row, "name": name, "runs": found} for name, found in runs.items()]
    return results + (on_device(row, inputs, "cuda") if cuda() else [])


def cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repeat, without the 50k manifold")
    parser.add_argument("--rows", default="", help="only rows whose name holds this")
    parser.add_argument("--torch", metavar="DEVICE", help="only ours, through torch on a device")
    parser.add_argument("--out", type=Path, help="also write all runs to this JSON file")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--inputs", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--device", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        row, name = args.one
        print(json.dumps(measure(row, name, args.inputs, args.device)))
        return
    packages = ["numpy", "scipy", "clean-fid", "torch-fidelity", "prdc", "scikit-learn", "torch"]
    installed = versions(*packages)
    print(
        ", ".join(f"{name} {number}" for name, number in installed.items()), end="\n\n", flush=True
    )
    rows = sorted((row for row in IMPLEMENTATIONS if args.rows in row), key=LAST.__eq__)
    if args.torch:
        rows = [row for row in rows if any(map(_takes_device, IMPLEMENTATIONS[row].values()))]
    if args.quick:
        rows = [row for row in rows if row != LAST]
    found = {"versions": installed, "quick": args.quick}
    if args.torch:
        found["torch"] = args.torch
    print(table(run_rows(rows, args.quick, args.out, found)))


def run_rows(
    rows: list[str], quick: bool, out: Path | None, conditions: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every row that ``out`` lacks; it is written after each. Returns the results of all rows."""
    results = read_results(out, conditions) if out else []
    left = [row for row in rows if row not in {result["row"] for result in results}]
    if not left:
        return results
    with tempfile.TemporaryDirectory() as scratch:
        make_inputs(Path(scratch))
        for row in left:
            device, inputs = conditions.get("torch"), Path(scratch)
            results += on_device(row, inputs, device) if device else run_row(row, inputs, quick)
            if out:
                partial = out.with_suffix(".partial")
                partial.write_text(json.dumps(conditions | {"results": results}, indent=1) + "\n")
                partial.replace(out)
    order = list(IMPLEMENTATIONS)
    return sorted(results, key=lambda result: order.index(result["row"]))


def read_results(out: Path, conditions: dict[str, Any]) -> list[dict[str, Any]]:
    """What an earlier run left, of the same versions and repeats."""
    if not out.is_file():
        return []
    tree = json.loads(out.read_text(encoding="utf-8"))
    if {key: tree.get(key) for key in conditions} != conditions:
        raise SystemExit(f"{out} is of other versions or repeats; choose another --out")
    return list(tree["results"])


if __name__ == "__main__":
    main()
