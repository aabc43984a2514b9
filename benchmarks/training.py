"""What training costs: images/s over resolution, batch and processes; peak memory of every stage.

    python -m benchmarks.training [--quick] [--parts PARTS] [--out RESULTS.json]

Networks are those of the smoke profile on random images. Rates are those of whole training steps:
cases take turns after one round that is not counted. Groups of processes, one thread each, train
one batch together; they run one after the other. Memory is that of a small experiment's stages
(benchmarks/stage_memory.py). Parts are ``rates``, ``processes``, ``stages``, ``more_images`` (the
stages with four times as many images) and ``studies`` (variants of studies beside the stages); one
that RESULTS.json has is not measured again. ``--quick`` takes fewer sizes and repeats: minutes on
two cores. Writes and prints one JSON object; benchmarks/cost_page.py makes the page of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import stage_memory  # noqa: E402
from benchmarks.timing import interleaved, machine  # noqa: E402
from pagoda.data.store import cores  # noqa: E402

_CHANNELS, _SEEN = 32, 512
_BATCH = 32  # where the resolution changes
_SIDE = 16  # where the batch changes, and the number of processes
_SHARED = 64  # images a step of a group


def make(
    what: str, resolution: int, batch: int, on: str | None = None, precision: str = "fp32"
) -> Any:
    """A teacher's or a one-step generator's step on random images, here or ``on`` a device."""
    import numpy as np
    import torch

    from benchmarks.steps import steps
    from pagoda.networks.denoiser import Denoiser
    from pagoda.networks.generator import generator_from_teacher
    from pagoda.networks.unet import UNetSpec
    from pagoda.pipeline.stages.device import pick_device
    from pagoda.training.batches import ImageBatches, PairBatches

    torch.manual_seed(0)
    device = torch.device(on) if on else pick_device()
    rng = np.random.default_rng(0)
    levels = (resolution // 4).bit_length()
    spec = UNetSpec(resolution, _CHANNELS, (1, 2, 2, 2, 2)[:levels], 1, (8, 4), 32, 0.0, 10, 1.0)
    denoiser = Denoiser(spec, 0.5).to(device).to(memory_format=torch.channels_last)
    shape = (_SEEN, 3, resolution, resolution)
    images, labels = rng.integers(0, 256, shape, np.uint8), np.arange(_SEEN) % 10
    batches = ImageBatches(stores=[images], labels=labels, device=device)
    optim = {"batch": batch, "ema": 0.99, "precision": precision}
    if what == "teacher":
        return steps("teacher", denoiser, batches, optim | {"clip": 1.0})
    pairs = PairBatches(
        latents=rng.standard_normal(shape, np.float32), indices=np.arange(_SEEN),
        flips=np.zeros(_SEEN, np.uint8), images=images, labels=labels, device=device,
    )  # fmt: skip
    generator = generator_from_teacher(denoiser, sigma_max=80.0, output="denoiser").to(device)
    generator = generator.to(memory_format=torch.channels_last)
    return steps("one_step", generator, batches, optim, pairs, denoiser, prior_batch=batch)


def job(what: str, resolution: int, batch: int) -> Callable[[], None]:
    """One whole training step a call."""
    step, turns = make(what, resolution, batch), itertools.count()

    def once() -> None:
        step(next(turns), 0.5)

    return once


def rates(quick: bool) -> list[dict[str, Any]]:
    """Seconds of both kinds of step over the resolution, and at one over the batch."""
    batches = (16, 64) if quick else (8, 16, 32, 64, 128)
    sides = (8, 16, 32) if quick else (8, 16, 32, 64)
    sizes = dict.fromkeys([(r, _BATCH) for r in sides] + [(_SIDE, b) for b in batches])
    cases = [(what, *size) for size in sizes for what in ("teacher", "one step")]
    jobs = {json.dumps(case): job(*case) for case in cases}
    measured = interleaved("", jobs, 0, repeats=5 if quick else 9)
    return [
        {"step": case[0], "resolution": case[1], "batch": case[2], "seconds": row["wall_s"]}
        for case, row in zip(cases, measured, strict=True)
    ]


def member(repeats: int) -> None:
    """One process of a group: the first prints the seconds of the group's steps."""
    from pagoda import distributed

    with distributed.group():
        (row,) = interleaved("", {"": job("teacher", _SIDE, _SHARED)}, 0, repeats)
        if distributed.is_main_process():
            print(json.dumps(row["wall_s"]))


def over_processes(quick: bool) -> list[dict[str, Any]]:
    """Seconds of a teacher's step in groups of 1, 2, 4, ... processes, up to the cores or GPUs."""
    import torch

    most = torch.cuda.device_count() or cores()
    rows = []
    for count in (2**k for k in range(most.bit_length())):
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command = [sys.executable, *launch, __file__, "--member", str(5 if quick else 9)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        rows.append({"processes": count, "step": "teacher", "resolution": _SIDE, "batch": _SHARED,
                     "seconds": json.loads(done.stdout)})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    parser.add_argument("--parts", help=f"some of {','.join(_PARTS)}; all unless told otherwise")
    parser.add_argument("--out", type=Path, help="where the results go as well, part by part")
    parser.add_argument("--member", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.member:
        member(args.member)
        return
    wanted = args.parts.split(",") if args.parts else list(_PARTS)
    if unknown := [part for part in wanted if part not in _PARTS]:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(_PARTS)}")
    result = measure(wanted, args.quick, args.out)
    print(json.dumps(result, indent=1))


def measure(wanted: Sequence[str], quick: bool, out: Path | None) -> dict[str, Any]:
    """The parts wanted, and those that the file has; it is written after each."""
    result: dict[str, Any] = {"machine": machine("numpy"), "quick": quick, "load": {}}
    if out and out.is_file():
        found = json.loads(out.read_text())
        if any(found[key] != result[key] for key in ("machine", "quick")):
            raise SystemExit(f"{out} was measured under other conditions; take another --out")
        result = found
    for part in wanted:
        if part not in result:
            load = os.getloadavg()[0]
            result |= {part: _PARTS[part](quick), "load": {**result["load"], part: round(load, 1)}}
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(result, indent=1) + "\n")
    return result


_PARTS: dict[str, Callable[[bool], Any]] = {
    "rates": rates, "processes": over_processes, "stages": stage_memory.stages,
    "more_images": stage_memory.more_images, "studies": stage_memory.studies,
}  # fmt: skip


if __name__ == "__main__":
    main()
