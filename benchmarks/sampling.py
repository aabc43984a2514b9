"""One step against a trajectory: the generator, our Heun sampler and NVlabs/edm's, one network.

    python -m benchmarks.sampling --edm EDM [--quick] [--out FILE]

EDM is a checkout of github.com/NVlabs/edm; without it only ours run. All have the same weights. The
trajectory has 40 noise levels, 79 evaluations (``--levels``); that both samplers end at the same
images is checked first. The generator of stage 2 is the same network evaluated once. Inversion, the
trajectory up, has 78. With a GPU: EDM in float16 too, ours in bfloat16 compiled too, at sizes that
fill it. Rows that FILE has are not measured again. ``--quick``: one small size, one repeat.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.edm_peer import Edm, Size, inputs, one_hot, ours, sizes
from benchmarks.timing import Results, Row, interleaved, machine, table, whole_float32
from pagoda.diffusion.solver import edm_grid, invert, nfe, sample
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.generator import Generator, generator_from_teacher
from pagoda.pipeline.stages.device import pick_device
from pagoda.training.player import autocast

_SIGMA_MIN, SIGMA_MAX, _RHO = 0.002, 80.0, 7.0
_TOLERANCE = 1e-3  # the trajectory adds up float32 rounding of its evaluations
Jobs = dict[str, Callable[[], object]]


class Ours:
    """Sampling, inversion and one step with one network in one precision."""

    def __init__(self, denoiser: Denoiser, precision: str, levels: int, compiled: bool) -> None:
        self.denoiser = copy.deepcopy(denoiser) if compiled else denoiser
        self.denoiser, self.precision = self.denoiser.eval().requires_grad_(False), precision
        self.device = next(denoiser.parameters()).device
        self.generator: Generator = generator_from_teacher(
            denoiser, sigma_max=SIGMA_MAX, output="denoiser"
        )
        self.generator = self.generator.to(self.device).eval().requires_grad_(False)
        self.generator = self.generator.to(memory_format=torch.channels_last)
        self.grid = edm_grid(levels, _SIGMA_MIN, SIGMA_MAX, _RHO)
        if compiled:
            self.denoiser.compile()
            self.generator.compile()

    @torch.inference_mode()
    def sample(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents of deviation 1 to images along the trajectory."""
        with autocast(self.device, self.precision):
            return sample(self.denoiser, z * SIGMA_MAX, self.grid, labels, "heun")

    @torch.inference_mode()
    def invert(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images to latents."""
        with autocast(self.device, self.precision):
            return invert(self.denoiser, images, self.grid, labels, "heun") / SIGMA_MAX

    @torch.inference_mode()
    def once(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents to images in one evaluation."""
        with autocast(self.device, self.precision):
            return self.generator(z, labels)


def implementations(size: Size, edm: Edm | None, levels: int) -> tuple[Jobs, list[Row]]:
    """What takes turns at one size; and a row that says how far the samplers' images are apart."""
    device, jobs, agreed = pick_device(), Jobs(), list[Row]()
    gpu = device.type == "cuda"
    images, labels = inputs(size, device)
    z = torch.randn(images.shape, generator=torch.Generator().manual_seed(3)).to(device)
    if edm is None:
        denoiser = size.denoiser()
    else:
        net, classes = edm.network(size).to(device).eval(), one_hot(labels)
        denoiser = ours(net)
        half = edm.network(size, fp16=True).to(device).eval() if gpu else None

        def theirs(network: torch.nn.Module) -> Tensor:
            with torch.inference_mode():
                return edm.sampler(network, z, classes, num_steps=levels)

        if half is not None:
            jobs["EDM's sampler, fp16"] = lambda: theirs(half)
        jobs["EDM's sampler, fp32"] = lambda: theirs(net)
    denoiser = denoiser.to(device).to(memory_format=torch.channels_last)
    kinds = [("fp32", False), ("bf16", False), *([("bf16", True)] if gpu else [])]
    z, images = (x.contiguous(memory_format=torch.channels_last) for x in (z, images))
    for precision, compiled in kinds:
        mine = Ours(denoiser, precision, levels, compiled)
        name = f"{precision}{', compiled' if compiled else ''}"
        if edm is not None and precision == "fp32":
            with whole_float32():
                agreed.append(_apart(size, theirs(net), mine.sample(z, labels)))
        evaluations = nfe(levels, "heun")
        jobs[f"pagoda, {evaluations} evaluations, {name}"] = partial(mine.sample, z, labels)
        jobs[f"pagoda, inversion, {name}"] = partial(mine.invert, images, labels)
        jobs[f"pagoda, one step, {name}"] = partial(mine.once, z, labels)
    return jobs, agreed


def _apart(size: Size, theirs: Tensor, mine: Tensor) -> Row:
    """Relative distance of two samplers' images.

    Raises:
        SystemExit: if it is more than rounding.
    """
    difference = float((mine - theirs).norm() / theirs.norm())
    if difference > _TOLERANCE:
        raise SystemExit(f"error: {size.name}: the samplers' images are {difference:.1e} apart")
    return {"case": f"equal: {size.name}", "difference": difference}


def run(edm: Edm | None, levels: int, quick: bool, out: Path | None) -> Results:
    """Every case that ``out`` lacks."""
    gpu = torch.cuda.is_available()
    results = Results(out, {
        "benchmark": "sampling", "quick": quick, "levels": levels, **machine(),
        "beside_edm": edm is not None, "edm": edm.revision() if edm else None,
    })  # fmt: skip
    for size in sizes(quick):
        if not results.has(size.name):
            jobs, agreed = implementations(size, edm, levels)
            rows = interleaved(size.name, jobs, size.batch, 1 if quick else 5, int(gpu or quick))
            results.add([*agreed, *rows])
    return results


def shown(results: Results) -> str:
    """The table and the agreement, in markdown."""
    timed = [row for row in results.rows if "wall_s" in row]
    lines = [table(timed, "EDM" if results.conditions["beside_edm"] else "pagoda"), ""]
    lines += [
        f"- {row['case']}: images {row['difference']:.1e} apart (relative)"
        for row in results.rows
        if "difference" in row
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edm", type=Path, help="checkout of NVlabs/edm")
    parser.add_argument("--levels", type=int, default=40, help="noise levels of the grid")
    parser.add_argument("--quick", action="store_true", help="one small size, one repeat")
    parser.add_argument("--out", type=Path, help="file that results are kept in")
    args = parser.parse_args()
    results = run(Edm(args.edm) if args.edm else None, args.levels, args.quick, args.out)
    print(json.dumps(results.conditions), end="\n\n")
    print(shown(results))


if __name__ == "__main__":
    main()
