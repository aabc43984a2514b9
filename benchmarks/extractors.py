"""Images/s of the embedded evaluator of natural images beside timm eager, in turns.

    python -m benchmarks.extractors [--network lite1] [--side 128] [--images 64] [--repeats 5]

Random images of ``--side`` pixels, so that nothing is resized, with random weights, which cost the
same. Features of all implementations are compared before anything is timed. Processor seconds say
more than the clock where other work shares the machine.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from benchmarks.timing import interleaved, table
from pagoda.evaluation.features.efficientnet import (
    CALL,
    PART,
    FoldedEfficientNet,
    backbone,
    on_cores,
)
from pagoda.evaluation.features.resize import normalise

Job = Callable[[], Tensor]
HALF = (0.5, 0.5, 0.5)


def jobs(network: Any, side: int, images: np.ndarray) -> dict[str, Job]:
    """What takes turns: timm as it is, then one lever more each, to what is used."""
    x = torch.from_numpy(images)

    def pooled(model: Any) -> Callable[[Tensor], Tensor]:
        @torch.inference_mode()
        def call(part: Tensor) -> Tensor:
            found: Tensor = model.forward_features(normalise(part, HALF, HALF)).mean((2, 3))
            return found

        return call

    def folded(part: int | None) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        model = FoldedEfficientNet(network, side, part)

        @torch.inference_mode()
        def call(images: Tensor) -> tuple[Tensor, Tensor]:
            features, logits = model(normalise(images, HALF, HALF))
            return features, logits

        return call

    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    eager, eager_last = pooled(network), pooled(last)
    whole, parts = folded(None), folded(PART)
    return {
        "timm eager": lambda: eager(x),
        "channels last": lambda: eager_last(x.contiguous(memory_format=torch.channels_last)),
        "+ folded": lambda: whole(x)[0],
        f"+ calls of {CALL}": lambda: torch.cat([whole(p)[0] for p in x.split(CALL)]),
        f"+ early maps of {PART}": lambda: torch.cat([parts(p)[0] for p in x.split(CALL)]),
        "+ a call a core": lambda: on_cores(parts, x)[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="lite1")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.manual_seed(0)
    network = timm.create_model(backbone(given.network)).eval().requires_grad_(False)
    shape = (given.images, 3, given.side, given.side)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    made = jobs(network, given.side, images)
    expected = made["timm eager"]()
    for name, job in made.items():
        if (job() - expected).abs().max() > 1e-4 * expected.abs().max():
            raise SystemExit(f"{name} gives other features than timm eager")
    case = f"{given.network}, {given.side}x{given.side}, {torch.get_num_threads()} threads"
    rows = interleaved(case, made, given.images, given.repeats)
    sys.stdout.write(
        table(rows, "timm eager") + "\n\n| implementation | images a CPU s |\n|---|---:|\n"
    )
    for row in rows:
        sys.stdout.write(f"| {row['implementation']} | {given.images / min(row['cpu_s']):.0f} |\n")


if __name__ == "__main__":
    main()
