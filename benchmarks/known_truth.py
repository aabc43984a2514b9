"""Whether a feature network can be trusted: real images made worse by known amounts.

    python -m benchmarks.known_truth --images IMAGES.zip [--extractor efficientnet:lite1] [--n 1000]

Real images of ``train`` are the reference; others of ``train``, and held-out ones, are the floor.
Held-out ones blurred, noised or without some classes must be further away the more is done to them,
and nothing of plain noise may count as precise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from pagoda.data.registry import Wanted, open_source
from pagoda.evaluation.features.base import open_extractor
from pagoda.evaluation.metrics.base import Comparison, Sample, Settings, metrics
from pagoda.evaluation.streaming import StoredImages, collect, subset

METRICS = ("fd", "kd", "precision", "recall")


def blurred(sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: gaussian_filter(x, (0, 0, sigma, sigma))


def noised(deviation: float) -> Callable[[np.ndarray], np.ndarray]:
    def add(x: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(0).normal(0, deviation, x.shape)
        return np.clip(np.rint(x + noise), 0, 255).astype(np.uint8)

    return add


def plain_noise(x: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, x.shape, dtype=np.uint8)


def drawn(path: Path, split: str, n: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, side, side) and labels of a fixed random choice, box-averaged to the side."""
    source = open_source("zip", Wanted(split, str(path)))
    rows = subset(len(source), n)
    images = np.stack([np.asarray(source.load(int(i))) for i in rows])
    if images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    factor = images.shape[-1] // side
    boxes = images.reshape(len(images), 3, side, factor, side, factor)
    return np.rint(boxes.mean((3, 5))).astype(np.uint8), np.asarray(source.labels)[rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--extractor", default="efficientnet:lite1")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--side", type=int, default=128)
    given = parser.parse_args()
    extractor = open_extractor(given.extractor, torch.device("cpu"), 64)
    train, _ = drawn(given.images, "train", 2 * given.n, given.side)
    order = np.random.default_rng(0).permutation(len(train))
    real, other = train[order[: given.n]], train[order[given.n :]]
    held_out, labels = drawn(given.images, "test", given.n, given.side)
    sets = {"train, other half": other, "held out": held_out}
    for sigma in (0.5, 1.0, 2.0, 4.0):
        sets[f"held out, blur {sigma:g}"] = blurred(sigma)(held_out)
    for deviation in (8, 16, 32, 64):
        sets[f"held out, noise {deviation}"] = noised(deviation)(held_out)
    for classes in (8, 5, 2, 1):
        kept = held_out[labels < classes]
        sets[f"held out, {classes} classes"] = np.resize(kept, held_out.shape)
    sets["plain noise"] = plain_noise(held_out)

    def seen(name: str, images: np.ndarray) -> Sample:
        (sample,) = collect(StoredImages(name, images), [(extractor, {"features"})])
        return sample

    settings = Settings(subset_size=min(1000, given.n // 2))
    reference = seen("train", real)
    sys.stdout.write(f"| {extractor.name} | {' | '.join(METRICS)} |\n|---|---:|---:|---:|---:|\n")
    for name, images in sets.items():
        comparison = Comparison(seen(name, images), reference, settings)
        values = [metrics()[key].measure(comparison).value for key in METRICS]
        sys.stdout.write(f"| {name} | {' | '.join(f'{v:.4g}' for v in values)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
