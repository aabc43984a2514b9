"""Features to time the metrics on: as Inception's in size and sign, made from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

DIM = 2048
RANK = 1000


def load(inputs: Path, name: str) -> np.ndarray:
    return np.asarray(np.load(inputs / f"{name}.npy"))


def make_inputs(inputs: Path) -> None:
    """Write every array that a benchmark reads, a gigabyte in all."""

    def save(name: str, array: np.ndarray) -> None:
        np.save(inputs / f"{name}.npy", array)

    real, generated = features(50_000, 1), features(50_000, 2, 1.02)
    for name, rows in (("real", real), ("generated", generated)):
        save(f"{name}_50k", rows)
        save(f"{name}_10k", rows[:10_000])
    for kind, n in (("full", 50_000), ("few", 1000)):
        for i, rows in (("1", real[:n]), ("2", generated[:n])):
            save(f"{kind}_m{i}", rows.mean(axis=0, dtype=np.float64))
            save(f"{kind}_s{i}", np.cov(rows, rowvar=False, dtype=np.float64))
    save("few_x", real[:1000])
    save("few_y", generated[:1000])
    for name, array in (commuting_pair() | mapped_pair()).items():
        save(name, np.asarray(array))


def features(n: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """Non-negative, correlated, skewed; (n, 2048) float32.

    A linear mixture of 2048 latent directions with a decaying spectrum, rectified.
    """
    shared = np.random.default_rng(0)
    mixing = shared.standard_normal((DIM, DIM), np.float32) / np.float32(np.sqrt(DIM))
    mixing *= np.linspace(1.5, 0.3, DIM, dtype=np.float32)[:, None]
    offset = shared.uniform(-0.4, 0.6, DIM).astype(np.float32)
    rng = np.random.default_rng(seed)
    rows = np.empty((n, DIM), np.float32)
    for start in range(0, n, 5000):
        part = rng.standard_normal((min(5000, n - start), DIM), np.float32) * np.float32(scale)
        rows[start : start + 5000] = np.maximum(part @ mixing + offset, 0)
    return rows


def commuting_pair() -> dict[str, np.ndarray | float]:
    """Covariances of rank 1000 with common eigenvectors: sum (sqrt(a) - sqrt(b))^2."""
    rng = np.random.default_rng(3)
    q = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0][:, :RANK]
    a, b = rng.uniform(0.1, 5, RANK), rng.uniform(0.1, 5, RANK)
    zero = np.zeros(DIM)
    return {
        "truth_m1": zero,
        "truth_m2": zero,
        "truth_s1": (q * a) @ q.T,
        "truth_s2": (q * b) @ q.T,
        "truth_value": float(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)),
    }


def mapped_pair() -> dict[str, np.ndarray | float]:
    """1000 rows x and their images T x, T symmetric and positive: |x - T x|^2 / (n - 1), centred.

    A gradient of a convex function is an optimal map (Brenier), so this is the distance.
    """
    rng = np.random.default_rng(4)
    x = rng.standard_normal((RANK, DIM))
    x -= x.mean(axis=0)
    q = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    rest = 1 - rng.uniform(0.3, 2.5, DIM)
    moved = ((x @ q) * rest) @ q.T
    return {"map_x": x, "map_y": x - moved, "map_value": float(np.sum(moved**2) / (RANK - 1))}
