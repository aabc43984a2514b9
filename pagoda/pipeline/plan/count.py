"""Counts every stage of an experiment on its real networks, on torch's meta device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from pagoda.config import NO_WEIGHTS, Config
from pagoda.diffusion.solver import nfe
from pagoda.evaluation.features.base import find_family
from pagoda.evaluation.features.classifier import NAME
from pagoda.pipeline.plan.shapes import SeenBefore
from pagoda.pipeline.stages.compute import Untrained, clips_of, section_of
from pagoda.pipeline.stages.counters import META, forward_flops, parameters
from pagoda.pipeline.stages.super_resolution import multipliers
from pagoda.results.plans import SCHEMA, Direct, Plan, Stage

THIS_MACHINE = "this machine"
"""Column of the hours that a probe predicts."""

_BATCH = 2
_MOMENTS = 2  # tensors that Adam keeps of every trained one
_CHECKPOINTS = 2  # that a training stage keeps while it runs
_WEBP = 0.42
"""Lossless WebP against raw pixels, measured at 512x512 (docs/data.md); small images take more."""
_LABEL_BYTES = 8
_ALIKE = {"reference": "features", "evaluate": "invert"}
"""Stages that are not probed, and those that evaluate the same network."""


def make_plan(
    config: Config, images: tuple[int, int], cards: dict[str, float], utilisation: float,
    probed_on: str | None = None, reached: Mapping[str, float] | None = None,
) -> Plan:  # fmt: skip
    """Count ``config`` with (training, held-out) ``images``.

    Args:
        config: the experiment.
        images: how many there are.
        cards: peak TFLOP/s by name of card.
        utilisation: fraction of the peak that is reached, in (0, 1].
        probed_on: this machine's device, for hours on it.
        reached: TFLOP/s measured there, by stage.
    """
    with SeenBefore():
        counted = _Count(config, images)
        stages = counted.stages()
        growth = counted.growth({s.stage: s.flops for s in stages})
    speeds = {card: peak * 1e12 * utilisation for card, peak in cards.items()}

    def hours(stage: Stage) -> dict[str, float]:
        here = {}
        if reached:
            name = _ALIKE.get(stage.stage.partition("@")[0], stage.stage)
            here[THIS_MACHINE] = reached.get(name, reached["invert"]) * 1e12
        return {name: stage.flops / speed / 3600 for name, speed in (speeds | here).items()}

    section, extractors = config.invert, config.reference.extractors
    return Plan(
        SCHEMA, config.name, config.resolutions, *images, counted.untrained.pairs,
        nfe(section.steps, section.solver, inverse=True, guidance=section.costliest), utilisation,
        cards, [replace(stage, hours=hours(stage)) for stage in stages], growth, probed_on,
        dict(reached or {}), extractors,
        [text for text in extractors if text != NAME and not feature_flops(text)],
    )  # fmt: skip


@cache
def feature_flops(extractor: str) -> float:
    """FLOPs of one image through a published network of ``reference.extractors``.

    0 of the embedded classifier, which is counted apart, and of a ``custom`` one, not known here.
    """
    if extractor == NAME:
        return 0.0
    family, name = find_family(extractor)
    known = family.untrained(name)
    if known is None:
        return 0.0
    make, side = known
    with META:
        return forward_flops(make().eval(), torch.zeros(_BATCH, 3, side, side)) / _BATCH


def image_bytes(config: Config, resolution: int, count: int) -> int:
    """Bytes of ``count`` stored images and their labels at one resolution."""
    pixels = 3 * resolution**2
    start = config.data.encode_from
    if start is not None and resolution >= start:
        pixels = round(pixels * _WEBP)
    return count * (pixels + _LABEL_BYTES)


def latent_bytes(config: Config, count: int) -> int:
    """Bytes of ``count`` latents with index, mirror flag and label."""
    value = 2 if config.invert.dtype == "fp16" else 4
    return count * (math.prod(config.shape(config.base_res)) * value + 8 + 1 + _LABEL_BYTES)


class _Count:
    """The stages of one experiment in the order of ``dvc.yaml``."""

    def __init__(self, config: Config, images: tuple[int, int]) -> None:
        self.config, (self.train, self.test) = config, images
        self.untrained = Untrained(config, config.data.num_classes, self.train)
        self.training = cache(self.untrained.training)
        self.features, self.denoiser = self.untrained.features(), self.untrained.denoiser()
        x = torch.zeros(_BATCH, 3, config.target_res, config.target_res, device=META)
        self.features_call = forward_flops(self.features, x) / _BATCH
        self.seen_call = self.features_call + sum(map(feature_flops, config.reference.extractors))
        self.scored_call = 0.0
        if config.captioned:
            self.scored_call = forward_flops(self.untrained.clip("scorer").images, x) / _BATCH
        self.generators = {r: self.untrained.generator(r) for r in config.resolutions}
        self.calls = {
            r: self.untrained.call(g, config.base_res) for r, g in self.generators.items()
        }

    def stages(self) -> list[Stage]:
        """A row a stage."""
        c, resolutions, count = self.config, self.config.resolutions, self.train + self.test
        return [
            *(Stage(f"downsample@{r}", data_bytes=image_bytes(c, r, count)) for r in resolutions),
            self._trained("features", self.features, self.features_call),
            *map(self._reference, resolutions),
            *self._codes(),
            *self._captions(),
            self._trained("teacher", self.denoiser, self.untrained.denoiser_call),
            self._invert(),
            self._trained("distill", self.generators[c.base_res], self.calls[c.base_res]),
            *(self._trained(f"grow@{r}", self.generators[r], self.calls[r])
              for r in resolutions[1:]),
            *map(self._evaluate, resolutions),
        ]  # fmt: skip

    def _codes(self) -> list[Stage]:
        """What comes before the teacher in latent space: nothing in the space of pixels."""
        c, at = self.config, self.untrained
        if not c.latent:
            return []
        network, call = at.autoencoder(), at.encoding(c.target_res) + at.decoding(c.target_res)
        codes = [4 * math.prod(c.shape(r)) for r in c.resolutions]
        return [
            self._trained("autoencoder", network, call),
            *(Stage(f"encode@{r}", parameters(network), 0, None, at.encoding(r), at.encoded(r),
                    "fp32", data_bytes=self.train * (2 * size + _LABEL_BYTES))
              for r, size in zip(c.resolutions, codes, strict=True)),
        ]  # fmt: skip

    def _captions(self) -> list[Stage]:
        """The CLIPs, and the captions that the first one reads, a different one an image at most.

        Another text encoder's reading is not counted: it is not here.
        """
        c, at = self.config, self.untrained
        if not c.captioned:
            return []
        clips = {kind: at.clip(kind) for kind in clips_of(c)}
        images = torch.zeros(_BATCH, 3, c.target_res, c.target_res, device=META)
        rows = torch.zeros(_BATCH, c.text.context, dtype=torch.int64, device=META)
        of_texts = forward_flops(clips["clip"].texts, rows) / _BATCH if "clip" in clips else 0.0
        return [
            *(self._trained(kind, clip, forward_flops(clip, images, rows) / _BATCH)
              for kind, clip in clips.items()),
            *(Stage(f"caption@{r}", forward_flops=of_texts or None,
                    flops=of_texts * (self.train + self.test), data_bytes=self.train * _LABEL_BYTES)
              for r in c.resolutions),
        ]  # fmt: skip

    def growth(self, flops: Mapping[str, float]) -> list[Direct]:
        """Diffusion at every resolution beside growing to it, from the stages' FLOPs."""
        teacher, images = self.config.teacher, self.config.teacher.optim.images
        steps = [flops[f"grow@{r}"] for r in self.config.resolutions[1:]]
        before = [flops[s] for s in flops if s.partition("@")[0] in ("autoencoder", "encode")]
        start = flops["teacher"] + flops["invert"] + flops["distill"] + sum(before)
        reached = list(itertools.accumulate(steps, initial=start))
        found: list[Direct] = []
        for i, resolution in enumerate(self.config.resolutions):
            at, training = self.untrained, self.training
            if i:
                widths = multipliers(teacher.network, resolution)
                higher = replace(teacher, network=replace(teacher.network, channel_mult=widths))
                config = replace(self.config, base_res=resolution, teacher=higher)
                at = Untrained(config, config.data.num_classes, self.train)
                training = cache(at.training)
            each = training("teacher") / images
            base = found[0].training_flops if found else each
            found.append(Direct(
                resolution, parameters(at.denoiser()), each, each / base, 4**i, each * images,
                steps[i - 1] if i else None, reached[i],
            ))  # fmt: skip
        return found

    def _reference(self, resolution: int) -> Stage:
        section, dim = self.config.reference, self.config.features.dim
        n = self.train if section.split == "train" else self.test
        kept = min(section.manifold_images, n)
        return Stage(
            f"reference@{resolution}", parameters(self.features), 0, None, self.seen_call,
            self.seen_call * n, "fp32", data_bytes=8 * dim * (dim + 1) + 4 * dim * kept,
        )  # fmt: skip

    def _trained(self, name: str, network: nn.Module, call: float) -> Stage:
        """A stage that trains by its method, or takes weights from elsewhere."""
        stage, size, state = name.replace("@", "-"), parameters(network), _state(network)
        section = section_of(self.config, name.partition("@")[0])
        if getattr(section, "imported", NO_WEIGHTS) != NO_WEIGHTS:
            return Stage(name, size, 0, None, call, checkpoint_bytes=state, imported=True)
        method = self.untrained.method(stage)
        main, *others = [parameters(p.network, trained=True) for p in method.players.values()]
        kept = [*method.players.values(), *method.modules.values()]
        return Stage(
            name, size, main, sum(others) if others else None, call,
            self.training(stage), section.optim.precision, checkpoint_bytes=state,
            scratch_bytes=_scratch(kept, main + sum(others)),
        )  # fmt: skip

    def _invert(self) -> Stage:
        section, call = self.config.invert, self.untrained.denoiser_call
        back = min(section.round_trip_images, self.untrained.pairs)
        calls = nfe(section.steps, section.solver, guidance=section.costliest)
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
            calls = nfe(section.teacher_steps, "heun", guidance=section.guidance)
            made, generators = 3 * base + calls * self.untrained.denoiser_call, 4
        else:
            made, generators = self.calls[resolution] + base, 2
        decoding = self.untrained.decoding(resolution)
        made, call = made + generators * decoding, self.calls[resolution] + decoding
        seen = generators * section.samples + min(section.samples, real)
        return Stage(
            f"evaluate@{resolution}", parameters(self.generators[resolution]), 0, None,
            call, made * section.samples + (self.seen_call + self.scored_call) * seen, "fp32",
        )  # fmt: skip


def _state(network: nn.Module) -> int:
    """Bytes of a module's state."""
    state = network.state_dict().values()
    return sum(t.numel() * t.element_size() for t in state if isinstance(t, Tensor))


def _scratch(kept: Iterable[nn.Module], trained: int) -> int:
    """Bytes of the checkpoints of a training stage: modules, and Adam's moments of what trains."""
    return _CHECKPOINTS * (sum(map(_state, kept)) + _MOMENTS * 4 * trained)
