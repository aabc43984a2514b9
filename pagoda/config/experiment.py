"""A whole experiment: ``params.yaml`` -> :class:`Config`, or one line that says what is wrong."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.config.documents import read_yaml
from pagoda.config.sections import (
    NO_WEIGHTS,
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
from pagoda.data import registry
from pagoda.errors import PagodaError
from pagoda.fields import Check, build, hold, opt
from pagoda.methods.autoencoder import AutoencoderConfig
from pagoda.methods.clip import IN_FILES, NO_CAPTIONS, OWN, OWN_CAPTIONS, ClipConfig
from pagoda.methods.guided import GuidedConfig
from pagoda.methods.one_step import OneStepConfig
from pagoda.methods.teacher import TeacherConfig
from pagoda.training.method import ByMethod, file_of, find_method, keys_of_others
from pagoda.training.settings import DiffusionConfig, MethodConfig

BY_METHOD: dict[str, type[ByMethod]] = {"distill": DistillConfig, "grow": GrowConfig}
"""Sections that name their method."""
DERIVED = ("resolutions", "growth", "code", "space")


@dataclass(frozen=True)
class Config:
    """A whole experiment."""

    name: str = opt("profile name; outputs live under runs/<name>/", name=True)
    seed: int = opt("seed of everything but the feature network", ge=0)
    base_res: int = opt("resolution of the teacher", ge=4, power_of_two=True)
    target_res: int = opt("resolution of the last generator", ge=4, power_of_two=True)
    resolutions: list[int] = opt("derived: base_res, doubled up to target_res")
    growth: dict[str, dict[str, int]] = opt("derived: one doubling an entry")
    code: dict[str, str] = opt("derived: file of each stage's method, run 'pagoda derive'")
    space: dict[str, Any] = opt("derived: where what is modelled lies, and what makes it")
    data: DataConfig = opt("data")
    features: FeaturesConfig = opt("embedded feature network")
    reference: ReferenceConfig = opt("reference statistics")
    diffusion: DiffusionConfig = opt("noise schedule and grid")
    autoencoder: AutoencoderConfig = opt("autoencoder of data.space: latent")
    text: ClipConfig = opt("captions for labels")
    teacher: TeacherConfig = opt("stage 1")
    invert: InvertConfig = opt("stage 2, inversion")
    distill: DistillConfig = opt("stage 2, distillation")
    grow: GrowConfig = opt("stage 3")
    evaluate: EvaluateConfig = opt("evaluation")
    report: ReportConfig = opt("report")
    studies: StudiesConfig = opt("studies")

    @property
    def latent(self) -> bool:
        """Whether codes of images are modelled instead of images."""
        return self.data.space == "latent"

    @property
    def factor(self) -> int:
        """Pixels a side of one number of what is modelled: 1 of images."""
        return self.autoencoder.factor if self.latent else 1

    @property
    def image_channels(self) -> int:
        """Channels of what is modelled."""
        return self.autoencoder.latent_channels if self.latent else 3

    @property
    def captioned(self) -> bool:
        """Whether labels are captions instead of classes."""
        return self.text.captions != NO_CAPTIONS

    def shape(self, resolution: int) -> tuple[int, int, int]:
        """Channels, height and width of what is modelled of images of a resolution."""
        side = resolution // self.factor
        return self.image_channels, side, side

    def modelled(self, resolution: int) -> str:
        """The artifact of what is modelled at a resolution of images."""
        what = "codes" if self.latent else "captioned" if self.captioned else "data"
        return f"{what}/{resolution}"

    def checks(self, _: str) -> Iterator[Check]:
        """What sections demand of each other."""
        base, target = self.base_res, self.target_res
        yield base <= target, "base_res", base, f"at most target_res = {target}"
        lists = {"resolutions": derive_resolutions(base, target),
                 "growth": derive_growth(base, target)}  # fmt: skip
        for key, wanted in lists.items():
            yield (
                getattr(self, key) == wanted, key, getattr(self, key),
                f"{wanted}, as base_res {base} and target_res {target} say; both lists are "
                f"derived: run 'pagoda derive' to rewrite them, or 'dvc exp run -S base_res={base}'"
            )  # fmt: skip
        wanted = derive_code({key: vars(getattr(self, key)) for key in BY_METHOD})
        yield (self.code == wanted, "code", self.code,
               f"{wanted}, as distill.method and grow.method say; it is derived: run "
               "'pagoda derive' to rewrite it")  # fmt: skip
        wanted = derive_space(vars(self) | {"data": vars(self.data), "text": vars(self.text)})
        yield (self.space == wanted, "space", self.space,
               f"{wanted}, as data.space and text say; it is derived: run 'pagoda derive' to "
               "rewrite it")  # fmt: skip
        rendered = self.data.render_res
        drawn = registry.find(self.data.source).drawn
        yield (not drawn or rendered >= target, "data.render_res", rendered,
               f"at least target_res = {target}")  # fmt: skip
        sigma_max, noise = self.diffusion.sigma_max, self.invert.noise
        yield noise < sigma_max, "invert.noise", noise, f"below diffusion.sigma_max = {sigma_max:g}"
        net = self.teacher.network
        yield (base % self.factor == 0 and base >= 4 * self.factor, "base_res", base,
               f"a multiple of autoencoder.factor = {self.factor} that leaves 4 numbers a side or "
               "more")  # fmt: skip
        side = base // self.factor
        of = f"base_res = {base}" + f" over autoencoder.factor = {self.factor}" * self.latent
        levels = (side // net.lowest_res).bit_length()
        yield (net.lowest_res <= side, "teacher.network.lowest_res", net.lowest_res,
               f"at most {side}, {of}" if self.latent else f"at most {of}")  # fmt: skip
        yield (
            len(net.channel_mult) >= levels and all(m >= 1 for m in net.channel_mult),
            "teacher.network.channel_mult", net.channel_mult,
            f"{levels} or more whole numbers >= 1, a level each from base_res {base}"
            f"{f' over factor {self.factor}' * self.latent} down to lowest_res {net.lowest_res}"
        )  # fmt: skip
        if isinstance(self.grow, OneStepConfig):
            regression = self.grow.loss.regression
            allowed = "reconstruction or none: the teacher has no high-resolution samples"
            yield regression != "noise_to_data", "grow.loss.regression", regression, allowed
        yield from self._weights()
        yield from self._asked_of_clip()
        yield from self._independent()
        if self.latent:
            yield from self._of_codes()
        if self.captioned:
            yield from self._of_captions()
        k, samples = self.evaluate.neighbours, self.evaluate.samples
        sizes = {"reference.manifold_images": self.reference.manifold_images,
                 "evaluate.samples": samples, "studies.samples": self.studies.samples}  # fmt: skip
        for key, n in sizes.items():
            yield k < n, "evaluate.neighbours", k, f"below {key} = {n}"
        splits = self.evaluate.score_splits
        yield (splits <= samples, "evaluate.score_splits", splits,
               f"at most evaluate.samples = {samples}")  # fmt: skip

    def _weights(self) -> Iterator[Check]:
        """Latents of many guidance weights are for generators that are told theirs."""
        trained = [("distill", self.distill.method, self.distill.imported),
                   ("grow", self.grow.method, self.grow.imported)]  # fmt: skip
        most = self.invert.guidance_max
        if most is not None:
            shown, (low, high) = self.evaluate.guidance, self.invert.weight_range
            yield (low <= shown <= high, "evaluate.guidance", shown,
                   f"from {low:g} to {high:g}, as invert.guidance and guidance_max tell generators"
            )  # fmt: skip
        for key, method, imported in trained if self.growth else trained[:1]:
            weighted = imported != NO_WEIGHTS or find_method(method).weighted
            yield (weighted or most is None, f"{key}.method", method,
                   "guided while invert.guidance_max is not null")  # fmt: skip
            yield (most is not None or imported != NO_WEIGHTS or not weighted,
                   "invert.guidance_max", most, f"a number while {key}.method is {method}"
            )  # fmt: skip

    def _asked_of_clip(self) -> Iterator[Check]:
        """Training may ask the CLIP that this run trains, and no other."""
        told = self.captioned and self.text.encoder == OWN
        needs = (
            "unless text.captions is not none and text.encoder is trained: profile text has both"
        )
        for key in BY_METHOD:
            section = getattr(self, key)
            if isinstance(section, GuidedConfig):
                weight, kind = section.clip_loss.weight, section.estimator.kind
                yield told or not weight, f"{key}.clip_loss.weight", weight, f"0 {needs}"
                yield told or kind == "image", f"{key}.estimator.kind", kind, f"image {needs}"

    def _independent(self) -> Iterator[Check]:
        """No result is measured in a network that training sees."""
        stages: list[MethodConfig] = [self.distill, *([self.grow] if self.growth else [])]
        stages += [self.autoencoder] if self.latent else []
        seen = {name.partition(".")[0] for stage in stages
                for name, weights in stage.published() if weights != "random"}  # fmt: skip
        if not seen or len(self.reference.extractors) == 1:
            return
        from pagoda.evaluation.features.base import find_family  # imports torch

        for text in self.reference.extractors[1:]:
            family, name = find_family(text)
            yield (family.backbone(name) not in seen, "reference.extractors", text,
                   "a network that no discriminator and no distance of training sees; take "
                   "another, e.g. efficientnet:lite1")  # fmt: skip

    def _of_codes(self) -> Iterator[Check]:
        """What knows images only is not asked of codes."""
        yield self.teacher.augment == 0, "teacher.augment", self.teacher.augment, f"0 {_CODES}"
        yield not self.invert.clamp, "invert.clamp", self.invert.clamp, f"false {_CODES}"
        for key in ("teacher", "distill", "grow"):
            there = getattr(self, key).imported
            yield there == NO_WEIGHTS, f"{key}.imported", there, f"{NO_WEIGHTS} {_CODES}"
        for key in BY_METHOD:
            section = getattr(self, key)
            if isinstance(section, OneStepConfig):
                loss, discriminator = section.loss, section.discriminator
                kind, augment = discriminator.kind, discriminator.augment
                yield (kind in ("conv", "encoder"), f"{key}.discriminator.kind", kind,
                       f"conv or encoder {_CODES}")  # fmt: skip
                yield (not augment, f"{key}.discriminator.augment", augment,
                       f"false {_CODES}")  # fmt: skip
                yield (loss.distance in ("l2", "l1"), f"{key}.loss.distance", loss.distance,
                       f"l2 or l1 {_CODES}")  # fmt: skip

    def _of_captions(self) -> Iterator[Check]:
        """What knows classes only is not asked of captions."""
        yield not self.latent, "data.space", self.data.space, f"pixel {_TOLD}"
        source, own = self.data.source, self.text.captions == OWN_CAPTIONS
        fits = source in IN_FILES if own else registry.find(source).drawn
        wanted = ", ".join(IN_FILES) if own else "embedded"
        yield fits, "data.source", source, f"{wanted} while text.captions is {self.text.captions}"
        for key in ("teacher", "distill", "grow"):
            there = getattr(self, key).imported
            yield there == NO_WEIGHTS, f"{key}.imported", there, f"{NO_WEIGHTS} {_TOLD}"


_TOLD = "while text.captions is not none"
_CODES = "while data.space is latent: codes are no images"


@dataclass(frozen=True)
class VariantConfig(Config):
    """One variant of a study: an experiment some of whose artifacts live elsewhere.

    Attributes:
        places: folders that replace those of the main pipeline, by artifact: ``teacher``,
            ``latents``, ``gen/<resolution>``, ``evaluate/<resolution>``, ``history``.
    """

    places: Mapping[str, str] = dataclasses.field(default_factory=dict)


def check_counts(c: Config, images: Mapping[str, int], where: str = "params.yaml") -> None:
    """Compare an experiment with how many images there are, before anything is trained on them.

    Args:
        c: the experiment.
        images: how many each split has, ``train`` and ``test``.
        where: the file, for messages.

    Raises:
        PagodaError: one line naming the key, its value, what is allowed, and the file.
    """
    k, splits, kept = c.evaluate.neighbours, c.evaluate.score_splits, c.reference.manifold_images
    there = c.reference.split
    held_out = "test" if there == "train" else "train"
    real, scored = min(kept, images[there]), min(c.evaluate.samples, images[held_out])
    checks: list[Check] = [
        *((images[split] >= 2, f"data.{split}_images", images[split],
           f"2 or more; there are no more {split} images") for split in ("train", "test")),
        (splits <= scored, "evaluate.score_splits", splits,
         f"at most {scored}, the number of {held_out} images that are scored"),
        (k < real, "evaluate.neighbours", k,
         f"below {real}, the number of {there} images that are kept for precision and recall"),
        (k < scored, "evaluate.neighbours", k,
         f"below {scored}, the number of {held_out} images that are scored"),
    ]  # fmt: skip
    hold(checks, where)


def load(path: str | Path = "params.yaml") -> Config:
    """Read and check ``params.yaml``.

    Raises:
        PagodaError: one line naming the key, its value, what is allowed, and the file.
    """
    path = Path(path)
    if path.is_dir():
        raise PagodaError(f"{path} is a folder; --params names a file like params.yaml")
    if not path.is_file():
        raise PagodaError(f"no {path} here; run pagoda from the folder that holds params.yaml")
    return parse(read_yaml(path), str(path))


def parse(tree: Any, where: str = "params.yaml") -> Config:
    """Check a plain tree of dicts and lists and turn it into a :class:`Config`."""
    config: Config = build(Config, tree, where)
    return config


def derive_resolutions(base_res: int, target_res: int) -> list[int]:
    """``base_res``, doubled until ``target_res``: 8, 32 -> [8, 16, 32].

    Raises:
        PagodaError: if either is no power of two or base_res exceeds target_res.
    """
    for key, value in (("base_res", base_res), ("target_res", target_res)):
        if not isinstance(value, int) or value < 4 or value & (value - 1):
            raise PagodaError(f"{key} = {value!r}; it must be a power of two of at least 4")
    if base_res > target_res:
        raise PagodaError(f"base_res = {base_res}; it must be at most target_res = {target_res}")
    return [base_res << i for i in range((target_res // base_res).bit_length())]


def derive_growth(base_res: int, target_res: int) -> dict[str, dict[str, int]]:
    """The growth steps, keyed by the resolution each reaches (as text: DVC needs text keys)."""
    ladder = derive_resolutions(base_res, target_res)
    return {str(b): {"from": a, "to": b} for a, b in itertools.pairwise(ladder)}


def derive_code(tree: Mapping[str, Any]) -> dict[str, str]:
    """The file of the method of each stage that a parameter chooses the method of."""
    sections = {key: tree[key] for key in BY_METHOD if isinstance(tree.get(key), Mapping)}
    return {key: file_of(s.get("method", ByMethod.default())) for key, s in sections.items()}


def derive_space(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Where what is modelled lies below ``runs/<name>/``, and the stages that make it.

    Of images of classes nothing is made: ``autoencoder``, ``encode``, ``clip``, ``scorer`` and
    ``caption`` name no resolution, and DVC has no such stages.
    """
    data = tree.get("data")
    latent = isinstance(data, Mapping) and data.get("space") == "latent"
    text = tree.get("text")
    text = text if isinstance(text, Mapping) else {}
    captioned = text.get("captions", NO_CAPTIONS) != NO_CAPTIONS
    space = {"modelled": "data", "autoencoder": [], "encode": [], "clip": [], "scorer": [],
             "caption": [], "reader": "data"}  # fmt: skip
    if not (latent or captioned):
        return space
    ladder = derive_resolutions(tree["base_res"], tree["target_res"])
    if latent:
        here = {"modelled": f"b{ladder[0]}/codes", "autoencoder": [ladder[-1]], "encode": ladder}
        return space | here
    trained = text.get("encoder", OWN) == OWN
    of_own = {"clip": [ladder[-1]], "reader": f"b{ladder[0]}/clip"} if trained else {}
    here = {"modelled": f"b{ladder[0]}/captioned", "scorer": [ladder[-1]], "caption": ladder}
    return space | here | of_own


def for_its_methods(tree: dict[str, Any]) -> dict[str, Any]:
    """A copy of a parameter tree without the keys of methods that it does not choose.

    A profile that chooses another method than the one it is based on names what differs only. A
    method that is not there keeps all: what reads its section says what is wrong.
    """
    tree = dict(tree)
    for key, section in BY_METHOD.items():
        if isinstance(tree.get(key), Mapping):
            try:
                others = keys_of_others(section, tree[key])
            except PagodaError:
                continue
            tree[key] = {k: v for k, v in tree[key].items() if k not in others}
    return tree


def with_methods(tree: dict[str, Any], methods: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of a whole tree whose sections have other methods, with the defaults of their keys.

    Raises:
        PagodaError: there is no such method, or it needs what is not there.
    """
    changed = tree | {key: tree[key] | {"method": method} for key, method in methods.items()}
    changed = for_its_methods(changed)
    for key in methods:
        made = build(BY_METHOD[key], changed[key], where, f"{key}.")
        changed[key] = dataclasses.asdict(made)
    return changed


def with_derived(tree: dict[str, Any]) -> dict[str, Any]:
    """A copy of a parameter tree with what follows from it: resolutions, growth, code, space.

    Raises:
        PagodaError: if one of the ends is missing or impossible.
    """
    for key in ("base_res", "target_res"):
        if not isinstance(tree, dict) or key not in tree:
            raise PagodaError(f"missing key {key}")
    ends = tree["base_res"], tree["target_res"]
    lists = {"resolutions": derive_resolutions(*ends), "growth": derive_growth(*ends)}
    return tree | lists | {"code": derive_code(tree), "space": derive_space(tree)}
