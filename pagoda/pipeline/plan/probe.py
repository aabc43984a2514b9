"""What this machine reaches: a few steps of an experiment's own networks, timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from pagoda.config import NO_WEIGHTS, Config
from pagoda.pipeline.stages.compute import Untrained, clips_of, section_of
from pagoda.pipeline.stages.counters import step_flops
from pagoda.pipeline.stages.device import device_name, pick_device
from pagoda.training.draw import GlobalDraw
from pagoda.training.loop import run_step
from pagoda.training.player import autocast

_FIRST = 4  # images of the step that says how many more a second bears
_AIM_S = 1.0
_I, _PROGRESS = 1, 0.999  # a step with all losses and no rare penalty

Call = Callable[[], object]


def probe(config: Config, images: int) -> tuple[str, dict[str, float]]:
    """The device, and TFLOP/s on training steps of every stage and evaluations of the teacher.

    Seconds a stage: of the stage's own batch, or of as many images as a second bears. Weights are
    random, which moves no time, and so are the images.

    Args:
        config: the experiment.
        images: training images there are.
    """
    device, classes = pick_device(), config.data.num_classes
    counted, real = (Untrained(config, classes, images, *on) for on in ((), (device,)))
    reached = {
        "invert": _rate(partial(_inversion, config, real), config.invert.batch,
                        lambda n: counted.denoiser_call * n),
    }  # fmt: skip

    def step(stage: str, n: int) -> Call:
        return partial(run_step, real.method(stage, n), GlobalDraw(device), _I, _PROGRESS)

    first = *clips_of(config), *("autoencoder",) * config.latent
    grown = (f"grow-{r}" for r in config.resolutions[1:])
    for stage in ("features", *first, "teacher", "distill", *grown):
        section = section_of(config, stage.partition("-")[0])
        if getattr(section, "imported", NO_WEIGHTS) == NO_WEIGHTS:
            reached[stage.replace("-", "@")] = _rate(
                partial(step, stage), section.optim.batch,
                lambda n, s=stage: step_flops(counted.method(s, n), _I, _PROGRESS),  # type: ignore[misc]
            )  # fmt: skip
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return device_name(device) + threads, reached


def _inversion(config: Config, real: Untrained, n: int) -> Call:
    """An evaluation of the teacher."""
    device, shape = real.device, (n, *config.shape(config.base_res))
    network = real.denoiser().eval().to(memory_format=torch.channels_last)
    x = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
    y, sigma = torch.zeros(n, dtype=torch.int64).to(device), torch.ones(n).to(device)

    def call() -> object:
        with torch.inference_mode(), autocast(device, config.invert.precision):
            return network(x, sigma, y)

    return call


def _rate(make: Callable[[int], Call], most: int, flops: Callable[[int], float]) -> float:
    """TFLOP/s on ``most`` images a call, or on as many as a second bears.

    Args:
        make: prepares a call on so many images.
        most: images of the stage's own batch.
        flops: counted operations of such a call.
    """
    first = min(_FIRST, most)
    call = make(first)
    call()  # the first is slow
    n = max(first, min(most, int(first * _AIM_S / _seconds(call))))
    call = make(n)
    call()
    seconds = [_seconds(call)]
    while sum(seconds) < _AIM_S:
        seconds.append(_seconds(call))
    return flops(n) / statistics.median(seconds) / 1e12


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
