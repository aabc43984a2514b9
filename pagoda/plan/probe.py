"""What this machine reaches: a few steps of an experiment's own networks, timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pagoda.config import NO_WEIGHTS, Config
from pagoda.methods.one_step import OneStepConfig
from pagoda.methods.teacher import Teacher
from pagoda.networks.classifier import FeatureNetwork
from pagoda.networks.flops import training_flops
from pagoda.plan.rows import Reached
from pagoda.stages.compute import Counter, counted
from pagoda.stages.device import device_name, pick_device
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.draw import GlobalDraw
from pagoda.training.loop import run_step
from pagoda.training.method import ByMethod, Given, Method, find_method
from pagoda.training.player import autocast

_FIRST = 4  # images of the step that says how many more a second bears
_AIM_S = 1.0
_STORED = 256  # random images that batches are drawn from

Call = Callable[[], object]


@dataclass(frozen=True)
class _Job:
    """Work of a stage: ``make`` prepares a call on so many images.

    Attributes:
        flops: counted operations of one image.
        most: images of the stage's own batch.
        make: (images, whether to compile as the stage does) -> a call.
    """

    flops: float
    most: int
    make: Callable[[int, bool], Call]


def probe(config: Config, images: int) -> Reached:
    """FLOP/s on training steps of every stage, and on evaluations of the teacher.

    Seconds a stage: of the stage's own batch, or of as many images as a second bears. Weights are
    random, which moves no time, and so are the images.

    Args:
        config: the experiment.
        images: training images there are.
    """
    device = pick_device()
    found = _Probe(config, images, device)
    jobs = {"features": found.features(), "invert": found.invert()}
    if config.teacher.imported == NO_WEIGHTS:
        jobs["teacher"] = found.teacher()
    if config.distill.imported == NO_WEIGHTS:
        jobs["distill"] = found.one_step(config.distill, config.base_res)
    if config.grow.imported == NO_WEIGHTS:
        jobs |= {f"grow@{r}": found.one_step(config.grow, r) for r in config.resolutions[1:]}
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return Reached(device_name(device) + threads, {name: _rate(j) for name, j in jobs.items()})


class _Probe:
    """The jobs of one experiment."""

    def __init__(self, config: Config, images: int, device: torch.device) -> None:
        self.config, self.device, self.classes = config, device, config.data.num_classes
        self.counts = Counter(config, self.classes, images)
        self.networks = Counter(config, self.classes, images, device)
        self.labels = np.arange(_STORED) % self.classes

    def _batches(self, resolution: int) -> ImageBatches:
        rng, shape = np.random.default_rng(0), (_STORED, 3, resolution, resolution)
        pixels = rng.integers(0, 256, shape, np.uint8)
        return ImageBatches(stores=[pixels], labels=self.labels, device=self.device)

    def _given(self, network: nn.Module, images: ImageBatches, pairs: PairBatches | None) -> Given:
        network = network.to(memory_format=torch.channels_last)
        return Given(
            network, images, self.device, 0, self.config.diffusion, pairs,
            self.networks.new_denoiser, lambda: pairs or self._pairs(self.config.base_res),
        )  # fmt: skip

    def _pairs(self, resolution: int) -> PairBatches:
        shape = (_STORED, 3, self.config.base_res, self.config.base_res)
        return PairBatches(
            latents=np.random.default_rng(1).standard_normal(shape, np.float32),
            indices=np.arange(_STORED), flips=np.zeros(_STORED, np.uint8),
            images=self._batches(resolution).stores[0], labels=self.labels, device=self.device,
        )  # fmt: skip

    def features(self) -> _Job:
        """Training of the feature network."""
        section, target = self.config.features, self.config.target_res
        widths = self.classes, target, section.channels, section.dim, 1
        with torch.device("meta"):
            judge, x = FeatureNetwork(*widths), torch.zeros(2, 3, target, target)
            each = training_flops(lambda x: judge.class_head(judge.embed(x)), x) / 2

        def make(n: int, _: bool) -> Call:
            network = FeatureNetwork(*widths).to(self.device)
            network = network.to(memory_format=torch.channels_last)
            optimizer = torch.optim.AdamW(network.parameters(), fused=True)
            x = torch.randint(0, 256, (n, 3, target, target), dtype=torch.uint8).to(self.device)
            y = torch.zeros(n, dtype=torch.int64, device=self.device)

            def call() -> object:
                loss = F.cross_entropy(network(x)[1], y)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                return optimizer.step()

            return call

        return _Job(each, section.batch, make)

    def teacher(self) -> _Job:
        """Training of the teacher."""
        section, batches = self.config.teacher, self._batches(self.config.base_res)

        def make(n: int, compiled: bool) -> Call:
            optim = replace(section.optim, batch=n, compile=compiled and section.optim.compile)
            how = replace(section, optim=optim)
            method = Teacher(how, self._given(self.networks.new_denoiser(), batches, None))
            return self._step(method, 0, 0.0)

        return _Job(self.counts.denoiser_training(), section.optim.batch, make)

    def invert(self) -> _Job:
        """Evaluations of the teacher."""
        section, net = self.config.invert, self.networks.denoiser.eval()
        net = net.to(memory_format=torch.channels_last)
        side = self.config.base_res

        def make(n: int, _: bool) -> Call:
            x = torch.zeros(n, 3, side, side, device=self.device)
            x = x.contiguous(memory_format=torch.channels_last)
            y, sigma = torch.zeros(n, dtype=torch.int64).to(x.device), torch.ones(n).to(x.device)

            def call() -> object:
                with torch.inference_mode(), autocast(self.device, section.precision):
                    return net(x, sigma, y)

            return call

        return _Job(self.counts.denoiser_call(), section.batch, make)

    def one_step(self, section: ByMethod, resolution: int) -> _Job:
        """Training of the generator at a resolution, adversarial part and all."""
        real, pairs, own = self._batches(resolution), self._pairs(resolution), section.optim

        def make(n: int, compiled: bool) -> Call:
            optim = replace(own, batch=n, compile=compiled and own.compile)
            how: Any = replace(section, optim=optim)
            if isinstance(how, OneStepConfig):
                prior = max(2, how.prior_batch * n // own.batch)
                how = replace(how, prior_batch=prior)
            given = self._given(self.networks.generator_at(resolution), real, pairs)
            return self._step(find_method(section.method)(how, given), 1, 1.0)

        flops = self.counts.full_step(counted(section), resolution) / own.batch
        return _Job(flops, own.batch, make)

    def _step(self, method: Method, i: int, progress: float) -> Call:
        return lambda: run_step(method, GlobalDraw(self.device), i, progress)


def _rate(job: _Job) -> float:
    """FLOP/s of the job on its own batch, or on as many images as a second bears."""
    first = min(_FIRST, job.most)
    call = job.make(first, False)
    call()  # the first is slow
    n = max(first, min(job.most, int(first * _AIM_S / _seconds(call))))
    call = job.make(n, True)
    call()
    seconds = [_seconds(call)]
    while sum(seconds) < _AIM_S:
        seconds.append(_seconds(call))
    return job.flops * n / statistics.median(seconds)


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
