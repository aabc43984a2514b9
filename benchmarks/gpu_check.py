"""Whether a GPU computes what the CPU does, before anything is timed on it.

    python -m benchmarks.gpu_check

One small network, the same weights and inputs on both: output and gradient in float32 without TF32,
output as stages run it (convolutions in TF32, autocast to bfloat16, compiled), inversion; training
steps of both kinds, whose checkpoints go to the CPU and back; the metrics' arithmetic. Prints a
table; a line beyond its limit ends it with status 1, after all lines. Without a GPU the CPU is
compared with itself, and nothing is compiled.
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.edm_peer import CLASSES, SIGMA_DATA, Size, inputs
from benchmarks.timing import whole_float32
from benchmarks.training import make
from pagoda.diffusion.solver import edm_grid, invert
from pagoda.evaluation.metrics.frechet import frechet_distance_of_features
from pagoda.evaluation.metrics.precision_recall import manifold_scores
from pagoda.losses.denoising import denoising_loss
from pagoda.networks.denoiser import Denoiser
from pagoda.pipeline.stages.device import pick_device
from pagoda.training.loop import checkpoints
from pagoda.training.player import autocast

SIZE = Size(32, 32, (1, 2, 2), 1, (8,), 4)
_FLOAT32, _TRAJECTORY, _TF32, _BF16, _FLOAT64 = 1e-4, 1e-3, 1e-2, 5e-2, 1e-9
_STEPS = 3

Found = dict[str, tuple[float, float]]
"""By what was compared: relative difference, and its limit."""


def apart(mine: Tensor, truth: Tensor) -> float:
    """Relative difference of two tensors, infinite if it is no number."""
    mine, truth = (x.detach().double().cpu() for x in (mine, truth))
    found = float((mine - truth).norm() / truth.norm())
    return found if math.isfinite(found) else math.inf


def network() -> Denoiser:
    """Random weights, none of them zero, which would hide what is behind it."""
    torch.manual_seed(0)
    net = SIZE.denoiser()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return net.to(memory_format=torch.channels_last)


def networks(device: torch.device) -> Found:
    """Output, gradient and inversion."""
    here = network()
    there = copy.deepcopy(here).to(device)
    cpu = torch.device("cpu")
    images, labels = inputs(SIZE, cpu)
    sigma = torch.linspace(-3, 3, SIZE.batch).exp()

    def output(net: Denoiser, on: torch.device, precision: str = "fp32") -> Tensor:
        with torch.inference_mode(), autocast(on, precision):
            return net(images.to(on), sigma.to(on), labels.to(on)).float()

    def gradient(net: Denoiser, on: torch.device) -> Tensor:
        given = images.to(on), labels.to(on), sigma.to(on), torch.ones_like(images).to(on)
        denoising_loss(net, *given, SIGMA_DATA).backward()
        return torch.cat([p.grad.flatten().cpu() for p in net.parameters() if p.grad is not None])

    def latents(net: Denoiser, on: torch.device) -> Tensor:
        with torch.inference_mode():
            grid = edm_grid(6, 0.002, 80.0, 7.0)
            return invert(net, images.to(on), grid, labels.to(on), "heun")

    truth = output(here, cpu)
    found: Found = {}
    with whole_float32():
        found["output, float32"] = apart(output(there, device), truth), _FLOAT32
        found["gradient, float32"] = apart(gradient(there, device), gradient(here, cpu)), _FLOAT32
        found["inversion, float32"] = apart(latents(there, device), latents(here, cpu)), _TRAJECTORY
    found["output, float32 as stages run it"] = apart(output(there, device), truth), _TF32
    found["output, bfloat16"] = apart(output(there, device, "bf16"), truth), _BF16
    if device.type == "cuda":
        there.compile()
        compiled = apart(output(there, device, "bf16"), truth)
        found["output, bfloat16, compiled"] = compiled, _BF16
    return found


def training(device: torch.device, folder: Path) -> Found:
    """Steps in bfloat16, and their state moved to the CPU and back, bit for bit."""
    found: Found = {}
    for what in ("teacher", "one step"):
        places = [str(device), "cpu", str(device)]
        steps = [make(what, 16, 8, on=place, precision="bf16") for place in places]
        for i, step in enumerate(steps):
            scratch = checkpoints(step.method, folder / what)
            if i:
                scratch.restore()
                moved = max(_apart_states(step.method.players, steps[i - 1].method.players))
                found[f"{what}: state from {places[i - 1]} to {places[i]}"] = moved, 0.0
            losses = [step(1, 0.5) for _ in range(_STEPS)]
            bad = sum(not math.isfinite(loss) for loss in losses)
            found[f"{what}: losses on {places[i]} not finite ({i + 1})"] = float(bad), 0.0
            scratch.save(_STEPS * (i + 1), 0.0)
    return found


def _apart_states(
    mine: Mapping[str, torch.nn.Module], truth: Mapping[str, torch.nn.Module]
) -> Iterator[float]:
    yield 0.0
    for name, module in mine.items():
        known = truth[name].state_dict()
        for key, value in module.state_dict().items():
            yield 0.0 if torch.equal(value.cpu(), known[key].cpu()) else math.inf


def metrics(device: torch.device) -> Found:
    """Fréchet distance and precision, recall, density, coverage."""
    rng, on = np.random.default_rng(0), str(device)
    x, y = rng.normal(size=(400, 32)), rng.normal(size=(300, 32)) * 0.9 + 0.2
    here, there = (frechet_distance_of_features(x, y, where) for where in (None, on))
    a, b = (manifold_scores(x, y, 3, device=where) for where in (None, on))
    return {
        "Fréchet distance": (abs(there / here - 1), _FLOAT64),
        "precision, recall, density, coverage": (0.0 if a == b else math.inf, 0.0),
    }


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    device = pick_device()
    kept, lines = [], []
    with tempfile.TemporaryDirectory() as folder:
        jobs: list[Callable[[], Found]] = [
            lambda: networks(device),
            lambda: training(device, Path(folder)),
            lambda: metrics(device),
        ]
        for job in jobs:
            for name, (value, limit) in job().items():
                kept.append(value <= limit)
                verdict = "" if value <= limit else "**beyond it**"
                lines.append(f"| {name} | {value:.1e} | {limit:.0e} | {verdict} |")
    print(f"CPU and {device}, {SIZE.name}, {CLASSES} classes: relative difference\n")
    print("| compared | difference | limit | |\n| --- | ---: | ---: | --- |")
    print("\n".join(lines))
    if not all(kept):
        raise SystemExit(f"error: {kept.count(False)} of {len(kept)} comparisons beyond the limit")


if __name__ == "__main__":
    main()
