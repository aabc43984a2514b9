"""What keys of ``params.yaml`` demand of each other, once each of them is possible by itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from pagoda.config.experiment import Config
from pagoda.config.fields import refusal
from pagoda.config.ladder import derive_growth, derive_resolutions
from pagoda.config.sections import FeaturesConfig, OptimConfig
from pagoda.data import registry
from pagoda.errors import PagodaError

_Check = tuple[bool, str, Any, str]
"""Whether it holds, the key, its value, what is allowed."""


def check(c: Config, where: str) -> None:
    """Hold an experiment against itself.

    Raises:
        PagodaError: one line naming the key, its value, what is allowed, and the file ``where``.
    """
    try:
        resolutions = derive_resolutions(c.base_res, c.target_res)
    except PagodaError as error:
        raise PagodaError(f"{where}: {error}") from None
    if c.resolutions != resolutions or c.growth != derive_growth(c.base_res, c.target_res):
        raise PagodaError(
            f"{where}: resolutions {c.resolutions} and growth {list(c.growth)} do not follow from "
            f"base_res {c.base_res} and target_res {c.target_res}; both lists are derived: run "
            f"'pagoda derive' to rewrite them, or 'dvc exp run -S base_res={c.base_res}'"
        )
    relations = (
        _data_checks, _network_checks, _training_checks, _evaluation_checks, _study_checks,
    )  # fmt: skip
    _hold(itertools.chain(*(relation(c) for relation in relations)), where)


def check_counts(c: Config, images: Mapping[str, int], where: str = "params.yaml") -> None:
    """Hold an experiment against how many images there are, before anything is trained on them.

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
    checks: list[_Check] = [
        (images[split] >= 2, f"data.{split}_images", images[split],
         f"2 or more; there are no more {split} images")
        for split in ("train", "test")
    ]  # fmt: skip
    checks += [
        (splits <= scored, "evaluate.score_splits", splits,
         f"at most {scored}, the number of {held_out} images that are scored"),
        (k < real, "evaluate.neighbours", k,
         f"below {real}, the number of {there} images that are kept for precision and recall"),
        (k < scored, "evaluate.neighbours", k,
         f"below {scored}, the number of {held_out} images that are scored"),
    ]  # fmt: skip
    _hold(checks, where)


def _hold(checks: Iterable[_Check], where: str) -> None:
    for holds, key, value, allowed in checks:
        if not holds:
            raise refusal(key, value, allowed, where)


def _data_checks(c: Config) -> list[_Check]:
    d, extractors = c.data, c.reference.extractors
    families = {"classifier", "inception", "dinov2", "custom"}
    if d.source not in registry.names():
        return [(False, "data.source", d.source, f"one of {', '.join(registry.names())}")]
    source = registry.find(d.source)
    needed = {"path": f"the path of a {d.source} source, e.g. -S data.path=FILE",
              "hub": f"the name of the set for source {d.source}"}  # fmt: skip
    return [
        (not source.drawn or d.render_res >= c.target_res, "data.render_res", d.render_res,
         f"at least target_res = {c.target_res}"),
        (d.num_classes == (source.classes or d.num_classes), "data.num_classes", d.num_classes,
         f"{source.classes} for the {d.source} set"),
        *((source.needs != key or getattr(d, key) is not None, f"data.{key}", None, allowed)
          for key, allowed in needed.items()),
        (extractors[:1] == ["classifier"] and len(set(extractors)) == len(extractors)
         and {text.partition(":")[0] for text in extractors} <= families
         and "classifier" not in {text.partition(":")[0] for text in extractors[1:]},
         "reference.extractors", extractors,
         "a list of different names, classifier first, then inception, dinov2 or custom:..."),
    ]  # fmt: skip


def _network_checks(c: Config) -> list[_Check]:
    net, law = c.teacher.network, c.diffusion
    levels = (c.base_res // net.lowest_res).bit_length()
    below_max = f"below diffusion.sigma_max = {law.sigma_max:g}"
    return [
        (law.sigma_min < law.sigma_max, "diffusion.sigma_min", law.sigma_min, below_max),
        (c.invert.noise < law.sigma_max, "invert.noise", c.invert.noise, below_max),
        (net.lowest_res <= c.base_res, "teacher.network.lowest_res", net.lowest_res,
         f"at most base_res = {c.base_res}"),
        (len(net.channel_mult) >= levels and all(m >= 1 for m in net.channel_mult),
         "teacher.network.channel_mult", net.channel_mult,
         f"{levels} or more whole numbers >= 1, a level each from base_res {c.base_res} down to "
         f"lowest_res {net.lowest_res}"),
    ]  # fmt: skip


def _training_checks(c: Config) -> list[_Check]:
    sections: dict[str, OptimConfig | FeaturesConfig] = {
        "teacher.optim": c.teacher.optim, "distill.optim": c.distill.optim,
        "grow.optim": c.grow.optim, "features": c.features,
    }  # fmt: skip
    checks: list[_Check] = [
        (s.images % s.batch == 0, f"{key}.batch", s.batch,
         f"a divisor of {key}.images = {s.images}")
        for key, s in sections.items()
    ]  # fmt: skip
    checks += [
        (all(0 < width < 0.28 for width in s.ema_profiles), f"{key}.ema_profiles", s.ema_profiles,
         "a list of relative widths above 0 and below 0.28")
        for key, s in sections.items() if isinstance(s, OptimConfig)
    ]  # fmt: skip
    for stage, loss in (("distill", c.distill.loss), ("grow", c.grow.loss)):
        checks += [
            (loss.regression != "none" or loss.adversarial != "none", f"{stage}.loss.regression",
             loss.regression, "something other than none while adversarial is none"),
            (loss.regression != "none" or loss.fakes == "prior", f"{stage}.loss.fakes", loss.fakes,
             "prior while there is no regression, and so no reconstructions"),
            (not loss.separate_update or (loss.regression != "none" and loss.fakes == "prior"
                                          and loss.weighting == "fixed"),
             f"{stage}.loss.separate_update", loss.separate_update,
             "false unless there is a regression, fakes are prior and weighting is fixed"),
            (loss.weight_min <= loss.weight_max, f"{stage}.loss.weight_min", loss.weight_min,
             f"at most {stage}.loss.weight_max"),
        ]  # fmt: skip
    regression = c.grow.loss.regression
    allowed = "reconstruction or none: the teacher has no high-resolution samples"
    return [*checks, (regression != "noise_to_data", "grow.loss.regression", regression, allowed)]


def _evaluation_checks(c: Config) -> list[_Check]:
    k, splits = c.evaluate.neighbours, c.evaluate.score_splits
    sizes = {"evaluate.samples": c.evaluate.samples, "studies.samples": c.studies.samples}
    return [
        (k < c.reference.manifold_images, "evaluate.neighbours", k,
         f"below reference.manifold_images = {c.reference.manifold_images}"),
        *((k < n, "evaluate.neighbours", k, f"below {key} = {n}") for key, n in sizes.items()),
        (splits <= c.evaluate.samples, "evaluate.score_splits", splits,
         f"at most evaluate.samples = {c.evaluate.samples}"),
    ]  # fmt: skip


def _study_checks(c: Config) -> list[_Check]:
    sizes = {"usual": c.studies.usual.seeds, "costly": c.studies.costly.seeds}
    return [
        (bool(seeds) and len(set(seeds)) == len(seeds) and min(seeds) >= 0,
         f"studies.{key}.seeds", seeds, "a list of different seeds, none negative, at least one")
        for key, seeds in sizes.items()
    ]  # fmt: skip
