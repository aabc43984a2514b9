"""Measures edits of held-out images by the main pipeline's generators, beside simpler ways.

Seed s of a variant takes the s-th block of held-out images, and draws all noise: generator and
teacher are the same for all seeds, so that intervals over seeds are over images and noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pagoda import artifacts
from pagoda.config import Config
from pagoda.data.pixels import to_float, to_uint8
from pagoda.editing import edits
from pagoda.editing.latents import norms, slerp
from pagoda.editing.observations import (
    Observation,
    averaged,
    boxes,
    masked,
    mean_filled,
    pasted,
    smoothly_filled,
)
from pagoda.editing.posterior import Langevin
from pagoda.editing.search import Search
from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.edits import (
    diversity,
    hole_psnr,
    path_length,
    seam_jump,
    succession,
)
from pagoda.evaluation.metrics.image_pairs import mse, psnr
from pagoda.evaluation.metrics.ssim import ssim
from pagoda.networks.classifier import load_feature_network
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.held_edits import Held, Made, Way, changed, nearest, posterior, timed
from pagoda.pipeline.stages.measurement import write_measurement
from pagoda.pipeline.stages.study_spec import Study, Variant, variant_config
from pagoda.rows import Row

_SHOWN = 10  # images kept for the picture
_PICTURED = frozenset({
    "smooth_fill", "bicubic", "nearest_training_image", "inverted_consistent", "searched",
    "teacher_posterior", "reconstructed", "transferred", "teacher_transfer",
})  # fmt: skip
_STEP = 1e-4  # e of the perceptual path length
_PLACES = 4  # of it on each path
_SSIM_FROM = 11  # pixels, its window

Found = tuple[list[Row], list[tuple[str, np.ndarray]]]
"""Rows, and lines of the picture."""


def run(profile: Config, study: Study, variant: Variant, seed: int) -> None:
    """Do and measure the edits that the variant's steps name; write its ``measurement``."""
    config = variant_config(profile, study, variant, seed)
    if config.captioned or config.latent:
        space = f"data.space = {config.data.space!r}"
        what = f"text.captions = {config.text.captions!r}" if config.captioned else space
        raise PagodaError(
            f"{what}; study {study.name} edits images of classes by a generator of pixels: run it "
            "on a profile of those, such as smoke"
        )
    artifacts.check_out(config.places["measured"], "measurement")
    rows: list[Row] = []
    lines: list[tuple[str, np.ndarray]] = []
    for step in variant.steps:
        for resolution in dict.fromkeys((config.base_res, config.target_res)):
            if step in ("transfer", "interpolate") and resolution < config.target_res:
                continue  # their own classes and latents, which are the same there
            if step == "super_resolve" and resolution == config.base_res:
                continue
            found, shown = TASKS[step](Held(config, resolution, pick_device()))
            rows += found
            lines = shown  # of the highest resolution
    grids = {f"edit-{k:02d}-{name}": line for k, (name, line) in enumerate(lines)}
    write_measurement(config, study, variant, rows, {}, grids)


def inpainted(held: Held) -> Found:
    """Holes of a mask, filled in every way; at the target several answers, too."""
    x, section = held.images, held.section
    kept = boxes(section.mask, len(x), held.resolution, held.config.seed).to(x)
    observation, seen, labels = masked(kept), x * kept, held.labels

    def searched() -> tuple[Tensor, int]:
        found = edits.inpaint(held.generator, x, kept, labels, search=held.search, paste=False,
                              restarts=section.restarts, shell=held.shell,
                              **held.own)  # fmt: skip
        return found.images[:, 0], found.calls

    def raw_once() -> tuple[Tensor, int]:
        z = edits.inverted(held.teacher, smoothly_filled(x, kept), labels, **held.own)
        return held.decoded(z), 1

    def back(way: Way) -> Way:
        def made() -> tuple[Tensor, int]:
            images, calls = way()
            return pasted(images, x, kept), calls

        return made

    ways: dict[str, Way] = {
        "mean_fill": lambda: (mean_filled(x, kept), 0),
        "smooth_fill": lambda: (smoothly_filled(x, kept), 0),
        "nearest_training_image": back(lambda: (nearest(held, lambda y, i: y * kept[i]), 0)),
        "random_latent": back(lambda: (held.decoded(held.prior()), 1)),
        "inverted": back(raw_once),
        "searched_unpasted": searched,
        "teacher_posterior": back(
            lambda: posterior(held, observation.apply, seen, labels, held.keys)
        ),
    }
    made = [timed(name, way) for name, way in ways.items()]
    pixels, mask = x.cpu(), kept.cpu()
    made += [changed("searched", m, lambda images: pasted(images, pixels, mask))
             for m in made if m.name == "searched_unpasted"]  # fmt: skip
    rows = _restored(held, made, observation, seen, 1 - kept)
    if held.resolution == held.config.target_res and section.several:
        rows += _several(held, kept)
    shown = pasted(torch.zeros_like(x), x, kept)
    return rows, _lines(held, to_uint8(shown).cpu().numpy(), made)


def super_resolved(held: Held) -> Found:
    """Images of the base size, enlarged to the target in every way."""
    x, labels = held.images, held.labels
    base, side = held.config.base_res, held.resolution
    observation = averaged(side // base)
    seen = observation.apply(x)

    def enlarged(mode: str) -> Way:
        return lambda: (F.interpolate(seen, (side, side), mode=mode, align_corners=False), 0)

    def answered(search: Search | None) -> tuple[Tensor, int]:
        found = edits.super_resolve(held.generator, seen, labels, search=search,
                                    teacher=held.teacher, shell=held.shell,
                                    **held.own)  # fmt: skip
        return found.images[:, 0], found.calls

    ways: dict[str, Way] = {
        "bilinear": enlarged("bilinear"),
        "bicubic": enlarged("bicubic"),
        "nearest_training_image": lambda: (
            nearest(held, lambda y, _: observation.apply(y)), 0),
        "random_latent": lambda: (held.decoded(held.prior()), 1),
        "inverted": lambda: answered(None),
        "searched": lambda: answered(held.search),
        "teacher_posterior": lambda: posterior(held, observation.apply, seen, labels, held.keys),
    }  # fmt: skip
    made = [timed(name, way) for name, way in ways.items()]
    means = seen.cpu()
    made += [changed(f"{m.name}_consistent", m, lambda x: observation.consistent(x, means))
             for m in made if m.name in ("bicubic", "inverted", "searched")]  # fmt: skip
    rows = _restored(held, made, observation, seen, None)
    return rows, _lines(held, to_uint8(observation.pseudo_inverse(seen)).cpu().numpy(), made)


def transferred(held: Held) -> Found:
    """Images moved to the next class, and back, beside their reconstructions."""
    g, t, x = held.generator, held.teacher, held.images
    source = held.labels
    target = (source + 1) % g.num_classes
    y = torch.from_numpy(target).to(held.device)

    def by_generator(images: Tensor, to: np.ndarray, of: np.ndarray) -> Tensor:
        return edits.transfer(g, t, images, of, to, **held.own).images[:, 0]

    def by_teacher(images: Tensor, to: np.ndarray, of: np.ndarray) -> Tensor:
        z = edits.inverted(t, images, of, **held.own)
        with torch.no_grad():
            down = t(z, to)
        return F.interpolate(down, x.shape[2:], mode="bicubic", align_corners=False)

    def random(images: Tensor, to: np.ndarray, of: np.ndarray) -> Tensor:
        return held.decoded(held.prior("there" if to is target else "back"), to)

    ways = {
        "reconstructed": (by_generator, source),
        "transferred": (by_generator, target),
        "teacher_transfer": (by_teacher, target),
        "random_latent": (random, target),
    }
    rows, all_made = [], []
    features = held.seen_by(held.truth)[0]
    for name, (way, to) in ways.items():
        made = timed(name, lambda way=way, to=to: (way(x, to, source), 1))  # type: ignore[misc]
        again = to_uint8(way(to_float(torch.from_numpy(made.images)).to(x), source, to))
        pooled, classes = held.seen_by(made.images)
        cosine = (pooled * features).sum(1) / np.linalg.norm(pooled, axis=1) / np.linalg.norm(
            features, axis=1)  # fmt: skip
        values = {
            "target_rate": succession(classes == y.cpu().numpy()),
            "source_rate": succession(classes == source),
            "similarity": cosine.mean(), "kept_psnr": psnr(made.images, held.truth).mean(),
            "cycle_error": mse(again.cpu().numpy(), held.truth).mean(),
        }  # fmt: skip
        rows += held.rows(name, 1, values, len(x)) + held.realism(made)
        all_made.append(made)
    return rows, _lines(held, None, all_made)


def interpolated(held: Held) -> Found:
    """Paths between pairs of held-out images of one class."""
    partners = [_partner(held, i) for i in held.keys]
    other = to_float(torch.from_numpy(held.read(partners))).to(held.images)
    a = edits.inverted(held.teacher, held.images, held.labels, **held.own)
    b = edits.inverted(held.teacher, other, held.labels, seed=held.config.seed, keys=partners)
    network = held.features.network(load_feature_network).to(held.device)

    def arc(t: Tensor) -> Tensor:
        return held.decoded(slerp(a, b, t))

    def line(t: Tensor) -> Tensor:
        return held.decoded(torch.lerp(a, b, t.to(a)[:, None, None, None]))

    def fade(t: Tensor) -> Tensor:
        return torch.lerp(held.images, other, t.to(a)[:, None, None, None])

    rows, lines = [], []
    places = torch.linspace(0, 1, held.section.frames).tolist()
    for name, path in {"slerp": arc, "lerp": line, "crossfade": fade}.items():
        n = len(a)
        began = time.perf_counter()
        frames = np.stack([to_uint8(path(torch.full((n,), t))).cpu().numpy() for t in places], 1)
        seconds = (time.perf_counter() - began) / frames.shape[0] / frames.shape[1]
        inner = frames[:, 1:-1].reshape(-1, *frames.shape[2:])
        within = held.seen_by(inner)[1].reshape(n, -1) == held.labels[:, None]
        calls = 0 if path is fade else 1
        values = {"path_accuracy": float(within.mean())}
        rows += held.rows(name, calls, values, len(inner))
        rows += _path_length(held, name, calls, path, network.features)
        if path is not fade:
            middle = torch.full((n,), 0.5)
            z = slerp(a, b, middle) if path is arc else (a + b) / 2
            sag = norms(z) / ((norms(a) + norms(b)) / 2)
            rows += held.rows(name, calls, {"path_norm": float(sag.mean())}, n)
        rows += held.realism(Made(name, inner, calls, seconds))
        lines += [(f"{name}_{i + 1}", frames[i]) for i in range(min(2, n))]
    return rows, lines


TASKS: dict[str, Callable[[Held], Found]] = {
    "inpaint": inpainted,
    "super_resolve": super_resolved,
    "transfer": transferred,
    "interpolate": interpolated,
}


def _restored(
    held: Held, found: Sequence[Made], observation: Observation, seen: Tensor, hole: Tensor | None
) -> list[Row]:
    """Rows of every way; ``hole`` (n, 1, r, r) is 1 where images are made up."""
    rows = []
    originals = held.seen_by(held.truth)[0]
    inside = None if hole is None else hole.cpu().numpy() > 0
    for made in found:
        x = to_float(torch.from_numpy(made.images)).to(seen)
        values = {
            "consistency": observation.errors(x, seen).mean().item(),
            "whole_psnr": psnr(made.images, held.truth).mean(),
            "whole_distance": _distance(held, made.images, originals),
        }
        if held.resolution >= _SSIM_FROM:
            values["whole_ssim"] = ssim(made.images, held.truth).mean()
        if inside is not None:
            values |= {
                "hole_psnr": hole_psnr(made.images, held.truth, inside).mean(),
                "hole_distance": _distance(
                    held, np.where(inside, made.images, held.truth), originals
                ),
                "seam": seam_jump(made.images, held.truth, inside).mean(),
            }
        rows += held.rows(made.name, made.calls, values, len(x)) + held.realism(made)
    return rows


def _distance(held: Held, images: np.ndarray, originals: np.ndarray) -> float:
    return float(np.linalg.norm(held.seen_by(images)[0] - originals, axis=1).mean())


def _several(held: Held, kept: Tensor) -> list[Row]:
    """How several answers to one question differ, and how near the mean and the best of them are.

    The mean over answers is a way's figure; the best of k grows with k whatever the way.
    """
    section, k = held.section, held.section.answers
    x, m = held.images[: section.several], kept[: section.several]
    n, labels = len(x), held.labels[: section.several]
    each = np.repeat(np.arange(n), k)
    keys = [held.keys[i] * k + j for i in range(n) for j in range(k)]
    how = Langevin(section.walk_steps, section.walk_step, section.walk_sigma)

    def walked() -> tuple[Tensor, int]:
        found = edits.inpaint(
            held.generator, x, m, labels, shell=held.shell, answers=k,
            search=held.search, langevin=how, seed=held.config.seed, keys=held.keys[:n],
        )  # fmt: skip
        return found.images.flatten(0, 1), found.calls

    def pasted_back(images: Tensor, calls: int) -> tuple[Tensor, int]:
        return pasted(images, x[each], m[each]), calls

    ways: dict[str, Way] = {
        "langevin": walked,
        "teacher_posterior": lambda: pasted_back(
            *posterior(held, masked(m).apply, (x * m)[each], labels[each], keys)
        ),
        "random_latent": lambda: pasted_back(
            held.decoded(held.prior("several", keys), labels[each]), 1
        ),
    }
    rows, truth = [], held.truth[:n][each]
    hole = m[each].cpu().numpy() == 0
    for name, way in ways.items():
        made = timed(name, way)
        near = hole_psnr(made.images, truth, hole).reshape(n, k)
        apart = diversity(held.seen_by(made.images)[0].reshape(n, k, -1))
        values = {"diversity": apart.mean(), "best_hole_psnr": near.max(1).mean()}
        if name == "langevin":  # of others, above
            values["hole_psnr"] = near.mean()
        rows += held.rows(name, made.calls, values, n)
    return rows


def _lines(
    held: Held, seen: np.ndarray | None, found: Sequence[Made]
) -> list[tuple[str, np.ndarray]]:
    """Rows of the picture: the originals, what was seen of them, and the ways that are shown."""
    lines = {"original": held.truth, **({} if seen is None else {"seen": seen})}
    lines |= {made.name: made.images for made in found if made.name in _PICTURED}
    return [(name, images[:_SHOWN]) for name, images in lines.items()]


def _path_length(
    held: Held, name: str, calls: int, path: Callable[[Tensor], Tensor],
    features: Callable[[Tensor], Tensor],
) -> list[Row]:  # fmt: skip
    """Places are uniform on each path (the variant *full*)."""
    ends = []
    n = len(held.images)
    drawn = np.random.default_rng(held.config.seed).uniform(0, 1 - _STEP, (_PLACES, n))
    for shift in (0.0, _STEP):
        # TF32, which convolutions on a GPU may use, rounds more than the step is long.
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            seen = [features(path(torch.from_numpy(t + shift).float())) for t in drawn]
        ends.append(torch.cat(seen).double().cpu().numpy())
    value = path_length(ends[0], ends[1], _STEP)
    protocol = f"ppl_classifier_full_eps1e-4_{_PLACES * n}"
    return [
        Row(
            metric="path_length",
            protocol=protocol,
            value=value,
            n=_PLACES * n,
            generator=name,
            resolution=held.resolution,
            nfe=calls,
            seed=held.config.seed,
        )
    ]


def _partner(held: Held, image: int) -> int:
    """The next held-out image of an image's class; the first one after the last."""
    same = np.flatnonzero(held.all_labels == held.all_labels[image])
    return int(same[(np.searchsorted(same, image) + 1) % len(same)])
