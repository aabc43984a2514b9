"""The Fréchet distance beside its peers on four spectra: single-thread CPU seconds and error.

    python -m benchmarks.frechet [--dim 2048] [--repeats 3] [--out FILE]

Spectra of real features fall steeply; how steeply decides which shortcuts are exact. Each is run
with more samples than dimensions, from covariances, and with fewer, where pagoda starts from the
features and every peer is given the covariances for nothing. All take turns in one process with
one thread and one BLAS kernel, which is printed; clean-fid, the slowest by far, has one turn.
Seconds are medians over the turns, and so is the ratio of the fastest peer to pagoda. Truth:
covariances that commute, sum (sqrt a - sqrt b)^2; for sampled ones singular values of the product
of Cholesky factors, or of the features.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.timing import kernels, with_own_kernels

OURS, SLOW = "pagoda", "clean-fid"
Statistics = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def spectra(dim: int) -> dict[str, np.ndarray]:
    """Eigenvalues of the covariance, largest first."""
    i = np.arange(1, dim + 1)
    return {"1/i": 1 / i, "1/i^2": i**-2.0, "exp(-i/100)": np.exp(-i / 100), "flat": np.ones(dim)}


def rotation(dim: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def commuting(values: np.ndarray) -> tuple[Statistics, float]:
    """Covariances with one set of eigenvectors, and the distance."""
    dim = len(values)
    q, other = rotation(dim, 0), values * np.random.default_rng(1).uniform(0.5, 2, dim)
    mean = np.zeros(dim)
    s1, s2 = (q * v @ q.T for v in (values, other))
    given = (mean, (s1 + s1.T) / 2, mean + 0.01, (s2 + s2.T) / 2)
    return given, float(np.square(np.sqrt(values) - np.sqrt(other)).sum() + 1e-4 * dim)


def sampled(values: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Covariance of n > d normal samples, drawn by Bartlett's decomposition."""
    rng, dim = np.random.default_rng(seed), len(values)
    lower = np.tril(rng.normal(size=(dim, dim)), -1)
    lower[np.diag_indices(dim)] = np.sqrt(rng.chisquare(n - 1 - np.arange(dim)))
    factor = (rotation(dim, seed) * np.sqrt(values)) @ lower
    return factor @ factor.T / (n - 1)


def by_eigh(m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    """tr (A S2 A)^(1/2) with A = S1^(1/2)."""
    values, vectors = np.linalg.eigh(s1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    found = np.sqrt(np.linalg.eigvalsh(root @ s2 @ root).clip(0)).sum()
    return float((m1 - m2) @ (m1 - m2) + np.trace(s1) + np.trace(s2) - 2 * found)


def by_clean_fid(*given: np.ndarray) -> float:
    from cleanfid.fid import frechet_distance

    return float(frechet_distance(*given))


def by_torch_fidelity(m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    first, second = {"mu": m1, "sigma": s1}, {"mu": m2, "sigma": s2}
    return float(next(iter(fid_statistics_to_metric(first, second, False).values())))


def by_torchmetrics(*given: np.ndarray) -> float:
    import torch
    from torchmetrics.image.fid import _compute_fid

    return float(_compute_fid(*map(torch.from_numpy, given)))


PEERS: dict[str, Callable[..., float]] = {
    "torch-fidelity": by_torch_fidelity, "torchmetrics": by_torchmetrics,
    "eigh + eigvalsh": by_eigh, SLOW: by_clean_fid,
}  # fmt: skip


def exact(a: np.ndarray, b: np.ndarray) -> float:
    """tr (A A^T B B^T)^(1/2): singular values, without a shortcut."""
    return float(np.linalg.svd(a.T @ b, compute_uv=False).sum())


def many(values: np.ndarray) -> tuple[Callable[[], float], Statistics, float]:
    """n = 10 d: what pagoda does, what peers are given, the truth."""
    from pagoda.evaluation.metrics.frechet import frechet_distance

    mean, n = np.zeros(len(values)), 10 * len(values)
    s1, s2 = sampled(values, n, 0), sampled(values * 1.1, n, 1)
    cross = exact(*map(np.linalg.cholesky, (s1, s2)))
    given = (mean, s1, mean + 0.01, s2)
    truth = 1e-4 * len(values) + np.trace(s1) + np.trace(s2) - 2 * cross
    return lambda: frechet_distance(*given), given, float(truth)


def few(values: np.ndarray) -> tuple[Callable[[], float], Statistics, float]:
    """n = d / 2: from the features."""
    from pagoda.evaluation.metrics.frechet import frechet_distance_of_features

    rng, dim = np.random.default_rng(2), len(values)
    x, y = (rng.normal(size=(dim // 2, dim)) * np.sqrt(v) @ rotation(dim, s).T
            for s, v in enumerate((values, values * 1.1)))  # fmt: skip
    y += 0.01
    means, (a, b) = [x.mean(0), y.mean(0)], (x - x.mean(0), y - y.mean(0))
    given = (means[0], np.cov(x, rowvar=False), means[1], np.cov(y, rowvar=False))
    delta, left = means[0] - means[1], len(x) - 1
    truth = delta @ delta + (np.sum(a * a) + np.sum(b * b) - 2 * exact(a.T, b.T)) / left
    return lambda: frechet_distance_of_features(x, y), given, float(truth)


def timed(call: Callable[[], float]) -> tuple[float, float]:
    start = time.process_time()
    value = call()
    return time.process_time() - start, value


def run(dim: int, repeats: int) -> list[dict[str, Any]]:
    """A row a spectrum and number of samples: medians of seconds, relative errors."""
    from pagoda.evaluation.metrics.frechet import frechet_distance

    rows: list[dict[str, Any]] = []
    small, _ = commuting(np.ones(8))
    for find in (frechet_distance, *PEERS.values()):
        find(*small)  # libraries are imported before any clock starts
    for name, values in spectra(dim).items():
        given, truth = commuting(values)
        known = {OURS: abs(frechet_distance(*given) / truth - 1)}
        for samples, make in (("n = 10 d", many), ("n = d / 2", few)):
            ours, given, truth = make(values)
            calls = {OURS: ours} | {k: partial(f, *given) for k, f in PEERS.items()}
            runs: dict[str, list[tuple[float, float]]] = {k: [] for k in calls}
            for i in range(repeats):
                for peer, call in calls.items():
                    if i == 0 or peer != SLOW:
                        runs[peer].append(timed(call))
            row = {
                "spectrum": name, "samples": samples,
                "seconds": {k: median(s for s, _ in r) for k, r in runs.items()},
                "ratio": median(
                    min(runs[k][i][0] for k in PEERS if i < len(runs[k])) / runs[OURS][i][0]
                    for i in range(repeats)
                ),
                "error": {k: abs(r[0][1] / truth - 1) for k, r in runs.items()},
                "error where covariances commute": known[OURS],
            }  # fmt: skip
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    names = [OURS, *PEERS]
    lines = [
        "| spectrum | samples | " + " | ".join(names) + " | fastest peer over pagoda | error |"
    ]
    lines.append("|---|---|" + "---:|" * (len(names) + 2))
    for row in rows:
        seconds = row["seconds"]
        worst = max(row["error"][OURS], row["error where covariances commute"])
        cells = [f"{seconds[k]:.2f}" for k in names] + [f"{row['ratio']:.2f}", f"{worst:.0e}"]
        lines.append(f"| {row['spectrum']} | {row['samples']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write all rows to this JSON file")
    args = parser.parse_args()
    with_own_kernels("benchmarks.frechet", 1)
    print(kernels(), flush=True)
    rows = run(args.dim, args.repeats)
    if args.out:
        text = json.dumps({"kernels": kernels(), "rows": rows}, indent=1) + "\n"
        args.out.write_text(text, encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
