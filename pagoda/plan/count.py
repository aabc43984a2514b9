"""Counts every stage of an experiment on its real networks, on torch's meta device."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from pagoda.config import NO_WEIGHTS, Config, DistillConfig, GrowConfig, derive_resolutions
from pagoda.diffusion.solver import nfe
from pagoda.networks.classifier import FeatureNetwork
from pagoda.networks.flops import forward_flops, parameters, training_flops
from pagoda.plan.judges import judges_flops, uncounted
from pagoda.plan.rows import THIS_MACHINE, Direct, Plan, Reached, Stage
from pagoda.plan.shapes import SeenBefore
from pagoda.plan.sizes import image_bytes, latent_bytes
from pagoda.stages import features
from pagoda.stages.compute import Counter

_BATCH = 2
_MOMENTS = 2  # tensors that Adam keeps of every trained one
_CHECKPOINTS = 2  # that a training stage keeps while it runs
_SECONDS = 3600


def make_plan(
    config: Config, images: tuple[int, int], cards: dict[str, float], utilisation: float,
    reached: Reached | None = None,
) -> Plan:  # fmt: skip
    """Count ``config`` with (training, held-out) ``images``.

    Args:
        config: the experiment.
        images: how many there are.
        cards: peak TFLOP/s by name of card.
        utilisation: share of the peak that is reached, in (0, 1].
        reached: FLOP/s measured on this machine, for hours on it.
    """
    with SeenBefore():
        counted = _Count(config, images)
        plain = counted.stages()
        growth = counted.growth(plain)
    stages = []
    for stage in plain:
        speeds = {name: peak * 1e12 * utilisation for name, peak in cards.items()}
        if reached is not None:
            speeds[THIS_MACHINE] = _speed(stage.stage, reached)
        hours = {name: stage.flops / speed / _SECONDS for name, speed in speeds.items()}
        stages.append(replace(stage, hours=hours))
    section = config.invert
    calls = nfe(section.steps, section.solver, inverse=True, guidance=section.guidance)
    return Plan(
        1, config.name, config.resolutions, *images, counted.counter.pairs, calls, utilisation,
        cards, stages, growth,
        None if reached is None else reached.device,
        {} if reached is None else {k: v / 1e12 for k, v in reached.flops.items()},
        config.reference.extractors, uncounted(config.reference.extractors),
    )  # fmt: skip


def _speed(stage: str, reached: Reached) -> float:
    """FLOP/s of a stage; those that are not probed evaluate a network that another one runs."""
    kin = {"reference": "features", "evaluate": "invert"}
    name = kin.get(stage.partition("@")[0], stage)
    return reached.flops.get(name, reached.flops["invert"])


class _Count:
    """The stages of one experiment in the order of ``dvc.yaml``."""

    def __init__(self, config: Config, images: tuple[int, int]) -> None:
        self.config, (self.train, self.test) = config, images
        self.counter = Counter(config, config.data.num_classes, self.train)
        self.call = self.counter.denoiser_call()
        self.judge = self._feature_network()
        x = torch.zeros(_BATCH, 3, config.target_res, config.target_res, device="meta")
        self.judge_call = forward_flops(self._outputs, x) / _BATCH
        self.judge_training = training_flops(self._outputs, x) / _BATCH
        self.judges_call = self.judge_call + judges_flops(config.reference.extractors)
        generators = {r: self.counter.generator_at(r) for r in config.resolutions}
        self.generators = generators
        self.calls = {r: self.counter.generator_call(g) for r, g in generators.items()}

    def _feature_network(self) -> FeatureNetwork:
        c = self.config
        ladder = derive_resolutions(min(features._LOWEST_RES, c.target_res), c.target_res)
        with torch.device("meta"):
            return FeatureNetwork(
                c.data.num_classes, c.target_res, c.features.channels, c.features.dim, len(ladder)
            )

    def _outputs(self, x: Tensor) -> Tensor:
        found = self.judge.embed(x)
        return torch.cat([self.judge.class_head(found), self.judge.degradation_head(found)], dim=1)

    def stages(self) -> list[Stage]:
        """A row a stage."""
        resolutions, count = self.config.resolutions, self.train + self.test
        return [
            *(Stage(f"downsample@{r}", data_bytes=image_bytes(self.config, r, count))
              for r in resolutions),
            self._features(),
            *(self._reference(r) for r in resolutions),
            self._teacher(), self._invert(), self._distill(),
            *(self._grow(r) for r in resolutions[1:]),
            *(self._evaluate(r) for r in resolutions),
        ]  # fmt: skip

    def growth(self, stages: list[Stage]) -> list[Direct]:
        """Diffusion at every resolution beside growing to it."""
        flops = {s.stage: s.flops for s in stages}
        steps = [flops[f"grow@{r}"] for r in self.config.resolutions[1:]]
        start = flops["teacher"] + flops["invert"] + flops["distill"]
        reached = list(itertools.accumulate(steps, initial=start))
        found: list[Direct] = []
        for i, resolution in enumerate(self.config.resolutions):
            denoiser, each = self.counter.diffusion_at(resolution)
            base = found[0].training_flops if found else each
            found.append(Direct(
                resolution, parameters(denoiser), each, each / base, 4**i,
                each * self.config.teacher.optim.images, steps[i - 1] if i else None, reached[i],
            ))  # fmt: skip
        return found

    def _features(self) -> Stage:
        size, n = parameters(self.judge), self.config.features.images
        return Stage(
            "features", size, size, None, self.judge_call, self.judge_training * n, "fp32",
            checkpoint_bytes=_state(self.judge),
            scratch_bytes=_scratch([self.judge], [self.judge]),
        )  # fmt: skip

    def _reference(self, resolution: int) -> Stage:
        section, dim = self.config.reference, self.config.features.dim
        n = self.train if section.split == "train" else self.test
        kept = min(section.manifold_images, n)
        return Stage(
            f"reference@{resolution}", parameters(self.judge), 0, None, self.judges_call,
            self.judges_call * n, "fp32", data_bytes=8 * dim * (dim + 1) + 4 * dim * kept,
        )  # fmt: skip

    def _teacher(self) -> Stage:
        optim, net = self.config.teacher.optim, self.counter.denoiser
        if self.config.teacher.imported != NO_WEIGHTS:
            return _taken("teacher", net, self.call)
        size = parameters(net)
        return Stage(
            "teacher", size, size, None, self.call,
            self.counter.denoiser_training() * optim.images, optim.precision,
            checkpoint_bytes=_state(net), scratch_bytes=_scratch([net, net], [net]),
        )  # fmt: skip

    def _invert(self) -> Stage:
        section, net = self.config.invert, self.counter.denoiser
        back = min(section.round_trip_images, self.counter.pairs)
        calls = nfe(section.steps, section.solver, guidance=section.guidance)
        check = self.call * back * calls
        return Stage(
            "invert", parameters(net), 0, None, self.call, self.counter.inversion() + check,
            section.precision, latent_bytes=latent_bytes(self.config, self.counter.pairs),
        )  # fmt: skip

    def _distill(self) -> Stage:
        base, count = self.config.base_res, self.counter.distillation
        return self._one_step("distill", base, self.config.distill, count)

    def _grow(self, resolution: int) -> Stage:
        count = partial(self.counter.growth, resolution)
        return self._one_step(f"grow@{resolution}", resolution, self.config.grow, count)

    def _one_step(
        self,
        name: str,
        resolution: int,
        section: DistillConfig | GrowConfig,
        count: Callable[[], float],
    ) -> Stage:
        net = self.generators[resolution]
        if section.imported != NO_WEIGHTS:
            return _taken(name, net, self.calls[resolution])
        judge = self.counter.discriminator(section.discriminator, resolution)
        distance = self.counter.distance(section.loss)
        kept: list[nn.Module] = [net, net, judge, *([distance] if distance is not None else [])]
        return Stage(
            name, parameters(net), _trained(net), _trained(judge), self.calls[resolution], count(),
            section.optim.precision, checkpoint_bytes=_state(net),
            scratch_bytes=_scratch(kept, [net, judge]),
        )  # fmt: skip

    def _evaluate(self, resolution: int) -> Stage:
        """The samplers of the evaluation: see :mod:`pagoda.stages.models`."""
        section, base = self.config.evaluate, self.calls[self.config.base_res]
        real = self.test if self.config.reference.split == "train" else self.train
        if resolution == self.config.base_res:
            made, generators = 3 * base + nfe(section.teacher_steps, "heun") * self.call, 4
        else:
            made, generators = self.calls[resolution] + base, 2
        seen = generators * section.samples + min(section.samples, real)
        return Stage(
            f"evaluate@{resolution}", parameters(self.generators[resolution]), 0, None,
            self.calls[resolution], made * section.samples + self.judges_call * seen, "fp32",
        )  # fmt: skip


def _taken(name: str, network: nn.Module, call: float) -> Stage:
    """A training stage that takes weights from elsewhere."""
    size, state = parameters(network), _state(network)
    return Stage(name, size, 0, None, call, checkpoint_bytes=state, imported=True)


def _trained(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _state(network: nn.Module) -> int:
    """Bytes of a module's state."""
    return sum(t.numel() * t.element_size() for t in network.state_dict().values())


def _scratch(kept: list[nn.Module], trained: list[nn.Module]) -> int:
    """Bytes of the checkpoints of a training stage: modules, and Adam's moments of trained ones."""
    moments = _MOMENTS * 4 * sum(_trained(m) for m in trained)
    return _CHECKPOINTS * (sum(_state(m) for m in kept) + moments)
