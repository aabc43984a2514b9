"""A whole experiment: ``params.yaml`` from its name to its studies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from pagoda.config.sections import (
    DataConfig,
    DistillConfig,
    EvaluateConfig,
    FeaturesConfig,
    GrowConfig,
    InvertConfig,
    ReferenceConfig,
    ReportConfig,
    StudiesConfig,
)
from pagoda.fields import opt
from pagoda.methods.teacher import TeacherConfig
from pagoda.training.settings import DiffusionConfig


@dataclass(frozen=True)
class Config:
    """A whole experiment."""

    name: str = opt("profile name; outputs live under runs/<name>/", name=True)
    seed: int = opt("seed of everything but the feature network", ge=0)
    base_res: int = opt("resolution of the teacher", ge=4, power_of_two=True)
    target_res: int = opt("resolution of the last generator", ge=4, power_of_two=True)
    resolutions: list[int] = opt("derived: base_res, doubled up to target_res")
    growth: dict[str, dict[str, int]] = opt("derived: one doubling an entry")
    data: DataConfig = opt("data")
    features: FeaturesConfig = opt("embedded feature network")
    reference: ReferenceConfig = opt("reference statistics")
    diffusion: DiffusionConfig = opt("noise schedule and grid")
    teacher: TeacherConfig = opt("stage 1")
    invert: InvertConfig = opt("stage 2, inversion")
    distill: DistillConfig = opt("stage 2, distillation")
    grow: GrowConfig = opt("stage 3")
    evaluate: EvaluateConfig = opt("evaluation")
    report: ReportConfig = opt("report")
    studies: StudiesConfig = opt("studies")


@dataclass(frozen=True)
class ArmConfig(Config):
    """One arm of a study: an experiment some of whose artifacts live elsewhere.

    Attributes:
        places: folders that replace those of the main pipeline, by artifact: ``teacher``,
            ``latents``, ``gen/<resolution>``, ``evaluate/<resolution>``, ``history``.
    """

    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
