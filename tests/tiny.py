"""The default experiment made tiny: every stage in a second or two."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from pagoda.config import with_derived

ROOT = Path(__file__).parent.parent

TINY: dict[str, Any] = {
    "name": "tiny",
    "data.train_images": 200,
    "data.test_images": 100,
    "features.images": 256,
    "features.batch": 32,
    "features.channels": 8,
    "features.dim": 16,
    "reference.manifold_images": 64,
    "teacher.network.channels": 16,
    "teacher.network.head_channels": 16,
    "teacher.optim.images": 256,
    "teacher.optim.batch": 32,
    "invert.images": 64,
    "invert.steps": 4,
    "invert.batch": 32,
    "invert.round_trip_images": 16,
    "distill.optim.images": 128,
    "distill.optim.batch": 16,
    "distill.prior_batch": 16,
    "distill.teacher_steps": 4,
    "distill.discriminator.channels": 8,
    "distill.discriminator.max_channels": 16,
    "grow.optim.images": 128,
    "grow.optim.batch": 16,
    "grow.prior_batch": 16,
    "grow.channels": 16,
    "grow.discriminator.channels": 8,
    "grow.discriminator.max_channels": 16,
    "evaluate.samples": 64,
    "evaluate.batch": 32,
    "evaluate.teacher_steps": 4,
    "evaluate.score_splits": 2,
    "evaluate.grid_per_class": 2,
    "studies.edit.images": 20,
    "studies.edit.steps": 2,
    "studies.edit.several": 2,
    "studies.edit.answers": 2,
    "studies.edit.walk_steps": 2,
    "studies.edit.posterior_steps": 3,
    "studies.edit.frames": 3,
}


def override(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a tree with dotted keys replaced; a key that is not there is a mistake."""
    new = copy.deepcopy(dict(tree))
    for dotted, value in values.items():
        *path, last = dotted.split(".")
        node = new
        for key in path:
            node = node[key]
        assert last in node, f"{dotted} is no key of the configuration"
        node[last] = value
    return new


@cache
def _read(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "experiments" / name).read_text()))


@cache
def _smoke() -> dict[str, Any]:
    own = {k: v for k, v in _read("profile/smoke.yaml").items() if k != "defaults"}
    whole: Any = OmegaConf.to_object(OmegaConf.merge(_read("base.yaml"), own))
    return dict(whole)


def smoke_tree(**overrides: Any) -> dict[str, Any]:
    """The tree of the default profile with dotted keys replaced; derived keys follow."""
    return with_derived(override(_smoke(), overrides))


def copy_studies(folder: Path) -> None:
    """The project's studies, in a folder of their own: they keep their runs beside them."""
    away = shutil.ignore_patterns("runs", ".dvc", "pagoda", "dvc.*")
    shutil.copytree(ROOT / "experiments", folder / "experiments", symlinks=True, ignore=away)


def tiny_tree(**overrides: Any) -> dict[str, Any]:
    """The tree of ``params.yaml`` for the tiny experiment."""
    return with_derived(override(_read("base.yaml"), TINY | overrides))
