"""A study: variants that differ from the profile in a few keys, and where their artifacts live.

``experiments/<study>/study.yaml`` names the variants and states the claims; ``params.yaml`` gives
everything else, so that a study is as large as its profile. A variant makes its artifacts in a
folder of its own and reads the rest from its parent variant (``of``) or from the main pipeline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.config import (
    BY_METHOD,
    NAME_RULE,
    NO_WEIGHTS,
    Check,
    Config,
    VariantConfig,
    build,
    is_name,
    opt,
    parse,
    read_yaml,
    with_derived,
    with_methods,
)
from pagoda.errors import PagodaError

STUDIES = Path("experiments")
TRAINED = ("autoencoder", "teacher", "distill", "grow")
"""Sections that train: a study's size scales their images."""
_SIZES = ("usual", "costly", "whole")  # of params.yaml


@dataclass(frozen=True)
class Step:
    """What a step of a variant reads and makes: ``teacher``, ``latents``, ``data/base`` ...

    ``/base`` is at the base resolution, ``/above`` at every resolution above it.
    """

    sections: tuple[str, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether its training images are those of a section that a study's size scales."""
        return bool({"autoencoder", "teacher", "gen/base", "gen/above", "sr/above"} & {*self.makes})


EDITS = ("inpaint", "super_resolve", "transfer", "interpolate")
"""Steps that use what the main pipeline has made, by a stage of their own."""
TIMED = ("time_decoders", "time_lcm")
"""Steps that time networks of random weights, by a stage of their own."""
_EDIT = Step(("studies.edit",), ("teacher", "latents", "gen/base", "gen/above", "data/above"))
_GROWTH = ("latents", "gen/base", "data/above")
STEPS = {
    "autoencoder": Step(
        ("diffusion", "autoencoder"), ("data/base", "data/above"), ("autoencoder",)
    ),
    "encode": Step(
        ("autoencoder",), ("autoencoder", "data/base", "data/above"), ("codes/base", "codes/above")
    ),
    "clip": Step(("diffusion", "text"), ("data/above",), ("clip",)),
    "scorer": Step(("diffusion", "text"), ("data/above",), ("scorer",)),
    "caption": Step(
        ("text",), ("clip", "scorer", "data/base", "data/above"),
        ("captioned/base", "captioned/above"),
    ),
    "teacher": Step(("diffusion", "teacher"), ("data/base",), ("teacher",)),
    "score_teacher": Step(("diffusion",), ("teacher",)),
    "invert": Step(("diffusion", "invert"), ("data/base", "teacher"), ("latents",)),
    "pair_randomly": Step(("diffusion", "invert"), ("data/base",), ("latents",)),
    "distill": Step(
        ("diffusion", "invert", "distill"), ("data/base", "teacher", "latents"), ("gen/base",)
    ),
    "score_student": Step(("diffusion",), ("gen/base",)),
    "two_steps": Step(("diffusion",), ("gen/base",)),
    "verify": Step(("diffusion",), ("gen/base",)),
    "grow": Step(("diffusion", "distill", "grow"), _GROWTH, ("gen/above",)),
    "grow_each": Step(
        ("diffusion", "distill", "grow"), (*_GROWTH, "gen/above"), ("gen/above",)
    ),
    "cascade": Step(
        ("diffusion", "teacher"), ("data/base", "teacher", "data/above"), ("sr/above",)
    ),
    **dict.fromkeys(EDITS, _EDIT),
    **dict.fromkeys(TIMED, Step(("diffusion", "teacher", "grow"), ())),
}  # fmt: skip
"""``score_teacher`` and ``score_student`` measure what another variant made, ``two_steps`` the
student with a second evaluation an image, ``verify`` the best of several samples by the student's
own ratio network. ``grow_each`` grows the main pipeline's generators, each by one doubling;
``grow`` grows the variant's own, doubling by doubling. :data:`EDITS` (:mod:`.measure_edits`) and
:data:`TIMED` (:mod:`.measure_speed`) train nothing and make nothing that others read."""


@dataclass(frozen=True)
class Variant:
    """One variant of a study."""

    label: str = opt("reader's name, for figures and tables")
    steps: tuple[str, ...] = opt("what it does, in order", default=(), choices=tuple(STEPS))
    of: str | None = opt("variant whose artifacts it reads, not the main pipeline's", default=None)
    once: bool = opt("made with the first seed only, shared by other variants", default=False)
    set: dict[str, Any] = opt("dotted keys of params.yaml and their values here", default={})
    images: dict[str, float] = opt(
        "fraction of the profile's images, by section, not the size's", default={}, gt=0
    )
    compute_of: str | None = opt(
        "variant whose training FLOPs, up to the resolution that this one ends at, this one gets: "
        "`images` here are only how they are shared out",
        default=None,
    )
    doublings: int = opt("of the base resolution, at most up to the target", default=0, ge=0)
    counts: tuple[str, ...] = opt(
        "steps whose cost is counted without doing them", default=(), choices=tuple(STEPS)
    )
    axis: float | None = opt("place on the axis of the study's figure", default=None)
    series: str = opt("curve that it belongs to in the figure", default="")
    name: str = ""

    @property
    def stage(self) -> str:
        """The stage that makes and measures it."""
        own = {"measure_edits": EDITS, "measure_speed": TIMED}
        return next((s for s, steps in own.items() if set(self.steps) & set(steps)), "variant")

    @property
    def methods(self) -> dict[str, Any]:
        """By section the method that it chooses."""
        keys = {section: f"{section}.method" for section in BY_METHOD}
        return {section: self.set[key] for section, key in keys.items() if key in self.set}

    def checks(self, at: str) -> Iterator[Check]:
        """Only what trains has images; what edits does not train."""
        edits = [step in EDITS for step in self.steps]
        yield (all(edits) or not any(edits), f"{at}steps", list(self.steps),
               "of training or of edits, not both")  # fmt: skip
        yield (len(self.steps) == 1 or not set(self.steps) & set(TIMED), f"{at}steps",
               list(self.steps), f"one alone if it is of {', '.join(TIMED)}")  # fmt: skip
        trained = [step for step in (*self.steps, *self.counts) if STEPS[step].trains]
        yield (self.compute_of is None or bool(trained), f"{at}compute_of", self.compute_of,
               "of a variant that trains")  # fmt: skip
        for section in self.images:
            sized = (*TRAINED, "invert")
            yield section in sized, f"{at}images", section, "one of " + ", ".join(sized)


@dataclass(frozen=True)
class Study:
    """What ``study.yaml`` says."""

    title: str = opt("reader's name")
    question: str = opt("what it asks, one sentence")
    rule: str = opt("what decides, in words, written before the run")
    size: str = opt("which size of params.yaml it takes", choices=_SIZES)
    variants: dict[str, Variant] = opt("by name, in the order of tables")
    claims: list[dict[str, Any]] = opt("what it claims, see pagoda/results/claims.py", default=[])
    axis_label: str = opt("what the variants' axis is, with its unit", default="")
    axis_log: bool = opt("draw that axis logarithmically", default=False)
    axis_metric: str = opt("metric of the teacher to draw on the axis instead", default="")
    metrics: tuple[str, ...] = opt("metrics to draw and tabulate first", default=("fd",))
    name: str = ""

    def checks(self, _: str) -> Iterator[Check]:
        """Variants can be folders, and read of variants that are there."""
        counted = {None, *(name for name, v in self.variants.items() if v.compute_of is None)}
        for name, variant in self.variants.items():
            yield is_name(name), "variants", name, f"of keys that are each {NAME_RULE}"
            above, seen = variant.of, {name}
            while above in self.variants and above not in seen:
                seen.add(above)
                above = self.variants[above].of
            yield (above is None, f"variants.{name}.of", variant.of,
                   "another variant of the study, and not one that reads from this")  # fmt: skip
            yield (variant.compute_of in counted, f"variants.{name}.compute_of", variant.compute_of,
                   "another variant of the study, which has no compute_of itself")  # fmt: skip

    def variant(self, name: str) -> Variant:
        """A variant by its name.

        Raises:
            PagodaError: if the study has none of that name.
        """
        if name not in self.variants:
            known = ", ".join(self.variants)
            raise PagodaError(f"study {self.name} has no variant {name}; it has {known}")
        return self.variants[name]

    def seeds(self, config: Config, variant: Variant) -> list[int]:
        """The training seeds of a variant."""
        seeds: list[int] = getattr(config.studies, self.size).seeds
        return seeds[:1] if variant.once else seeds

    def folder(self, config: Config, variant: Variant, seed: int) -> Path:
        """Where one run of a variant keeps its artifacts: in the studies' own DVC project."""
        return STUDIES / "runs" / config.name / self.name / variant.name / f"s{seed}"


def load_study(name: str) -> Study:
    """Read ``experiments/<name>/study.yaml``.

    Raises:
        PagodaError: there is no such study, or one line that names what is wrong in its file.
    """
    file = STUDIES / name / "study.yaml"
    if not is_name(name) or not file.is_file():
        raise PagodaError(f"no study {name}; experiments/ has {', '.join(studies()) or 'none'}")
    study: Study = build(Study, read_yaml(file), str(file))
    named = {key: dataclasses.replace(v, name=key) for key, v in study.variants.items()}
    return dataclasses.replace(study, name=name, variants=named)


def studies() -> list[str]:
    """Names of the studies that are there."""
    return sorted(file.parent.name for file in STUDIES.glob("*/study.yaml"))


def variant_config(config: Config, study: Study, variant: Variant, seed: int) -> VariantConfig:
    """The profile with the study's size and the variant's keys, and where its artifacts live.

    Raises:
        PagodaError: if the variant sets a key that is not there, or a value that is not allowed.
    """
    where = f"{STUDIES / study.name / 'study.yaml'}, variant {variant.name}"
    tree = dataclasses.asdict(config)
    size = getattr(config.studies, study.size)
    for section in TRAINED:
        optim = tree[section]["optim"]
        share = variant.images.get(section, size.fraction)
        share *= 1.0 if section == "teacher" else size.scale
        optim["images"] = whole_batches(share * optim["images"], optim["batch"])
        tree[section]["imported"] = NO_WEIGHTS  # a variant trains what it compares
    inverted = config.invert.images or config.data.train_images
    if "invert" in variant.steps and inverted is not None:
        share = variant.images.get("invert", size.fraction)
        tree["invert"]["images"] = max(1, round(share * inverted))
    tree = with_methods(tree, variant.methods, where)
    for dotted, value in variant.set.items():
        *path, last = dotted.split(".")
        node: Any = tree
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            raise PagodaError(f"{where} sets {dotted}, which is no key of params.yaml")
        node[last] = value
    tree["seed"] = seed
    tree["evaluate"]["seed"] += seed  # other latents for each: the interval holds their chance too
    tree["base_res"] = min(tree["base_res"] << variant.doublings, tree["target_res"])
    made = parse(with_derived(tree), where)
    if "cascade" in variant.steps and (made.latent or made.captioned):
        raise PagodaError(
            f"{where}: a cascade is of images of classes; choose a profile with data.space: pixel "
            "and text.captions: none"
        )
    values = {f.name: getattr(made, f.name) for f in dataclasses.fields(Config)}
    return VariantConfig(**values, places=_places(config, study, variant, seed, made))


def whole_batches(images: float, batch: int) -> int:
    """The images of as many whole batches as come nearest, of one at least."""
    return max(1, round(images / batch)) * batch


def artifacts_of(config: Config, kind: str) -> list[str]:
    """The names, as in :mod:`made`, that ``gen/base``, ``gen/above``, ``teacher`` ... stand for."""
    what, _, where = kind.partition("/")
    at = {"base": [config.base_res], "above": config.resolutions[1:]}
    return [f"{what}/{r}" for r in at[where]] if where else [what]


def _places(
    config: Config, study: Study, variant: Variant, seed: int, made: Config
) -> dict[str, str]:
    """Folders of what the variant and its ancestors make; the nearest maker wins."""
    places: dict[str, str] = {}
    if variant.of is not None:
        parent = study.variants[variant.of]
        first = study.seeds(config, parent)[0] if parent.once else seed
        places = _places(config, study, parent, first, made)
    folder = study.folder(config, variant, seed)
    own = [key for step in variant.steps for kind in STEPS[step].makes
           for key in artifacts_of(made, kind)]  # fmt: skip
    return places | {key: str(folder / key) for key in (*own, "history", "measured")}
