"""Counts every stage of an experiment on its real networks, on torch's meta device."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from pagoda.config import NO_WEIGHTS, Config, derive_resolutions
from pagoda.diffusion.solver import nfe
from pagoda.evaluation.features.base import find_family
from pagoda.evaluation.features.classifier import NAME
from pagoda.networks.classifier import FeatureNetwork
from pagoda.pipeline.plan.rows import THIS_MACHINE, Direct, Plan, Reached, Stage
from pagoda.pipeline.plan.shapes import SeenBefore
from pagoda.pipeline.plan.sizes import image_bytes, latent_bytes
from pagoda.pipeline.stages import features
from pagoda.pipeline.stages.compute import (
    META,
    Untrained,
    forward_flops,
    parameters,
    training_flops,
)
from pagoda.pipeline.stages.super_resolution import multipliers

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
        utilisation: fraction of the peak that is reached, in (0, 1].
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
        1, config.name, config.resolutions, *images, counted.untrained.pairs, calls, utilisation,
        cards, stages, growth,
        None if reached is None else reached.device,
        {} if reached is None else {k: v / 1e12 for k, v in reached.flops.items()},
        config.reference.extractors, uncounted(config.reference.extractors),
    )  # fmt: skip


def feature_flops(extractors: Iterable[str]) -> float:
    """FLOPs of one image through all published networks of ``reference.extractors``.

    The embedded classifier is counted apart, and a ``custom`` network is not known.
    """
    return sum(map(_published, extractors))


def uncounted(extractors: list[str]) -> list[str]:
    """Those that :func:`feature_flops` has no count of."""
    return [text for text in extractors if text != NAME and not _published(text)]


def features_training(network: FeatureNetwork) -> float:
    """FLOPs of one image of the feature network's training."""
    x = torch.zeros(_BATCH, 3, network.resolution, network.resolution, device=META)
    return training_flops(partial(_outputs, network), x) / _BATCH


def feature_network(config: Config) -> FeatureNetwork:
    """The embedded classifier, untrained, on the meta device."""
    ladder = derive_resolutions(min(features._LOWEST_RES, config.target_res), config.target_res)
    with META:
        return FeatureNetwork(
            config.data.num_classes, config.target_res, config.features.channels,
            config.features.dim, len(ladder),
        )  # fmt: skip


def _outputs(network: FeatureNetwork, x: Tensor) -> Tensor:
    found = network.embed(x)
    return torch.cat([network.class_head(found), network.degradation_head(found)], dim=1)


def _published(extractor: str) -> float:
    if extractor == NAME:
        return 0.0
    family, name = find_family(extractor)
    return family.flops(name)


def _speed(stage: str, reached: Reached) -> float:
    """FLOP/s of a stage; those that are not probed evaluate a network that another one runs."""
    kin = {"reference": "features", "evaluate": "invert"}
    name = kin.get(stage.partition("@")[0], stage)
    return reached.flops.get(name, reached.flops["invert"])


class _Count:
    """The stages of one experiment in the order of ``dvc.yaml``."""

    def __init__(self, config: Config, images: tuple[int, int]) -> None:
        self.config, (self.train, self.test) = config, images
        self.untrained = Untrained(config, config.data.num_classes, self.train)
        self.features, self.denoiser = feature_network(config), self.untrained.denoiser()
        x = torch.zeros(_BATCH, 3, config.target_res, config.target_res, device=META)
        self.features_call = forward_flops(partial(_outputs, self.features), x) / _BATCH
        self.seen_call = self.features_call + feature_flops(config.reference.extractors)
        self.generators = {r: self.untrained.generator(r) for r in config.resolutions}
        self.calls = {
            r: self.untrained.call(g, config.base_res) for r, g in self.generators.items()
        }

    def stages(self) -> list[Stage]:
        """A row a stage."""
        c, resolutions, count = self.config, self.config.resolutions, self.train + self.test
        return [
            *(Stage(f"downsample@{r}", data_bytes=image_bytes(c, r, count)) for r in resolutions),
            self._features(),
            *(self._reference(r) for r in resolutions),
            self._trained("teacher", c.teacher.imported, self.denoiser,
                          self.untrained.denoiser_call),
            self._invert(),
            self._trained("distill", c.distill.imported, self.generators[c.base_res],
                          self.calls[c.base_res]),
            *(self._trained(f"grow-{r}", c.grow.imported, self.generators[r], self.calls[r])
              for r in resolutions[1:]),
            *(self._evaluate(r) for r in resolutions),
        ]  # fmt: skip

    def growth(self, stages: list[Stage]) -> list[Direct]:
        """Diffusion at every resolution beside growing to it."""
        flops = {s.stage: s.flops for s in stages}
        optim, teacher = self.config.teacher.optim, self.config.teacher
        steps = [flops[f"grow@{r}"] for r in self.config.resolutions[1:]]
        start = flops["teacher"] + flops["invert"] + flops["distill"]
        reached = list(itertools.accumulate(steps, initial=start))
        found: list[Direct] = []
        for i, resolution in enumerate(self.config.resolutions):
            widths = multipliers(teacher.network, resolution)
            network = replace(teacher.network, channel_mult=widths)
            config = replace(
                self.config, base_res=resolution, teacher=replace(teacher, network=network)
            )
            at = Untrained(config, config.data.num_classes, self.train)
            each = at.training("teacher") / optim.images
            base = found[0].training_flops if found else each
            found.append(Direct(
                resolution, parameters(at.denoiser()), each, each / base, 4**i,
                each * optim.images, steps[i - 1] if i else None, reached[i],
            ))  # fmt: skip
        return found

    def _features(self) -> Stage:
        size, n = parameters(self.features), self.config.features.images
        return Stage(
            "features", size, size, None, self.features_call, features_training(self.features) * n,
            "fp32", checkpoint_bytes=_state(self.features),
            scratch_bytes=_scratch([self.features], size),
        )  # fmt: skip

    def _reference(self, resolution: int) -> Stage:
        section, dim = self.config.reference, self.config.features.dim
        n = self.train if section.split == "train" else self.test
        kept = min(section.manifold_images, n)
        return Stage(
            f"reference@{resolution}", parameters(self.features), 0, None, self.seen_call,
            self.seen_call * n, "fp32", data_bytes=8 * dim * (dim + 1) + 4 * dim * kept,
        )  # fmt: skip

    def _trained(self, stage: str, imported: str, network: nn.Module, call: float) -> Stage:
        """A stage that trains by its method, or takes weights from elsewhere."""
        name, size, state = stage.replace("-", "@"), parameters(network), _state(network)
        if imported != NO_WEIGHTS:
            return Stage(name, size, 0, None, call, checkpoint_bytes=state, imported=True)
        method = self.untrained.method(stage)
        main, *others = [parameters(p.network, trained=True) for p in method.players.values()]
        kept = [*method.players.values(), *method.modules.values()]
        section = getattr(self.config, stage.partition("-")[0])
        return Stage(
            name, size, main, sum(others) if stage != "teacher" else None, call,
            self.untrained.training(stage), section.optim.precision, checkpoint_bytes=state,
            scratch_bytes=_scratch(kept, main + sum(others)),
        )  # fmt: skip

    def _invert(self) -> Stage:
        section, call = self.config.invert, self.untrained.denoiser_call
        back = min(section.round_trip_images, self.untrained.pairs)
        calls = nfe(section.steps, section.solver, guidance=section.guidance)
        return Stage(
            "invert", parameters(self.denoiser), 0, None, call,
            self.untrained.inversion() + call * back * calls, section.precision,
            latent_bytes=latent_bytes(self.config, self.untrained.pairs),
        )  # fmt: skip

    def _evaluate(self, resolution: int) -> Stage:
        """The samplers of the evaluation: see :mod:`pagoda.pipeline.stages.models`."""
        section, base = self.config.evaluate, self.calls[self.config.base_res]
        real = self.test if self.config.reference.split == "train" else self.train
        if resolution == self.config.base_res:
            calls = nfe(section.teacher_steps, "heun")
            made, generators = 3 * base + calls * self.untrained.denoiser_call, 4
        else:
            made, generators = self.calls[resolution] + base, 2
        seen = generators * section.samples + min(section.samples, real)
        return Stage(
            f"evaluate@{resolution}", parameters(self.generators[resolution]), 0, None,
            self.calls[resolution], made * section.samples + self.seen_call * seen, "fp32",
        )  # fmt: skip


def _state(network: nn.Module) -> int:
    """Bytes of a module's state."""
    state = network.state_dict().values()
    return sum(t.numel() * t.element_size() for t in state if isinstance(t, Tensor))


def _scratch(kept: Iterable[nn.Module], trained: int) -> int:
    """Bytes of the checkpoints of a training stage: modules, and Adam's moments of what trains."""
    return _CHECKPOINTS * (sum(map(_state, kept)) + _MOMENTS * 4 * trained)
