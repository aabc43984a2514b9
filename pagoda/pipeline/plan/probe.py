"""What this machine reaches: a few steps of an experiment's own networks, timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from pagoda.config import NO_WEIGHTS, Config
from pagoda.networks.classifier import FeatureNetwork
from pagoda.pipeline.plan.count import feature_network, features_training
from pagoda.pipeline.plan.rows import Reached
from pagoda.pipeline.stages.compute import Untrained, step_flops
from pagoda.pipeline.stages.device import device_name, pick_device
from pagoda.training.draw import GlobalDraw
from pagoda.training.loop import run_step
from pagoda.training.player import autocast

_FIRST = 4  # images of the step that says how many more a second bears
_AIM_S = 1.0
_I, _PROGRESS = 1, 0.999  # a step with all losses and no rare penalty

Call = Callable[[], object]


@dataclass(frozen=True)
class _Job:
    """Work of a stage.

    Attributes:
        most: images of the stage's own batch.
        flops: counted operations of a call on so many images.
        make: prepares a call on so many images.
    """

    most: int
    flops: Callable[[int], float]
    make: Callable[[int], Call]


def probe(config: Config, images: int) -> Reached:
    """FLOP/s on training steps of every stage, and on evaluations of the teacher.

    Seconds a stage: of the stage's own batch, or of as many images as a second bears. Weights are
    random, which moves no time, and so are the images.

    Args:
        config: the experiment.
        images: training images there are.
    """
    device, classes = pick_device(), config.data.num_classes
    counted, real = (Untrained(config, classes, images, *on) for on in ((), (device,)))

    def training(stage: str) -> _Job:
        def make(n: int) -> Call:
            method = real.method(stage, n)
            return lambda: run_step(method, GlobalDraw(device), _I, _PROGRESS)

        def flops(n: int) -> float:
            return step_flops(counted.method(stage, n), _I, _PROGRESS)

        return _Job(getattr(config, stage.partition("-")[0]).optim.batch, flops, make)

    jobs = {"features": _features(config, device), "invert": _inversion(config, counted, real)}
    growth = [f"grow-{r}" for r in config.resolutions[1:]]
    for stage in ("teacher", "distill", *growth):
        if getattr(config, stage.partition("-")[0]).imported == NO_WEIGHTS:
            jobs[stage.replace("-", "@")] = training(stage)
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return Reached(device_name(device) + threads, {name: _rate(j) for name, j in jobs.items()})


def _features(config: Config, device: torch.device) -> _Job:
    section, side = config.features, config.target_res
    each = features_training(feature_network(config))

    def make(n: int) -> Call:
        widths = config.data.num_classes, side, section.channels, section.dim, 1
        network = FeatureNetwork(*widths).to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), fused=True)
        x = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8).to(device)
        y = torch.zeros(n, dtype=torch.int64, device=device)

        def call() -> object:
            loss = F.cross_entropy(network(x)[1], y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            return optimizer.step()

        return call

    return _Job(section.batch, lambda n: each * n, make)


def _inversion(config: Config, counted: Untrained, real: Untrained) -> _Job:
    section, device, side = config.invert, real.device, config.base_res
    network = real.denoiser().eval().to(memory_format=torch.channels_last)

    def make(n: int) -> Call:
        x = torch.zeros(n, 3, side, side, device=device)
        x = x.contiguous(memory_format=torch.channels_last)
        y, sigma = torch.zeros(n, dtype=torch.int64).to(device), torch.ones(n).to(device)

        def call() -> object:
            with torch.inference_mode(), autocast(device, section.precision):
                return network(x, sigma, y)

        return call

    return _Job(section.batch, lambda n: counted.denoiser_call * n, make)


def _rate(job: _Job) -> float:
    """FLOP/s of the job on its own batch, or on as many images as a second bears."""
    first = min(_FIRST, job.most)
    call = job.make(first)
    call()  # the first is slow
    n = max(first, min(job.most, int(first * _AIM_S / _seconds(call))))
    call = job.make(n)
    call()
    seconds = [_seconds(call)]
    while sum(seconds) < _AIM_S:
        seconds.append(_seconds(call))
    return job.flops(n) / statistics.median(seconds)


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
