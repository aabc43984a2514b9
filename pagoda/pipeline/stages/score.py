"""Measure any images, or a generator, against a reference; and make references of any images.

What ``pagoda evaluate --images`` and ``pagoda reference --images`` do. Under ``torchrun`` the
processes share the images and give the same bits as one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pagoda import artifacts, distributed
from pagoda.config.revision import package_revision
from pagoda.errors import PagodaError
from pagoda.evaluation.evaluator import Evaluator, evaluate
from pagoda.evaluation.features.base import Extractor, open_extractor
from pagoda.evaluation.files import DIFFUSERS, FileImages, check_there, kind_of, open_images
from pagoda.evaluation.metrics.base import Sample, Settings, metric_names, needs
from pagoda.evaluation.reference import (
    Reference,
    check_extractor,
    from_artifact,
    from_sample,
    reference_card,
    write_reference,
)
from pagoda.evaluation.results import check_out, over_seeds, write_results
from pagoda.evaluation.samplers import Draws, Sampler, one_step
from pagoda.evaluation.statistics_files import (
    holds_statistics,
    read_statistics,
    reference_images,
    refuse_pickle,
)
from pagoda.evaluation.streaming import Images, collect, subset
from pagoda.pipeline.stages.device import device_name, metric_device, pick_device
from pagoda.pipeline.stages.progress import log_line, track
from pagoda.pipeline.stages.sample import numbers
from pagoda.pipeline.stages.score_text import Texts, TextScores
from pagoda.rows import Row, from_json, to_json
from pagoda.text_to_image.protocols import Captioned, Prompted

MANIFOLD_IMAGES = 10_000  # as ADM's reference batches have
_DEFAULT_METRICS = {"inception": "fid,kid,prdc,is"}
_USUAL, _USUAL_NAME = "inception:clean", "inception_clean"  # as asked for, and in a protocol's name


@dataclass(frozen=True)
class Source:
    """Images, as :func:`pagoda.evaluation.files.open_images` takes them, or already open ones."""

    path: Path
    split: str | None = None
    crop: str | None = None
    size: int | None = None
    exif: bool = False
    opened: Images | None = None

    def open(self, arrays: bool = False) -> Images:
        """The images; what lies among them and is passed over is told on stderr.

        ``arrays``: of an ``.npz`` as they are, whatever ``crop`` says of files.
        """
        if self.opened is not None:
            return self.opened
        whole = arrays and (self.path.suffix == ".npz" or kind_of(self.path) == "images")
        crop, size = (None, None) if whole else (self.crop, self.size)
        images = open_images(self.path, self.split, crop, size, self.exif)
        if isinstance(images, FileImages) and images.passed_over:
            log_line(f"{images.where}: {images.passed_over}")
        return images


@dataclass(frozen=True)
class Features:
    """An extractor, as :func:`pagoda.evaluation.features.base.open_extractor` takes it.

    ``extractor`` None: ``inception:clean``, unless a kept reference is of other features.
    """

    extractor: str | None = None
    batch: int = 64
    weights: Path | None = None
    hub: Path | None = None
    download: bool = False


@dataclass(frozen=True)
class Request:
    """What to measure, against what, and how: the options of ``pagoda evaluate --images``.

    ``source``: images, or a ``generator`` artifact, which needs ``n``. ``reference``: a
    ``reference`` artifact, published ``.npz`` statistics (of the extractor ``reference_features``),
    or images, open ones too. ``seeds``: of latents, or of the choice of ``n`` images. ``metrics``
    None: a usual choice. ``texts``: captions of the images, which are in every row then.
    """

    source: Source
    features: Features
    reference: Path | Images
    reference_split: str | None = None
    reference_features: str | None = None
    metrics: str | None = None
    n: int | None = None
    seeds: tuple[int, ...] = (0,)
    settings: Settings = Settings()
    name: str | None = None
    out: Path | None = None
    intervals: bool = False
    texts: Texts | None = None


def seed_list(text: str) -> tuple[int, ...]:
    """``0,3-5`` -> (0, 3, 4, 5), as ``pagoda sample`` takes them.

    Raises:
        PagodaError: for anything but different whole numbers from 0.
    """
    return tuple(numbers(text, "--seeds"))


def make_reference(
    source: Source, features: Features, n: int | None, manifold: int, spatial: bool, out: Path
) -> None:
    """Write a ``reference`` artifact of any images to ``out``."""
    artifacts.check_out(out, "reference")
    with distributed.group():
        images, extractor = source.open(), _extractor(features, pick_device())
        sample, card = _real(images, _rows(images, n, 0), extractor, source, manifold, spatial)
        if distributed.is_main_process():
            config = {"extractor": extractor.name, "source": str(source.path)}
            write_reference(out, sample, card, config)
            log_line(
                f"reference: {out}, {sample.n} images, {extractor.name}, {card['identity'][:10]}"
            )


def run(request: Request) -> dict[str, Any] | None:
    """Measure, show the values, write the JSON file.

    Returns:
        What is in the file, to the first process; None to the others.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    if not (_foreign(request.source.path) and request.texts):
        check_there(request.source.path)
    if request.out is not None:
        check_out(request.out)
    tree = measure(request)
    if tree is None:
        return None
    _show(from_json(tree["rows"], "rows"), tree.get("over_seeds", []))
    if request.out is not None:
        write_results(request.out, tree)
    return tree


def measure(request: Request) -> dict[str, Any] | None:
    """Measure, and return what :func:`run` writes."""
    with distributed.group():
        device = pick_device()
        _check_named(request)
        extractor = _extractor(request.features, device)
        default = _DEFAULT_METRICS.get(extractor.family, "fd,prdc")
        scores = None
        if request.texts is not None:
            default = "fid" if extractor.family == "inception" else "fd"
            scores = TextScores(request.texts, request.n, request.features.batch, device)
        metrics = metric_names(request.metrics or default, extractor.name)
        reference = _open_reference(request, extractor, metrics)
        if scores is not None:
            scores.check(reference)
        evaluator = Evaluator(extractor, reference, metrics)
        rows: list[Row] = []
        cards: list[dict[str, Any]] = []
        for images, seed in _each_seed(request, device, scores):
            rows += _measured(request, images, seed, evaluator, device, scores)
            cards += [images.card()] if distributed.is_main_process() else []
        if not distributed.is_main_process():
            return None
    tree: dict[str, Any] = {
        "rows": to_json(rows), "images": cards, "reference": dict(reference.card),
        "extractor": {"name": extractor.name, **extractor.card},
    }  # fmt: skip
    if scores is not None:
        tree["captions"] = scores.card()
    if len(request.seeds) > 1:
        tree["over_seeds"] = over_seeds(rows)
    return tree


def _check_named(request: Request) -> None:
    """Refuse a kept reference of other features than the usual ones, where none are named.

    Raises:
        PagodaError: if so; before weights are looked for that it would not go with.
    """
    path = request.reference
    if request.features.extractor or not isinstance(path, Path) or kind_of(path) != "reference":
        return
    name = artifacts.peek(path, "reference").card().get("extractor")
    if name not in (None, _USUAL_NAME):  # a card without one is refused where it is opened
        raise PagodaError(
            f"{path} holds features of {name}; name its network with --extractor, as it was named "
            "when the reference was made (that of a run is classifier:runs/NAME/features)"
        )


def _extractor(f: Features, device: torch.device) -> Extractor:
    name = f.extractor or _USUAL
    return open_extractor(name, device, f.batch, f.weights, f.hub, f.download)


def _foreign(path: Path) -> bool:
    return str(path).startswith(DIFFUSERS)


def _each_seed(
    request: Request, device: torch.device, scores: TextScores | None
) -> Iterator[tuple[Images, int]]:
    path, seeds = request.source.path, request.seeds
    if scores is not None and (_foreign(path) or kind_of(path) not in (None, "images")):
        batch = request.features.batch
        for seed in seeds:
            yield scores.model(str(path), seed, batch), seed
        return
    if request.source.opened is not None or kind_of(path) in (None, "images"):
        if len(seeds) > 1:
            raise PagodaError(f"{path} is no generator: several --seeds have no meaning for files")
        yield request.source.open(arrays=scores is not None), seeds[0]
        return
    artifact = artifacts.open_artifact(path, "generator")
    if request.n is None:
        raise PagodaError(f"{path} is a generator; --n says how many images it makes")
    sampler = one_step(artifact, Draws(seeds[0], request.n, request.features.batch, device))
    for seed in seeds:
        draws = dataclasses.replace(sampler.draws, seed=seed)
        yield dataclasses.replace(sampler, draws=draws), seed


def _measured(
    request: Request, images: Images, seed: int, evaluator: Evaluator, device: torch.device,
    scores: TextScores | None,
) -> list[Row]:  # fmt: skip
    made, path = isinstance(images, Sampler | Prompted), request.source.path
    base = images.base_res if isinstance(images, Sampler | Prompted) else None
    kept = None if scores is None else scores.of(images)
    images = images if kept is None else kept
    rows = _rows(images, request.n, seed)
    _check_fits(images, evaluator.reference)
    facts = {
        "seed": seed if made or len(rows) < len(images) else None,
        "resolution": images.resolution[0],
        "base_res": base,
        "revision": package_revision(),
        "device": device_name(device),
    }
    name = request.name or (path.name if _foreign(path) else path.stem) or str(path)
    if request.texts is not None and request.texts.guidance is not None:
        name += f", guidance {request.texts.guidance:g}"
    look = None if scores is None else scores.alignment(name, images)
    seen = (lambda *_: None) if look is None else look.see
    with track(len(rows), f"evaluate {images.where}") as bar:
        found = evaluate(
            {name: images}, [evaluator], request.settings, facts, rows=rows,
            intervals=request.intervals, device=metric_device(device), advance=bar.advance,
            seen=seen,
        )  # fmt: skip
    if look is None or scores is None:
        return found
    scored = look.rows({"nfe": getattr(images, "nfe", None), **facts})  # of all processes
    return scores.named(found, scored, evaluator.reference) if distributed.is_main_process() else []


def _open_reference(request: Request, extractor: Extractor, metrics: tuple[str, ...]) -> Reference:
    path, wanted = request.reference, needs(metrics)
    if not isinstance(path, Path):
        return _reference_of(Source(Path(path.where), opened=path), extractor, wanted)
    refuse_pickle(path)
    if kind_of(path) not in (None, "images"):
        reference = from_artifact(artifacts.open_artifact(path, "reference"))
    elif path.is_file() and holds_statistics(path):
        reference = read_statistics(path, request.reference_features)
    else:
        real = dataclasses.replace(
            request.source, path=path, split=request.reference_split, opened=None
        )
        return _reference_of(real, extractor, wanted)
    check_extractor(reference, extractor)
    beside = None
    if "real" in wanted and not len(reference.features) and path.is_file():
        beside = reference_images(path)  # published beside the statistics
    if beside is None:
        return reference
    sample = _pass(beside, _rows(beside, None, 0), extractor, {"features"}, None)
    card = dict(reference.card) | {"manifold_n": sample.n}
    return dataclasses.replace(reference, features=sample.features, card=card)


def _reference_of(source: Source, extractor: Extractor, wanted: Collection[str]) -> Reference:
    """The reference that all images of a source make."""
    images = source.open()
    rows, spatial = _rows(images, None, 0), "spatial" in wanted
    sample, card = _real(images, rows, extractor, source, MANIFOLD_IMAGES, spatial)
    return from_sample(str(source.path), sample, card)


def _real(
    images: Images,
    rows: np.ndarray,
    extractor: Extractor,
    source: Source,
    manifold: int,
    spatial: bool,
) -> tuple[Sample, dict[str, Any]]:
    """One pass over real images, and the card of the reference that they make."""
    kept = subset(len(rows), manifold)
    wanted = {"features", "spatial"} if spatial else {"features"}
    sample = _pass(images, rows, extractor, wanted, kept)
    about = distributed.broadcast_object(
        images.card() if distributed.is_main_process() else None
    )  # it may read them all
    card = reference_card(
        extractor, images=artifacts.digest([about, rows.tolist()]), recipe=about["crop"],
        resolution=images.resolution[0], split=source.split, n=len(rows), manifold_n=len(kept),
        exif=source.exif,
    )  # fmt: skip
    return sample, card


def _pass(
    images: Images, rows: np.ndarray, extractor: Extractor, wanted: set[str],
    kept: np.ndarray | None,
) -> Sample:  # fmt: skip
    with track(len(rows), f"reference {images.where}") as bar:
        return collect(images, [(extractor, wanted)], rows, kept, bar.advance)[0]


def _rows(images: Images, n: int | None, seed: int) -> np.ndarray:
    if n is not None and n > len(images):
        raise PagodaError(f"{images.where} has {len(images)} images, --n asks for {n}")
    return subset(len(images), n, seed)


def _check_fits(images: Images, reference: Reference) -> None:
    """Refuse images of another size, or turned by another rule, than the reference's.

    Arrays and generators hold images as they are seen: those go with any rule.
    """
    side, turned = reference.card["resolution"], bool(reference.card.get("exif"))
    if side is not None and images.resolution != (side, side):
        height, width = images.resolution
        raise PagodaError(
            f"{images.where} is {width}x{height}, {reference.where} describes {side}x{side}; "
            "use images of the reference's size, or make a reference of this one"
        )
    if isinstance(images, FileImages | Captioned) and images.exif not in (None, turned):
        raise PagodaError(
            f"{reference.where} was made of images "
            + ("turned as their EXIF orientation says; give --exif, " if turned else
               "as they are stored, not turned by EXIF; leave --exif away, ")
            + "or make a reference of the other kind"
        )  # fmt: skip


def _show(rows: list[Row], over: list[dict[str, Any]]) -> None:
    for row in rows:
        seed = "" if row.seed is None else f"  seed {row.seed}"
        between = f"  sd {row.sd:.3g}" if row.sd is not None else ""
        if row.interval:
            between += f"  [{row.low:.6g}, {row.high:.6g}] {row.interval}"
        sys.stdout.write(f"{row.protocol:<40} {row.value:.6g}{between}{seed}\n")
    for entry in over:
        best = next(key for key in entry if "_best_of_" in key)
        sys.stdout.write(
            f"{entry['protocol']:<40} min {entry['min']:.6g}, mean {entry['mean']:.6g}, "
            f"sd {entry['sd']:.3g}\n{best:<40} {entry[best]:.6g}\n"
        )
