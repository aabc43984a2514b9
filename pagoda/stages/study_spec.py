"""A study: arms that differ from the profile in a few keys, and where their artifacts live.

``experiments/<study>/study.yaml`` names the arms; ``params.yaml`` gives everything else, so that a
study is as large as its profile. An arm makes its artifacts in a folder of its own and reads the
rest from its parent arm (``of``) or from the main pipeline.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pagoda.config import (
    NAME_RULE,
    NO_WEIGHTS,
    VariantConfig,
    Config,
    is_name,
    parse,
    read_yaml,
    with_lists,
)
from pagoda.errors import PagodaError
from pagoda.stages.paths import Paths

STUDIES = Path("experiments")
_TRAINED = ("teacher", "distill", "grow")  # sections whose images a study's size scales


@dataclass(frozen=True)
class Arm:
    """One arm of a study.

    Attributes:
        name: as the matrix of ``dvc.yaml`` has it.
        label: reader's name, for figures and tables.
        steps: what it does, in order (:data:`STEPS`).
        of: arm whose artifacts it reads instead of the main pipeline's.
        once: it is made with the first seed only, and shared by the other arms.
        set: dotted keys of ``params.yaml`` and their values in this arm.
        images: share of the profile's training images, by section, instead of the study's size.
        doublings: of the base resolution, at most up to the target.
        counts: steps whose cost is counted without doing them.
        axis: where the arm stands on the axis of the study's figure, if it is a number.
        series: curve that it belongs to in the figure.
    """

    name: str
    label: str
    steps: tuple[str, ...]
    of: str | None = None
    once: bool = False
    set: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, float] = field(default_factory=dict)
    doublings: int = 0
    counts: tuple[str, ...] = ()
    axis: float | None = None
    series: str = ""


@dataclass(frozen=True)
class Study:
    """What ``study.yaml`` says.

    Attributes:
        name: the study's folder.
        title: reader's name.
        question: what it asks, one sentence.
        rule: what decides, written before the run.
        size: which size of ``params.yaml`` it takes, ``usual`` or ``costly``.
        arms: by name, in the order of the file.
        axis_label: what the arms' ``axis`` is, with its unit; empty without a numeric axis.
        axis_log: draw that axis logarithmically.
        axis_metric: metric of the teacher to draw on the horizontal axis instead.
        metrics: metrics to draw and tabulate first.
    """

    name: str
    title: str
    question: str
    rule: str
    size: str
    arms: Mapping[str, Arm]
    axis_label: str = ""
    axis_log: bool = False
    axis_metric: str = ""
    metrics: tuple[str, ...] = ("fd",)

    def seeds(self, config: Config, arm: Arm) -> list[int]:
        """The training seeds of an arm."""
        seeds: list[int] = getattr(config.studies, self.size).seeds
        return seeds[:1] if arm.once else seeds

    def folder(self, config: Config, arm: Arm, seed: int) -> Path:
        """Where one run of an arm keeps its artifacts."""
        return Paths(config).shared / "studies" / self.name / arm.name / f"s{seed}"


@dataclass(frozen=True)
class Step:
    """What a step of an arm reads and makes, as keys of :func:`locate`."""

    sections: tuple[str, ...]
    reads: Callable[[Config], list[str]]
    makes: Callable[[Config], list[str]]


def _data(c: Config) -> str:
    return f"data/{c.base_res}"


def _above(c: Config, kind: str) -> list[str]:
    return [f"{kind}/{r}" for r in c.resolutions[1:]]


def _growth(c: Config) -> list[str]:
    return ["latents", f"gen/{c.base_res}", *_above(c, "data")]


STEPS: dict[str, Step] = {
    "teacher": Step(("diffusion", "teacher"), lambda c: [_data(c)], lambda c: ["teacher"]),
    "score_teacher": Step(("diffusion",), lambda c: ["teacher"], lambda c: []),
    "invert": Step(("diffusion", "invert"), lambda c: [_data(c), "teacher"], lambda c: ["latents"]),
    "pair_randomly": Step(("invert",), lambda c: [_data(c)], lambda c: ["latents"]),
    "distill": Step(
        ("diffusion", "invert", "distill"),
        lambda c: [_data(c), "teacher", "latents"],
        lambda c: [f"gen/{c.base_res}"],
    ),
    "grow": Step(("grow",), _growth, lambda c: _above(c, "gen")),
    "grow_each": Step(
        ("grow",),
        lambda c: [*_growth(c), *_above(c, "gen")[:-1]],
        lambda c: _above(c, "gen"),
    ),
    "cascade": Step(
        ("diffusion", "teacher"),
        lambda c: [_data(c), "teacher", *_above(c, "data")],
        lambda c: _above(c, "sr"),
    ),
}
"""``score_teacher`` measures a teacher that another made. ``grow_each`` grows the main pipeline's
generators, each by one doubling; ``grow`` grows the arm's own, doubling by doubling."""


def load_study(name: str) -> Study:
    """Read ``experiments/<name>/study.yaml``.

    Raises:
        PagodaError: if there is no such study, or a key or step of it is unknown or missing.
    """
    file = STUDIES / name / "study.yaml"
    if not is_name(name) or not file.is_file():
        known = ", ".join(sorted(f.parent.name for f in STUDIES.glob("*/study.yaml")))
        raise PagodaError(f"no study {name}; experiments/ has {known or 'none'}")
    tree = read_yaml(file)
    try:
        arms = {key: _arm(key, value) for key, value in tree.pop("arms").items()}
        tree["metrics"] = tuple(tree.get("metrics", ("fd",)))
        study = Study(name=name, arms=arms, **tree)
    except (AttributeError, KeyError, TypeError) as error:
        raise PagodaError(f"{file}: {error}; see an existing study for the keys") from error
    for arm in arms.values():
        if not is_name(arm.name):
            raise PagodaError(f"{file}: arm {arm.name!r}; an arm has {NAME_RULE}")
        if unknown := {*arm.steps, *arm.counts} - set(STEPS) or ({arm.of} - {None, *arms}):
            raise PagodaError(f"{file}: arm {arm.name} names {unknown}, which is not there")
    return study


def _arm(name: str, tree: dict[str, Any]) -> Arm:
    steps, counts = (tuple(tree.pop(key, ())) for key in ("steps", "counts"))
    for key in ("set", "images"):
        if not isinstance(tree.get(key, {}), dict):
            raise TypeError(f"{key} of arm {name} is {tree[key]!r}; it must hold keys and values")
    if wrong := [v for v in tree.get("images", {}).values() if not isinstance(v, int | float)]:
        raise TypeError(f"images of arm {name} holds {wrong[0]!r}; shares are numbers")
    return Arm(name=name, steps=steps, counts=counts, **tree)


def find_arm(study: Study, name: str) -> Arm:
    """An arm by its name.

    Raises:
        PagodaError: if the study has none of that name.
    """
    if name not in study.arms:
        raise PagodaError(f"study {study.name} has no arm {name}; it has {', '.join(study.arms)}")
    return study.arms[name]


def arm_config(config: Config, study: Study, arm: Arm, seed: int) -> VariantConfig:
    """The profile with the study's size and the arm's keys, and where its artifacts live.

    Raises:
        PagodaError: if the arm sets a key that is not there, or a value that is not allowed.
    """
    where = f"{STUDIES / study.name / 'study.yaml'}, arm {arm.name}"
    tree = dataclasses.asdict(config)
    share = getattr(config.studies, study.size).fraction
    for section in _TRAINED:
        _scale(tree[section]["optim"], arm.images.get(section, share))
        tree[section]["imported"] = NO_WEIGHTS  # an arm trains what it compares
    for key, value in arm.set.items():
        _set(tree, key, value, where)
    tree["seed"] = seed
    tree["base_res"] = min(tree["base_res"] << arm.doublings, tree["target_res"])
    made = parse(with_lists(tree), where)
    values = {f.name: getattr(made, f.name) for f in dataclasses.fields(Config)}
    return VariantConfig(**values, places=_places(config, study, arm, seed, made))


def _scale(optim: dict[str, Any], share: float) -> None:
    steps = max(1, round(share * optim["images"] / optim["batch"]))
    optim["images"] = steps * optim["batch"]


def _set(tree: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    *path, last = dotted.split(".")
    for key in path:
        tree = tree.get(key, {}) if isinstance(tree, dict) else {}
    if not isinstance(tree, dict) or last not in tree:
        raise PagodaError(f"{where} sets {dotted}, which is no key of params.yaml")
    tree[last] = value


def _places(config: Config, study: Study, arm: Arm, seed: int, made: Config) -> dict[str, str]:
    """Folders of what the arm and its ancestors make; the nearest maker wins."""
    places: dict[str, str] = {}
    if arm.of is not None:
        parent = study.arms[arm.of]
        first = study.seeds(config, parent)[0] if parent.once else seed
        places = _places(config, study, parent, first, made)
    folder = study.folder(config, arm, seed)
    own = itertools.chain(*(STEPS[step].makes(made) for step in arm.steps))
    return places | {key: str(folder / key) for key in (*own, "history", "measured")}


def locate(config: Config, key: str) -> Path:
    """Folder of an artifact: ``data/8``, ``features``, ``reference/8``, ``teacher``, ``gen/8`` …"""
    kind, _, resolution = key.partition("/")
    found = getattr(Paths(config), {"gen": "generator", "sr": "super_resolver"}.get(kind, kind))
    return Path(found(int(resolution))) if resolution else Path(found)
