"""Training steps of one-step objectives beside NVlabs/FastGen's own.

    python -m benchmarks.objective_step --fastgen FASTGEN [--quick] [--out FILE]

FASTGEN is a checkout of github.com/NVlabs/FastGen. Each of its methods trains the network that ours
trains, from the same weights, on the same images: consistency training, distribution matching (DMD2
without its discriminator, one update of the critic and one of the student), and MeanFlow with
forward derivatives. Steps take turns: losses, backward pass, AdamW. Ours also draws and mirrors
its batch, averages its weights and measures the gradient; FastGen is handed the batch. MeanFlow's
forward derivative is of a quarter of the batch with us, where the two times differ, and of all of
it there. Without --fastgen only ours run. Rows that FILE has are not measured again.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fastgen_peer import FastGen
from benchmarks.steps import steps
from benchmarks.timing import Results, interleaved, kernels, machine, table, with_own_kernels
from pagoda.methods.distribution_matching import CriticConfig
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.generator import Generator, generator_from_teacher
from pagoda.networks.unet import UNetSpec
from pagoda.training.batches import ImageBatches

_CLASSES, _STORED, _STAGE = 10, 512, 3
_SIZES = {8: 64, 32: 32}
"""Batch at each side: the default's student, and four times its side."""


def denoiser(side: int) -> Denoiser:
    """As the default profile's teacher is wide, at another side; none of its weights are zero."""
    spec = UNetSpec(side, 32, (1, 2), 1, (side // 2,), 32, 0.0, _CLASSES, time_scale=1.0)
    torch.manual_seed(0)
    made = Denoiser(spec, 0.5)
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return made


Jobs = dict[str, Callable[[], object]]


def jobs(side: int, batch: int, fastgen: FastGen | None) -> dict[str, Jobs]:
    """Of each objective, what takes turns."""
    rng, teacher = np.random.default_rng(0), denoiser(side)
    stored = rng.integers(0, 256, (_STORED, 3, side, side), np.uint8)
    labels = np.arange(_STORED) % _CLASSES
    images = ImageBatches(stores=[stored], labels=labels, device=torch.device("cpu"))
    real = torch.from_numpy(stored[:batch]).float() / 127.5 - 1, torch.from_numpy(labels[:batch])

    def student(sigma_max: float = 80.0) -> Generator:
        return generator_from_teacher(
            copy.deepcopy(teacher), sigma_max=sigma_max, output="denoiser"
        )

    def again() -> Denoiser:
        return copy.deepcopy(teacher)

    def ours(method: str, **settings: Any) -> Callable[[], object]:
        network = student().to(memory_format=torch.channels_last)
        optim = {"batch": batch, "beta2": 0.999, "ema": 0.99}
        step = steps(method, network, images, optim, teacher=again(), **settings)
        return lambda: step(100, (_STAGE + 0.5) / 8)

    made: dict[str, Jobs] = {}
    one_update = {"critic": CriticConfig(weight=0.0, steps=1), "adversarial_weight": 0.0}
    for name, method, settings in (
        ("consistency training", "consistency", {}),
        ("distribution matching", "distribution_matching", one_update),
        ("MeanFlow", "mean_flow", {}),
    ):
        made[name] = {"pagoda": ours(method, **settings)}
    if fastgen is not None:
        for name, turn in (
            ("consistency training", fastgen.consistency(again, _STAGE)),
            ("distribution matching", fastgen.matching(again)),
            ("MeanFlow", fastgen.mean_flow(student)),
        ):
            made[name]["FastGen"] = functools.partial(turn, real)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fastgen", type=Path, help="checkout of NVlabs/FastGen")
    parser.add_argument("--threads", type=int, default=1, help="of every implementation")
    parser.add_argument("--quick", action="store_true", help="one small size, two repeats")
    parser.add_argument("--out", type=Path, help="file that results are kept in")
    args = parser.parse_args()
    with_own_kernels("benchmarks.objective_step", args.threads)
    fastgen = FastGen(args.fastgen) if args.fastgen else None
    results = Results(args.out, {
        "benchmark": "objective step", "quick": args.quick, **machine("numpy"), "blas": kernels(),
        "fastgen": fastgen.revision() if fastgen else None,
    })  # fmt: skip
    for side, batch in list(_SIZES.items())[: 1 if args.quick else None]:
        for name, implementations in jobs(side, batch, fastgen).items():
            case = f"{name}, {side}x{side}, batch {batch}"
            if not results.has(case):
                results.add(
                    interleaved(case, implementations, batch, 2 if args.quick else 9, warm=2)
                )
    print(json.dumps(results.conditions), end="\n\n")
    print(table(results.rows, "FastGen" if fastgen else "pagoda"))


if __name__ == "__main__":
    main()
