"""Teacher and generators over the weight of classifier-free guidance (PaGoDA, section 4).

At the base resolution the teacher is sampled under each weight, and a generator that is told the
weight makes the same latents under it: if p(x | c, omega) is the same, so are their curves of
distance, precision, recall and class score. Above the base there is the grown generator alone. The
weight of the lowest distance is printed for every feature network, with how many were searched: in
most published work the two that FID and FD-DINOv2 choose differ.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.config import Config
from pagoda.errors import PagodaError
from pagoda.evaluation.guidance import Guidance, check_weight, parse_levels, weaker
from pagoda.evaluation.results import check_out
from pagoda.evaluation.samplers import one_step, teacher
from pagoda.fields import NUMBER
from pagoda.networks.generator import TOLD
from pagoda.pipeline.stages.evaluate import open_inputs
from pagoda.pipeline.stages.verify import draws_of, measure
from pagoda.rows import Row

METRICS = ("fd", "precision", "recall", "accuracy", "score")
"""What is measured, where the feature network has it."""


@dataclass(frozen=True)
class Request:
    """The options of ``pagoda guidance``, as they were typed."""

    weights: str
    resolution: int
    out: Path
    interval: str | None = None
    guide: str | None = None


def run(config: Config, request: Request) -> None:
    """Measure under each weight, with intervals; show, and write JSON.

    Raises:
        PagodaError: one line: weights that a model does not take, options that do not go together.
    """
    check_out(request.out)
    weights, levels = weight_list(request.weights), parse_levels(request.interval)
    at_base = request.resolution == config.base_res
    if not at_base and (levels or request.guide):
        raise PagodaError(
            "--interval and --guide are of the teacher, which has no images at "
            f"{request.resolution}; leave them out, or --resolution {config.base_res}"
        )
    inputs, draws = open_inputs(config, request.resolution), draws_of(config)
    guide = None if request.guide is None else weaker(inputs["teacher"], request.guide)
    sets: dict[str, Any] = {}
    for w in weights:
        how = Guidance(w, levels, guide)
        if at_base:
            steps = config.evaluate.teacher_steps
            sets[f"teacher w={w:g}"] = teacher(inputs["teacher"], draws, steps, how)
        if at_base and (levels or guide):
            continue  # the student learned plain guidance at every noise level
        name = f"{'student' if at_base else 'grown'} w={w:g}"
        known = inputs["generator"].card().get(TOLD)
        check_weight(str(inputs["generator"].path), known, w, measured=True)
        sets[name] = one_step(inputs["generator"], draws, name, guidance=w)
    about = {
        "generator": inputs["generator"].fingerprint, "teacher": inputs["teacher"].fingerprint,
        "weights": weights, "none": 1.0, "interval": levels, "guide": request.guide,
    }  # fmt: skip
    rows = measure(config, request.resolution, inputs, sets, request.out, about,
                   metrics=METRICS, intervals=True)  # fmt: skip
    for line in best_weights(rows):
        sys.stdout.write(f"{line}\n")


def best_weights(rows: Sequence[Row]) -> list[str]:
    """A line a model and distance: its lowest value, at which weight, of how many searched."""
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for row in rows:
        model, _, weight = row.generator.partition(" w=")
        if row.metric in ("fd", "fid"):
            found.setdefault((model, row.protocol), []).append((row.number, weight))
    return [
        f"lowest {protocol} of the {model}: {min(points)[0]:.6g} at w = {min(points)[1]} "
        f"(1 is none), of {len(points)} searched"
        for (model, protocol), points in found.items()
    ]


def weight_list(text: str) -> list[float]:
    """``1,1.5,4`` -> [1.0, 1.5, 4.0].

    Raises:
        PagodaError: for anything but different numbers from 0.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [float(part) for part in parts if NUMBER.fullmatch(part)]
    fine = len(numbers) == len(parts) == len(set(numbers)) and all(w >= 0 for w in numbers)
    if not fine:
        raise PagodaError(
            f"--weights {text!r}; it must be different numbers from 0, as in 1,1.5,2,3"
        )
    return numbers
