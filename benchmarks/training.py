"""What training costs: images/s over resolution, batch and processes; peak memory of every stage.

    python -m benchmarks.training [--quick] [--out RESULTS.json]

Networks are those of the smoke profile on random images. Rates are those of whole training steps,
the median of interleaved repeats after one step that is not counted; processes train one batch
together. Stages run one after the other on a small experiment in a folder of their own, each a
process whose peak resident memory (and its children's) is read when it ends. On a GPU, rates and
peaks are the GPU's too. ``--quick`` takes fewer sizes and repeats: minutes on two cores. Prints and
writes one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

_CHANNELS, _SEEN = 32, 512


def make(what: str, resolution: int, batch: int) -> Any:
    """A teacher's or a one-step generator's step on random images."""
    import numpy as np
    import torch

    from pagoda.networks.denoiser import Denoiser
    from pagoda.networks.discriminator import ConvDiscriminator
    from pagoda.networks.generator import generator_from_teacher
    from pagoda.networks.unet import UNetSpec
    from pagoda.stages.device import pick_device
    from pagoda.training.batches import ImageBatches, PairBatches
    from pagoda.training.one_step import OneStepSpec, OneStepStep
    from pagoda.training.optim import OptimSpec
    from pagoda.training.teacher import TeacherStep

    torch.manual_seed(0)
    device, rng = pick_device(), np.random.default_rng(0)
    levels = (resolution // 4).bit_length()
    spec = UNetSpec(resolution, _CHANNELS, (1, 2, 2, 2, 2)[:levels], 1, (8, 4), 32, 0.0, 10, 1.0)
    denoiser = Denoiser(spec, 0.5).to(device).to(memory_format=torch.channels_last)
    shape = (_SEEN, 3, resolution, resolution)
    images, labels = rng.integers(0, 256, shape, np.uint8), np.arange(_SEEN) % 10
    batches, optim = ImageBatches(images, labels, device), OptimSpec("adamw", 1e-4, (0.9, 0.99))
    if what == "teacher":
        return TeacherStep(
            denoiser, batches, batch=batch, optim=optim, p_mean=-1.2, p_std=1.2, clip=1.0,
            ema=0.99, precision="fp32",
        )  # fmt: skip
    pairs = PairBatches(
        rng.standard_normal(shape, np.float32), np.arange(_SEEN), np.zeros(_SEEN, np.uint8),
        images, labels, device,
    )  # fmt: skip
    generator = generator_from_teacher(denoiser, sigma_max=80.0, output="denoiser").to(device)
    discriminator = ConvDiscriminator(resolution, 32, 128, 10).to(device)
    how = OneStepSpec(
        batch=batch, prior_batch=batch, regression="reconstruction", feature_weight=0.0,
        adversarial="non_saturating", fakes="prior", weighting="fixed", weight=0.05,
        weight_min=0.0, weight_max=10.0, adversarial_start=0.0, adversarial_ramp=0.0, r1=0.0,
        r1_every=8, augment=False, clip=None, ema=0.99, precision="fp32",
    )  # fmt: skip
    return OneStepStep(
        generator.to(memory_format=torch.channels_last),
        discriminator.to(memory_format=torch.channels_last), pairs, batches, how, optim, optim,
    )  # fmt: skip


def rate(step: Any, batch: int, repeats: int) -> float:
    """Images a second of steps, the median, after one that is not counted."""
    import torch

    def once(i: int) -> float:
        start = time.perf_counter()
        float(step(i, 0.5)["loss"])
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return batch / (time.perf_counter() - start)

    once(0)
    return round(statistics.median(once(i + 1) for i in range(repeats)), 1)


def rates(sizes: list[tuple[int, int]], repeats: int) -> list[dict[str, Any]]:
    """Images a second of both kinds of step at (resolution, batch)."""
    rows = []
    for resolution, batch in sizes:
        for what in ("teacher", "one step"):
            found = rate(make(what, resolution, batch), batch, repeats)
            rows.append({"step": what, "resolution": resolution, "batch": batch,
                         "images_per_second": found})  # fmt: skip
    return rows


def member(repeats: int) -> None:
    """One process of a group: the first prints the rate of the group."""
    from pagoda import processes

    with processes.group():
        found = rate(make("teacher", 16, 64), 64, repeats)
        if processes.first():
            print(json.dumps(found))


def over_processes(counts: list[int], repeats: int) -> list[dict[str, Any]]:
    """The same batch of 64 at 16x16 in groups of processes, one thread each."""
    rows = []
    for count in counts:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command = [sys.executable, *launch, __file__, "--member", str(repeats)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        rows.append({"processes": count, "images_per_second": json.loads(done.stdout)})
    return rows


def memory() -> list[dict[str, Any]]:
    """Peak memory and seconds of every stage of a small experiment."""
    import yaml

    from benchmarks.pieces import compose, stages

    small = ["data.train_images=2048", "data.test_images=512", "features.images=1536",
             "teacher.optim.images=1280", "distill.optim.images=1280", "grow.optim.images=640",
             "invert.images=128", "evaluate.samples=256",
             "reference.manifold_images=256"]  # fmt: skip
    tree, rows = compose("smoke", small), []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "params.yaml").write_text(yaml.safe_dump(tree))
        for stage in stages(tree):
            rows.append({"stage": stage.name, **_one([*stage.command], folder)})
    return rows


def _one(command: list[str], folder: str) -> dict[str, Any]:
    """A stage in a child of a child, so that peaks of earlier stages do not count."""
    script = (
        "import resource, subprocess, sys, time; start = time.perf_counter();"
        "done = subprocess.run([sys.executable, '-m', 'pagoda', *sys.argv[1:]]);"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss;"
        "print(); print(peak, time.perf_counter() - start); sys.exit(done.returncode)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, *command], cwd=folder, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        return {"failed": done.stderr[-300:]}
    peak, seconds = done.stdout.split()[-2:]
    unit = 2**20 if sys.platform != "darwin" else 2**30
    return {"peak_gib": round(float(peak) / unit, 2), "seconds": round(float(seconds), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    parser.add_argument("--out", type=Path, help="where the results go as well")
    parser.add_argument("--member", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.member:
        member(args.member)
        return
    import torch

    repeats = 3 if args.quick else 9
    batches = (16, 64) if args.quick else (8, 16, 32, 64, 128)
    sides = (8, 16, 32) if args.quick else (8, 16, 32, 64)
    sizes = [(side, 32) for side in sides] + [(16, batch) for batch in batches]
    result = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(),
                    "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                    "threads": torch.get_num_threads(), "torch": torch.__version__,
                    "load": os.getloadavg()[0]},
        "repeats": repeats,
        "rates": rates(list(dict.fromkeys(sizes)), repeats),
        "processes": over_processes([1, 2], repeats),
        "stages": memory(),
        "peak_gib_here": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }  # fmt: skip
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
