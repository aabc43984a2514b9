"""A store of a million 64x64 images: built and trained on within 4 GiB of memory.

    python -m benchmarks.million --folder FOLDER [--n N] [--limit GIB] [--quick] [--out FILE]

The images are those of the embedded set, 8,192 of them drawn once and every other one a shifted
copy, so that the pass, and not the drawing, is measured: 12 GB of pixels through the cutting that
the stage ``downsample`` does, on all cores. Then steps of a small teacher at 64x64 on batches drawn
at random from the files, and batches alone. The limit is a memory control group where one can be
made (root, version 1), which counts the page cache, too: twelve gigabytes do not fit into it.
Elsewhere peaks are reported and nothing is enforced. ``--quick``: 40,000 images.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagoda.data.base import ImageSource
from pagoda.data.cutting import Cutting, Target
from pagoda.data.embedded import CLASSES, SEED, render
from pagoda.data.registry import Wanted
from pagoda.data.sources.embedded import Drawn

SIDE, _DRAWN, _BATCH = 64, 8192, 64
_STEPS, _DRAWS = 32, 160  # of a million images: training steps, and batches that are only drawn


@cache
def _drawn(split: str) -> NDArray[np.uint8]:
    """The images that all others are copies of, drawn once a process."""
    return render(np.arange(_DRAWN), resolution=SIDE, seed=SEED, split=split)[0]


class Shifted(Drawn):
    """Image i is image i mod 8192 of the embedded set, rolled by i // 8192 pixels."""

    def array(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Images (n, 3, R, R) uint8."""
        images = _drawn("train")[rows % _DRAWN]
        for shift in np.unique(rows // _DRAWN):
            moved = rows // _DRAWN == shift
            images[moved] = np.roll(images[moved], (shift // SIDE, shift % SIDE), axis=(2, 3))
        return images


def build(folder: Path, n: int) -> int:
    """Every image through the pass of ``downsample``."""
    labels = np.arange(n) % len(CLASSES)
    source = ImageSource(Shifted(n, "train", SIDE, 1.0, SEED), Wanted("train"), CLASSES, labels)
    Cutting(source, [Target(folder, "train", n, SIDE, False)], "box", None).run(lambda _: None)
    return n


def train(folder: Path, n: int) -> int:
    """Teacher steps on random batches of the store."""
    import torch

    from benchmarks.steps import steps
    from pagoda.networks.denoiser import Denoiser
    from pagoda.networks.unet import UNetSpec

    torch.manual_seed(0)
    spec = UNetSpec(SIDE, 16, (1, 2, 2, 2), 1, (8,), 32, 0.0, 10, 1.0)
    denoiser = Denoiser(spec, 0.5).to(memory_format=torch.channels_last)
    optim = {"batch": _BATCH, "lr": 1e-3, "clip": 1.0, "ema": 0.99}
    step = steps("teacher", denoiser, _batches(folder, n), optim)
    count = _fewer(_STEPS, n)
    for i in range(count):
        step(i, i / count)
    return count * _BATCH


def draw(folder: Path, n: int) -> int:
    """Random batches alone."""
    from pagoda.training.draw import GlobalDraw

    batches = _batches(folder, n)
    draw = GlobalDraw(batches.device)
    return sum(len(draw.images(batches, _BATCH)[0]) for _ in range(_fewer(_DRAWS, n)))


def _fewer(steps: int, n: int) -> int:
    """Fewer steps of fewer images."""
    return max(2, min(steps, steps * n // 1_000_000))


def _batches(folder: Path, n: int) -> Any:
    import torch

    from pagoda.data.shards import ShardedArray
    from pagoda.training.batches import ImageBatches

    files = Target(folder, "train", n, SIDE, False).shards()
    images = ShardedArray([np.load(f, mmap_mode="r") for f in files])
    labels, device = np.arange(n) % 10, torch.device("cpu")
    return ImageBatches(stores=[images], labels=labels, device=device)


PARTS = {"build": build, "train": train, "draw": draw}


def part(name: str, folder: Path, n: int) -> dict[str, Any]:
    """Run one part in this process: images, seconds, peaks in GiB."""
    start = time.perf_counter()
    images = PARTS[name](folder, n)
    seconds = time.perf_counter() - start
    peaks = {who: resource.getrusage(getattr(resource, f"RUSAGE_{who.upper()}")).ru_maxrss / 2**20
             for who in ("self", "children")}  # fmt: skip
    return {
        "images": images, "seconds": round(seconds, 1),
        "images_per_second": round(images / seconds, 1),
        **{f"peak_gib_{who}": round(value, 2) for who, value in peaks.items()},
    }  # fmt: skip


@contextlib.contextmanager
def memory_group(limit: float) -> Any:
    """A control group of at most ``limit`` GiB, None where none can be made."""
    made = Path("/sys/fs/cgroup/memory") / f"pagoda-{os.getpid()}"
    group: Path | None = made
    try:
        made.mkdir()
        (made / "memory.limit_in_bytes").write_text(str(int(limit * 2**30)))
    except OSError:
        group = None
    try:
        yield group
    finally:
        if group is not None:
            with contextlib.suppress(OSError):
                group.rmdir()


def in_group(group: Path | None, name: str, folder: Path, n: int) -> dict[str, Any]:
    """A part in a process of its own inside the group, with the group's peak."""
    enter = ""
    if group is not None:
        (group / "memory.max_usage_in_bytes").write_text("0")
        enter = f"echo $$ > {group}/cgroup.procs; "
    command = ["sh", "-c", f'{enter}exec "$0" "$@"', sys.executable, "-m", "benchmarks.million",
               "--part", name, "--folder", str(folder), "--n", str(n)]  # fmt: skip
    root = str(Path(__file__).parents[1])
    env = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr[-500:]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if group is not None:
        most = int((group / "memory.max_usage_in_bytes").read_text())
        found["peak_gib_group"] = round(most / 2**30, 2)
    return found


def run(folder: Path, n: int, limit: float) -> dict[str, Any]:
    """All parts, one after the other; the store is removed."""
    store = folder / "million"
    result: dict[str, Any] = {
        "n": n, "cores": os.cpu_count(), "python": platform.python_version(),
        "numpy": np.__version__, "load_before": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    try:
        with memory_group(limit) as group:
            result["limit_gib"] = limit if group is not None else None
            for name in PARTS:
                result[name] = in_group(group, name, store, n)
                sys.stderr.write(f"{name}: {result[name]}\n")
        result["store_gib"] = round(sum(f.stat().st_size for f in store.glob("*.npy")) / 2**30, 2)
    finally:
        shutil.rmtree(store, ignore_errors=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--n", type=int, help="images, a million")
    parser.add_argument("--limit", type=float, default=4.0, help="GiB of memory")
    parser.add_argument("--quick", action="store_true", help="40,000 images")
    parser.add_argument("--out", type=Path, help="file that the result is written to as well")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    n = args.n or (40_000 if args.quick else 1_000_000)
    if args.part:
        print(json.dumps(part(args.part, args.folder, n)))
        return
    text = json.dumps(run(args.folder, n, args.limit), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
