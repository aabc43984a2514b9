"""Training steps against EfficientNet-Lite0 beside the same steps against the conv discriminator.

    python -m benchmarks.discriminator_step [--sides 224,128,64,32] [--cases CASES] [--out FILE]

Whole steps of distillation and growth with all losses on, as the profile ``smoke`` takes them on
random images and latents: its widths, batches and precision. Both discriminators take turns. The
last columns say how much dearer a step is with the pretrained network, whose images are resized
to each of ``--sides``. Rows that FILE has are not measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.timing import Results, interleaved, machine

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "distill at 16x16": ("distill", 16, 16), "growth 8 -> 16": ("grow-16", 8, 16),
    "distill at 32x32": ("distill", 32, 32), "growth 16 -> 32": ("grow-32", 16, 32),
}  # fmt: skip
"""Stage, base resolution and target of each."""

LEVERS = {
    "channels-last": "on",
    "batch norms folded into the frozen convolutions": "on",
    "convolutions of the mixing before the resizing": "on",
    "real images and the discriminator's fakes without gradient in the frozen network": "on",
    "frozen network in float32 where a gradient passes, on CPUs": "on",
    "bfloat16 elsewhere": "in growth, by its precision",
    "fewer than four maps": "off",
    "one pass over real and generated images": "off",
}
_PROGRESS = 0.999  # all losses on
_CONV = "conv"


def job(case: str, discriminator: dict[str, Any]) -> Callable[[], object]:
    """One whole step a call."""
    from pagoda.config import parse, with_derived
    from pagoda.pipeline.derive import profile_tree
    from pagoda.pipeline.stages.compute import Untrained
    from pagoda.pipeline.stages.device import pick_device
    from pagoda.training.draw import GlobalDraw
    from pagoda.training.loop import run_step

    stage, base, target = CASES[case]
    tree = profile_tree("smoke", ROOT) | {"base_res": base, "target_res": target}
    tree[stage.partition("-")[0]]["discriminator"] |= discriminator
    config, device = parse(with_derived(tree)), pick_device()
    images = config.data.train_images
    assert images is not None
    method = Untrained(config, config.data.num_classes, images, device).method(stage)
    return lambda: run_step(method, GlobalDraw(device), 1, _PROGRESS)


def lite0(side: int) -> dict[str, Any]:
    """The section of the discriminator."""
    return {"kind": "projected", "backbones": ["tf_efficientnet_lite0"], "input_side": side}


def shown(results: Results) -> str:
    """The table in markdown, and what makes steps cheap."""
    header = ["step", "discriminator", "ms: median (range)", "over conv", "CPU s over conv"]
    lines = [header, ["---", "---", "---:", "---:", "---:"]]
    for row in results.rows:
        conv = next(r for r in results.rows if r["case"] == row["case"])
        over = [median(row[key]) / median(conv[key]) for key in ("wall_s", "cpu_s")]
        middle, low, high = (1e3 * f(row["wall_s"]) for f in (median, min, max))
        ms = f"{middle:,.0f} ({low:,.0f} to {high:,.0f})"
        lines.append([row["case"], row["implementation"], ms, *(f"{x:.2f}" for x in over)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([text, "", *(f"- {name}: {state}" for name, state in LEVERS.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sides", default="224,128,64,32", help="sides of the network's input")
    parser.add_argument("--cases", default=",".join(CASES), help="some of these, by comma")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file that results are kept in")
    args = parser.parse_args()
    cases = args.cases.split(",")
    if unknown := [case for case in cases if case not in CASES]:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    results = Results(args.out, {
        "benchmark": "discriminator step", "sides": args.sides, "repeats": args.repeats,
        **machine("timm"),
    })  # fmt: skip
    for case in cases:
        if not results.has(case):
            jobs = {_CONV: job(case, {"kind": "conv"})}
            jobs |= {f"lite0 at {s}": job(case, lite0(int(s))) for s in args.sides.split(",")}
            results.add(interleaved(case, jobs, 0, args.repeats))
    print(json.dumps(results.conditions), end="\n\n")
    print(shown(results))


if __name__ == "__main__":
    main()
