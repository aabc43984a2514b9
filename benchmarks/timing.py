"""Implementations that take turns, and files of results that a stopped run goes on from."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
CHOSEN = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Kernels that a machine may force: they are left to the library, the same for all."""

Row = dict[str, Any]
"""One implementation at one case: their names, ``images``, ``wall_s`` and ``cpu_s``."""


class Results:
    """Rows in a JSON file, written after every case; a case that is there is not run again.

    Args:
        path: the file; None keeps the rows in memory only.
        conditions: what all rows have in common. A file of other ones is refused.
    """

    def __init__(self, path: Path | None, conditions: dict[str, Any]) -> None:
        self.path, self.conditions = path, conditions
        self.rows: list[Row] = []
        if path is not None and path.is_file():
            tree = json.loads(path.read_text())
            if tree["conditions"] != conditions:
                raise SystemExit(f"{path} was measured under other conditions; take another --out")
            self.rows = tree["rows"]

    def has(self, case: str) -> bool:
        """Whether a case was measured."""
        return any(row["case"] == case for row in self.rows)

    def add(self, rows: Sequence[Row]) -> None:
        """Keep the rows of one case."""
        self.rows += rows
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_suffix(".partial")
            tree = {"conditions": self.conditions, "rows": self.rows}
            partial.write_text(json.dumps(tree, indent=1) + "\n")
            partial.replace(self.path)


def interleaved(
    case: str, jobs: Mapping[str, Callable[[], object]], images: int, repeats: int, warm: int = 1
) -> list[Row]:
    """Time jobs in turn, so that a change of the machine's load meets all of them.

    The first ``warm`` rounds are not counted. Seconds are lists, one a repeat: on the wall, and of
    this process's cores.
    """
    rows: dict[str, Row] = {
        name: {"case": case, "implementation": name, "images": images, "wall_s": [], "cpu_s": []}
        for name in jobs
    }
    for turn in range(warm + repeats):
        for name, job in jobs.items():
            synchronise()
            wall, cpu = time.perf_counter(), time.process_time()
            job()
            synchronise()
            if turn >= warm:
                rows[name]["wall_s"].append(round(time.perf_counter() - wall, 5))
                rows[name]["cpu_s"].append(round(time.process_time() - cpu, 5))
    return list(rows.values())


def with_own_kernels(module: str, threads: int | None = None) -> None:
    """Start a benchmark anew unless BLAS libraries choose their kernels, with that many threads.

    Libraries read these variables when they are loaded.
    """
    wanted = {k: v for k, v in os.environ.items() if k not in CHOSEN}
    if threads is not None:
        wanted |= dict.fromkeys(THREADS, str(threads))
    if wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], wanted)


def kernels() -> str:
    """The BLAS libraries that are loaded, with kernel and threads."""
    import torch  # noqa: F401  # it brings its own
    from threadpoolctl import threadpool_info

    found = {
        (i["internal_api"], i.get("architecture"), i["num_threads"]) for i in threadpool_info()
    }
    return "; ".join(
        f"{api} {kernel or ''}, {n} thread" for api, kernel, n in sorted(found, key=str)
    )


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def whole_float32() -> Iterator[None]:
    """TF32 off, which keeps 10 bits of what a GPU's convolutions are given in float32."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def matmul_peak(dtype: str, side: int | None = None) -> float:
    """FLOP/s of a square matrix product of random numbers here, the best of ten."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    n = side or (8192 if device == "cuda" else 1024)
    a, b = (torch.randn(n, n, device=device).to(getattr(torch, dtype)) for _ in range(2))
    (row,) = interleaved("matmul", {dtype: lambda: a @ b}, 1, repeats=10, warm=3)
    return 2 * n**3 / min(row["wall_s"])


def machine(*packages: str) -> dict[str, Any]:
    """What rows were measured on, without the load, which changes."""
    import torch

    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {"python": platform.python_version(), **versions("torch", *packages)},
    }


def revision(checkout: str | Path) -> str | None:
    """The commit of a peer's checkout, None if it does not say."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def versions(*packages: str) -> dict[str, str | None]:
    """Version of each package, None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and the narrowest pair of order statistics that holds the true one in 95 % of cases.

    P(x_(k) <= m <= x_(n+1-k)) = 1 - 2 P(B < k) for B ~ Bin(n, 1/2), whatever the distribution. Of
    fewer than six values no pair does: then it is their range.
    """
    found, n = sorted(values), len(values)
    below, k = 0.0, 0
    while (below := below + math.comb(n, k) / 2**n) <= 0.025:
        k += 1
    k = max(k, 1)
    return statistics.median(found), found[k - 1], found[n - k]


def table(rows: Sequence[Row], peer: str, flops: Mapping[str, float] | None = None) -> str:
    """Markdown: median (range) of wall seconds, images/s, and the first ``peer`` of a case over it.

    The ratio is of wall seconds, then of the processor's, which a machine that other work shares
    distorts less.

    Args:
        peer: prefix of the implementation that the others are compared with.
        flops: operations an image of each case, for a column of FLOP/s.
    """
    header = ["case", "implementation", "ms: median (range)", "images/s", f"{peer} over it"]
    lines = [[*header, "CPU s", *(["GFLOP/s"] if flops else [])]]
    lines.append(["---"] * 2 + ["---:"] * (len(lines[0]) - 2))
    for row in rows:
        against = next((r for r in rows if r["case"] == row["case"]
                        and r["implementation"].startswith(peer)), row)  # fmt: skip
        wall, cpu = (
            statistics.median(against[key]) / statistics.median(row[key])
            for key in ("wall_s", "cpu_s")
        )
        median = statistics.median(row["wall_s"])
        low, high = (f"{1e3 * f(row['wall_s']):,.0f}" for f in (min, max))
        rate = row["images"] / median
        cells = [row["case"], row["implementation"], f"{1e3 * median:,.0f} ({low} to {high})",
                 f"{rate:,.1f}", f"{wall:.2f}", f"{cpu:.2f}"]  # fmt: skip
        if flops:
            cells.append(f"{flops[row['case']] * rate / 1e9:,.0f}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
