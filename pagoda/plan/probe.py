"""What this machine reaches: a few steps of an experiment's own networks, timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from pagoda.config import NO_WEIGHTS, Config, DistillConfig, GrowConfig
from pagoda.networks.classifier import FeatureNetwork
from pagoda.networks.flops import training_flops
from pagoda.plan.rows import Reached
from pagoda.stages.compute import Counter
from pagoda.stages.device import device_name, pick_device
from pagoda.stages.optim import compile_networks, optim_spec
from pagoda.stages.teacher import teacher_step
from pagoda.stages.train_generator import one_step_spec
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.one_step import OneStepStep
from pagoda.training.optim import OptimSpec, autocast

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
        return ImageBatches(rng.integers(0, 256, shape, np.uint8), self.labels, self.device)

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
            optim = replace(section.optim, batch=n)
            config = replace(self.config, teacher=replace(section, optim=optim))
            denoiser = self.networks.new_denoiser().to(memory_format=torch.channels_last)
            step = teacher_step(config, denoiser, batches)
            compile_networks(replace(optim, compile=compiled and optim.compile), denoiser)
            return lambda: step(0, 0.0)

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

    def one_step(self, section: DistillConfig | GrowConfig, resolution: int) -> _Job:
        """Training of the generator at a resolution, adversarial part and all."""
        optim, d, side = section.optim, section.discriminator, self.config.base_res
        real, rng = self._batches(resolution), np.random.default_rng(1)
        latents = rng.standard_normal((_STORED, 3, side, side), np.float32)
        pairs = PairBatches(latents, np.arange(_STORED), np.zeros(_STORED, np.uint8), real.images,
                            self.labels, self.device)  # fmt: skip

        def make(n: int, compiled: bool) -> Call:
            prior = max(2, section.prior_batch * n // optim.batch)
            spec = one_step_spec(replace(optim, batch=n), section.loss, d, prior)
            generator = self.networks.generator_at(resolution)
            judge = self.networks.discriminator(d, resolution).to(self.device)
            networks = [m.to(memory_format=torch.channels_last) for m in (generator, judge)]
            step = OneStepStep(
                generator, judge, pairs, real, spec, optim_spec(optim),
                OptimSpec(d.optimizer, d.lr, (d.beta1, d.beta2)),
                self.networks.distance(section.loss),
            )  # fmt: skip
            compiled = compiled and optim.compile and not d.r1
            compile_networks(replace(optim, compile=compiled), *networks)
            return lambda: step(1, 1.0)

        flops = self.counts.full_step(section, resolution) / optim.batch
        return _Job(flops, optim.batch, make)


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
