"""Measures what a variant of a study has made and writes its ``measurement`` artifact."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pagoda import artifacts
from pagoda.config import VariantConfig
from pagoda.config.paths import Paths
from pagoda.data.shards import open_rows
from pagoda.evaluation.enlarged import ENLARGED, Enlarged
from pagoda.evaluation.evaluator import Evaluator, evaluate
from pagoda.evaluation.features.base import Extractor
from pagoda.evaluation.features.classifier import NAME
from pagoda.evaluation.metrics.base import metrics, size
from pagoda.evaluation.metrics.drift import REACH, drift
from pagoda.evaluation.metrics.failure import gradient_spread, logit_gap, signatures
from pagoda.evaluation.metrics.high_frequency import high_frequency_energy
from pagoda.evaluation.metrics.normality import normality
from pagoda.evaluation.samplers import (
    Draws,
    Sampler,
    super_resolved,
    teacher,
    upsampled,
)
from pagoda.evaluation.streaming import StoredImages
from pagoda.evaluation.two_steps import two_steps
from pagoda.pipeline.stages.aligned import alignment_of
from pagoda.pipeline.stages.compute import (
    Held,
    is_training,
    resolution_of,
    training_compute,
    training_held,
)
from pagoda.pipeline.stages.cost import sampling_costs
from pagoda.pipeline.stages.device import metric_device, pick_device
from pagoda.pipeline.stages.evaluate import open_evaluators, settings_of, unseen_images
from pagoda.pipeline.stages.extractors import open_extractors
from pagoda.pipeline.stages.floor import floor_rows
from pagoda.pipeline.stages.made import open_made, training_set
from pagoda.pipeline.stages.measurement import write_measurement
from pagoda.pipeline.stages.models import guided, without
from pagoda.pipeline.stages.progress import track
from pagoda.pipeline.stages.round_trip import round_trip_errors
from pagoda.pipeline.stages.study_spec import Study, Variant
from pagoda.pipeline.stages.verify import verified
from pagoda.rows import Row

METRICS = ("fd", "precision", "recall", "accuracy")
_GRID = 16  # samples kept of each generator, the same latents for all
_CANDIDATES = 2, 4, 8  # of a sample, of which a ratio network takes the best
_LATENTS = 4096  # latents whose distribution is looked at


_TO_TEACHER = ("autoencoder", "encode", "teacher")


@dataclass(frozen=True)
class Opened:
    """What a study measures with at a resolution.

    Attributes:
        evaluators: of every feature network.
        real: held-out real images.
        energy: their high-frequency energy.
        device: that distances between points are made on, as :func:`evaluate` takes it.
    """

    evaluators: list[Evaluator]
    real: StoredImages
    energy: float
    device: str | None


def run(config: VariantConfig, study: Study, variant: Variant) -> None:
    """Measure every generator of the variant, its latents and its training curves.

    ``rows.json`` holds one row a value (:class:`pagoda.rows.Row`); ``failures`` names the
    signatures of failure by resolution.
    """
    artifacts.check_out(config.places["measured"], "measurement")
    device, features = pick_device(), open_made(config, "features")
    classes, images = training_set(config)
    steps = variant.steps or variant.counts
    counted = training_compute(config, steps, classes, images)
    held = training_held(config, steps, classes, images)
    curves = Curves(config, counted, held, trained=bool(variant.steps))
    samplers = variant_samplers(config, variant.steps, device)
    extractors = open_extractors(config, features, device, config.evaluate.batch)
    sides = sorted({sampler.side for sampler in samplers})
    opened = {side: _opened(config, study, extractors, side, device) for side in sides}
    rows, grids = _latent_rows(config, variant), {}
    last: tuple[Sampler | None, np.ndarray] = (None, np.empty(0))
    with track(config.studies.samples * (len(samplers) + len(sides)), "measure") as bar:
        for sampler in samplers:
            made, seconds = draw(sampler)
            below = None
            if sampler.below is not None:  # the stage below of a cascade has just been sampled
                below = last[1] if sampler.below is last[0] else draw(sampler.below)[0]
            last = sampler, made
            bar.advance(len(made))
            # Of one call: choosing needs more.
            known = None if "verify" in variant.steps else seconds
            found = _image_rows(config, opened[sampler.side], sampler, made, below, known)
            cost = curves.up_to(sampler)
            rows += [
                r if r.generator == ENLARGED else dataclasses.replace(r, **cost) for r in found
            ]
            grids[f"samples-{sampler.name}-{sampler.side}"] = made[:_GRID]
            lower = sampler.side // 2
            if below is not None and lower not in {s.side for s in samplers}:
                grids[f"below-{lower}"] = below[:_GRID]
        for side in sides:
            rows += _held_out_rows(config, opened[side], side)
            bar.advance(config.studies.samples)
    if "autoencoder" in variant.steps:
        rows += floor_rows(config, extractors, device)
    rows += curves.rows()
    if variant.counts:
        for name, at, calls, costs in sampling_costs(config, variant.counts, classes, device):
            rows += _rows(costs, n=config.evaluate.batch, generator=name, resolution=at, nfe=calls)
    failures = {str(s.side): _failures(rows, s.side) for s in samplers if s.name == "grown"}
    write_measurement(config, study, variant, rows, failures, grids)


def variant_samplers(
    config: VariantConfig, steps: tuple[str, ...], device: torch.device
) -> list[Sampler]:
    """Everything that the steps of a variant have made, lowest resolution first."""
    section = config.evaluate
    draws = Draws(section.seed, config.studies.samples, section.batch, device)
    found = []
    weight = section.guidance  # 1, none, unless the variant says otherwise
    if {"teacher", "score_teacher"} & set(steps):
        found.append(teacher(open_made(config, "teacher"), draws, section.teacher_steps, weight))
    if {"distill", "score_student"} & set(steps):
        student = open_made(config, f"gen/{config.base_res}")
        found.append(guided(student, draws, weight, "student"))
    if "verify" in steps:
        found += verified(open_made(config, f"gen/{config.base_res}"), draws, _CANDIDATES)
    if "two_steps" in steps:
        student = open_made(config, f"gen/{config.base_res}")
        found.append(two_steps(student, draws, config.diffusion.sigma_min))
    if {"grow", "grow_each"} & set(steps):
        for to in config.resolutions[1:]:
            lower = without(config, f"gen/{to // 2}") if "grow_each" in steps else config
            below = guided(open_made(lower, f"gen/{to // 2}"), draws, weight)
            found.append(guided(open_made(config, f"gen/{to}"), draws, weight, "grown", below))
    if {"distill", "grow"} <= set(steps) and config.growth:  # what growth has to be better than
        base = guided(open_made(config, f"gen/{config.base_res}"), draws, weight)
        found.append(upsampled(base, config.target_res, "upsampled_base"))
    if "cascade" in steps:
        found += cascade(config, draws)
    return found


def cascade(config: VariantConfig, draws: Draws) -> list[Sampler]:
    """The teacher and the super-resolution models above it, each on the output of the last."""
    source, section = open_made(config, "teacher"), config.studies.cascade
    schedule = source.card()["diffusion"]
    found = [teacher(source, draws, config.evaluate.teacher_steps, name="cascade")]
    for to in config.resolutions[1:]:
        artifact = open_made(config, f"sr/{to}")
        found.append(super_resolved(found[-1], artifact, schedule, section.steps, section.noise))
    return found


def draw(sampler: Sampler) -> tuple[np.ndarray, float | None]:
    """All images of a sampler, and seconds an image, drawing latents and a first call left out:
    None where there is no other.
    """
    parts, seconds = [], []
    for drawn, n in sampler.calls(np.arange(len(sampler))):
        began = time.perf_counter()
        parts.append(sampler.make(*drawn)[:n])
        seconds.append(time.perf_counter() - began)
    later = seconds[1:]
    each = sum(later) / (len(later) * sampler.draws.batch) if later else None
    return np.concatenate(parts), each


def _image_rows(
    config: VariantConfig, opened: Opened, sampler: Sampler, images: np.ndarray,
    below: np.ndarray | None, seconds: float | None,
) -> list[Row]:  # fmt: skip
    """One row a value of a sampler's images (n, 3, r, r) uint8.

    ``below``: what the same latents give one resolution below. ``seconds``: an image, if known.
    """
    n, section, reference = len(images), config.evaluate, opened.evaluators[0].reference
    facts = {"resolution": sampler.side}
    own = {**facts, "nfe": sampler.nfe, "seed": section.seed}
    held = {sampler.name: StoredImages("samples", images, sampler.labels)}
    settings = settings_of(section, opened.evaluators, {**held, "real": opened.real})
    told = None
    if config.captioned:
        told = alignment_of(
            open_made(config, config.modelled(config.base_res)), {sampler.name: sampler},
            sampler.draws.device,
        )  # fmt: skip
    seen = (lambda *_: None) if told is None else told.see
    found = evaluate(held, opened.evaluators, settings, own, device=opened.device, seen=seen)
    found += [] if told is None else told.rows(own)
    ratio = high_frequency_energy(images) / max(opened.energy, 1e-12)
    values = {
        "high_frequency": (f"high_frequency_ratio_{size(n)}", ratio),
        "parameters": ("parameters", sampler.parameters),
    }
    if seconds is not None:
        values["seconds_per_image"] = (f"seconds_per_image_b{section.batch}", seconds)
    values |= {} if below is None else drifted(images, below)
    found += _rows(values, n=n, generator=sampler.name, reference=reference.fingerprint,
                   reference_n=reference.n, **own)  # fmt: skip
    if sampler.name == "upsampled_base":  # and what no student could do better without growth
        base = open_made(config, f"data/{sampler.base_res}")
        small = unseen_images(base, reference, config.studies.samples)
        found += evaluate(
            {ENLARGED: Enlarged(small, sampler.side)}, opened.evaluators, settings, facts,
            device=opened.device,
        )  # fmt: skip
    return found


def drifted(images: np.ndarray, below: np.ndarray) -> dict[str, tuple[str, float]]:
    """Drift from images one resolution below, which are too small to look in up to 4 pixels."""
    if below.shape[-1] <= 2 * REACH:
        return {}
    moved, n = drift(images, below), size(len(images))
    return {"drift": (f"drift_px_{n}", float(moved.pixels.mean())),
            "drift_mse": (f"drift_mse_{n}", float(moved.mse.mean()))}  # fmt: skip


def _opened(
    config: VariantConfig, study: Study, extractors: Sequence[Extractor], side: int,
    device: torch.device,
) -> Opened:  # fmt: skip
    names = {"data": f"data/{side}", "reference": f"reference/{side}", "features": "features"}
    inputs = {name: open_made(config, key) for name, key in names.items()}
    found = open_evaluators(config, side, inputs, extractors)
    real = unseen_images(inputs["data"], found[0].reference, config.studies.samples)
    evaluators = [dataclasses.replace(e, metrics=_measured(study, e)) for e in found]
    energy = high_frequency_energy(real.read(np.arange(len(real))))
    return Opened(evaluators, real, energy, metric_device(device))


def _held_out_rows(config: VariantConfig, opened: Opened, side: int) -> list[Row]:
    """Held-out real images as the generators are measured: no generator can be much nearer."""
    settings = settings_of(config.evaluate, opened.evaluators, {"real": opened.real})
    return evaluate({"real": opened.real}, opened.evaluators, settings, {"resolution": side},
                    device=opened.device)  # fmt: skip


def _measured(study: Study, evaluator: Evaluator) -> tuple[str, ...]:
    """What a study measures in these features: with the classifier, which all have, few and those
    that it names.
    """
    named = {*study.metrics, *(claim.get("metric") for claim in study.claims)}
    return tuple(
        key for key in evaluator.metrics
        if (key in METRICS or named & {*metrics()[key].labels}
            if evaluator.extractor.name == NAME else "held_out" not in metrics()[key].needs)
    )  # fmt: skip


class Curves:
    """Compute of every training step of a variant and, from its curves, time and stability.

    Args:
        flops: of each step.
        held: what each holds in memory.
        trained: there are curves; steps that are only counted have none.
    """

    def __init__(
        self, config: VariantConfig, flops: dict[str, float],
        held: dict[str, Held] | None = None, trained: bool = True,
    ) -> None:  # fmt: skip
        self.flops, self.held = flops, held or {}
        self.at = {stage: resolution_of(config, stage) for stage in flops}
        files = {stage: Paths(config).history(stage) for stage in flops if trained}
        self.curves = {stage: [json.loads(line) for line in file.read_text("utf-8").splitlines()]
                       for stage, file in files.items()}  # fmt: skip

    def up_to(self, sampler: Sampler) -> dict[str, Any]:
        """Training images, FLOPs and seconds of all that the variant did up to a generator."""
        enlarged = sampler.name == "upsampled_base"  # which needs the student's training alone
        side = sampler.base_res if enlarged else sampler.side
        last = {stage: rows[-1] for stage, rows in self.curves.items() if self.at[stage] <= side}
        if sampler.name == "teacher":  # nor what came after it
            last = {s: row for s, row in last.items() if s.partition("-")[0] in _TO_TEACHER}
        return {
            "images_seen": int(sum(row["images"] for s, row in last.items() if is_training(s))),
            "train_flops": sum(self.flops[s] for s in last),
            "train_seconds": float(sum(row["seconds"] for row in last.values())),
        } if last else {}  # fmt: skip

    def rows(self) -> list[Row]:
        """What each stage took by itself, and how stable growth was."""
        found = []
        for stage, flops in self.flops.items():
            kind, curve = stage.partition("-")[0], self.curves.get(stage, [])
            values = {"stage_flops": (f"stage_flops_{kind}", flops)}
            if stage in self.held:
                own = vars(self.held[stage])
                values |= {f"held_{key}": (f"held_{key}_{kind}", own[key]) for key in own}
            if curve:
                values["stage_seconds"] = (f"stage_seconds_{kind}", curve[-1]["seconds"])
            if curve and kind == "grow":
                values |= {"gradient_spread": ("gradient_spread", gradient_spread(curve)),
                           "logit_gap": ("logit_gap", logit_gap(curve))}  # fmt: skip
            n = int(curve[-1]["images"]) if curve else 1
            found += _rows(values, n=n, resolution=self.at[stage])
        return found


def _rows(values: Mapping[str, tuple[str, float]], **facts: Any) -> list[Row]:
    return [
        Row(metric=metric, protocol=name, value=float(value), **facts)
        for metric, (name, value) in values.items()
    ]


def _latent_rows(config: VariantConfig, variant: Variant) -> list[Row]:
    """Round-trip errors and normality of the latents that the variant made."""
    if not {"invert", "pair_randomly"} & set(variant.steps):
        return []
    latents = open_made(config, "latents")
    card, stored = latents.card(), open_rows(latents, "latents")
    z = stored[:_LATENTS].astype(np.float32) * card["to_normalised"]
    values = {f"latent_{k}": (f"latent_{k}", v)
              for k, v in dataclasses.asdict(normality(z)).items()}  # fmt: skip
    facts = {"resolution": config.base_res, "nfe": card["nfe"]}
    rows = _rows(values, n=len(z), **facts)
    if card["round_trip_mse"] is not None:
        rows += _rows(round_trip_errors(config), n=card["round_trip_images"], **facts)
    return rows


def _failures(rows: Iterable[Row], resolution: int) -> list[str]:
    """The signatures of failure that growth to a resolution shows, recall in the features of the
    last of ``reference.extractors``: the independent network where there is one.
    """
    at = {(r.generator, r.metric): r.value or 0.0 for r in rows if r.resolution == resolution}
    return signatures(
        energy_ratio=at["grown", "high_frequency"],
        recall_ratio=at["grown", "recall"] / max(at["real", "recall"], 1e-9),
        gradient_spread=at["none", "gradient_spread"],
        logit_gap=at["none", "logit_gap"],
    )
