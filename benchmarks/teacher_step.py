"""A training step of the teacher beside NVlabs/edm's own network and step.

    python -m benchmarks.teacher_step --edm EDM [--quick] [--out FILE]

EDM is a checkout of github.com/NVlabs/edm. Both networks are the same (its DhariwalUNet, our ADM
U-Net), with the same weights: before anything is timed, loss and gradient on the same noise are
compared, and a difference beyond rounding ends the run. Then whole steps take turns: loss, backward
pass, Adam, weight average; ours also draws and mirrors its batch and measures the gradient. With a
GPU: EDM in float32 and float16, ours in bfloat16, with and without torch.compile, at sizes that
fill it, with the fraction of a measured matrix product's speed. Without --edm only ours run.

Rows that FILE has are not measured again. ``--quick``: one small size, two repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.edm_peer import CLASSES, Edm, EdmStep, Size, compare, ours, sizes
from benchmarks.steps import steps
from benchmarks.timing import Results, Row, interleaved, machine, matmul_peak, table
from pagoda.pipeline.stages.counters import parameters, training_flops
from pagoda.pipeline.stages.device import pick_device
from pagoda.training.batches import ImageBatches

_STORED = 512  # images that ours draws its batches from


def flops(size: Size) -> float:
    """Counted operations of one training image."""
    with torch.device("meta"):
        net, x = size.denoiser(), torch.zeros(2, 3, size.resolution, size.resolution)
        return training_flops(net, x, torch.ones(2), torch.zeros(2, dtype=torch.int64)) / 2


def our_step(
    size: Size, precision: str, weights: dict[str, torch.Tensor] | None, compiled: bool = False
) -> Callable[[], object]:
    """A step as the stage ``teacher`` takes it."""
    device, rng = pick_device(), np.random.default_rng(0)
    denoiser = size.denoiser()
    if weights is not None:
        denoiser.load_state_dict(weights)
    denoiser = denoiser.to(device).to(memory_format=torch.channels_last)
    stored = rng.integers(0, 256, (_STORED, 3, size.resolution, size.resolution), np.uint8)
    images = ImageBatches(stores=[stored], labels=np.arange(_STORED) % CLASSES, device=device)
    optim = {"batch": size.batch, "beta2": 0.999, "ema": 0.99, "precision": precision,
             "compile": compiled}  # fmt: skip
    step = steps("teacher", denoiser, images, optim)
    return lambda: step(100, 0.5)


Jobs = dict[str, Callable[[], object]]


def implementations(size: Size, edm: Edm | None) -> tuple[Jobs, list[Row]]:
    """What takes turns at one size; and a row that says how well both agree."""
    device, jobs, agreed = pick_device(), Jobs(), list[Row]()
    weights: dict[str, torch.Tensor] | None = None
    if edm is not None:
        if device.type == "cuda":  # its loop trains in mixed precision there
            jobs["EDM, fp16"] = EdmStep(edm, edm.network(size, fp16=True).to(device), size)
        net = edm.network(size).to(device)
        denoiser = ours(net).to(device)
        agreed.append({"case": f"equal: {size.name}", **compare(edm, net, denoiser, size)})
        weights = {key: value.cpu() for key, value in denoiser.state_dict().items()}
        jobs["EDM, fp32"] = EdmStep(edm, net, size)
    for precision in ("fp32", "bf16"):
        jobs[f"pagoda, {precision}"] = our_step(size, precision, weights)
    if device.type == "cuda":
        jobs["pagoda, bf16, compiled"] = our_step(size, "bf16", weights, compiled=True)
    return jobs, agreed


def run(edm: Edm | None, quick: bool, out: Path | None) -> Results:
    """Every case that ``out`` lacks."""
    gpu = torch.cuda.is_available()
    results = Results(out, {
        "benchmark": "teacher step", "quick": quick, **machine("numpy"),
        "beside_edm": edm is not None, "edm": edm.revision() if edm else None,
    })  # fmt: skip
    if not results.has("peak"):
        kinds = ("bfloat16",) if gpu else ("float32", "bfloat16")
        results.add([{"case": "peak", "dtype": d, "flops": matmul_peak(d)} for d in kinds])
    for size in sizes(quick):
        if results.has(size.name):
            continue
        jobs, agreed = implementations(size, edm)
        rows = interleaved(size.name, jobs, size.batch, 2 if quick else 7, warm=3 if gpu else 1)
        facts = {"parameters": parameters(size.denoiser()), "flops": flops(size)}
        results.add([*agreed, *(row | facts for row in rows)])
    return results


def shown(results: Results) -> str:
    """The table, the agreement and the peak, in markdown."""
    timed = [row for row in results.rows if "wall_s" in row]
    peer = "EDM" if results.conditions["beside_edm"] else "pagoda"
    lines = [table(timed, peer, {row["case"]: row["flops"] for row in timed}), ""]
    for row in results.rows:
        if row["case"] == "peak":
            lines.append(f"- matrix product, {row['dtype']}: {row['flops'] / 1e9:,.0f} GFLOP/s")
        elif row["case"].startswith("equal"):
            lines.append(
                f"- {row['case']}: loss {row['loss']:.4f}, apart by {row['loss_difference']:.1e}, "
                f"gradient norm by {row['gradient_difference']:.1e} (relative)"
            )
    peaks = {row["dtype"]: row["flops"] for row in results.rows if row["case"] == "peak"}
    for row in timed:
        if "bf16" in row["implementation"]:
            reached = row["flops"] * row["images"] / statistics.median(row["wall_s"])
            fraction = reached / peaks["bfloat16"]
            who = f"{row['case']}, {row['implementation']}"
            lines.append(f"- {who}: {fraction:.0%} of the matrix product")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edm", type=Path, help="checkout of NVlabs/edm")
    parser.add_argument("--quick", action="store_true", help="one small size, two repeats")
    parser.add_argument("--out", type=Path, help="file that results are kept in")
    args = parser.parse_args()
    results = run(Edm(args.edm) if args.edm else None, args.quick, args.out)
    print(json.dumps(results.conditions), end="\n\n")
    print(shown(results))


if __name__ == "__main__":
    main()
