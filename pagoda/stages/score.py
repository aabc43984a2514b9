"""Score any images, or a generator, against a reference; and make references of any images.

What ``pagoda evaluate --images`` and ``pagoda reference --images`` do. Under ``torchrun`` the
processes share the images and give the same bits as one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pagoda import artifacts, distributed
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor
from pagoda.evaluation.features.select import open_extractor
from pagoda.evaluation.files import FileImages, check_there, kind_of
from pagoda.evaluation.reference import (
    Reference,
    check_extractor,
    from_artifact,
    from_collected,
    reference_card,
    write_reference,
)
from pagoda.evaluation.results import check_out, write_results
from pagoda.evaluation.scoring import (
    Sample,
    check_enough,
    metric_names,
    needs_real,
    score,
    wanted,
)
from pagoda.evaluation.seeds import over_seeds
from pagoda.evaluation.statistics_files import (
    holds_statistics,
    read_statistics,
    reference_images,
    refuse_pickle,
)
from pagoda.evaluation.streaming import Collected, Images, Wanted, collect, subset
from pagoda.stages.device import device_name, metric_device, pick_device
from pagoda.stages.generated import GeneratorImages
from pagoda.stages.progress import tell, track
from pagoda.stages.request import Features, Request, Source
from pagoda.stages.revision import package_revision

MANIFOLD_IMAGES = 10_000  # as ADM's reference batches have
_DEFAULT_METRICS = {"inception": "fid,kid,prdc,is"}


def make_reference(
    source: Source, features: Features, n: int | None, manifold: int, spatial: bool, out: Path
) -> None:
    """Write a ``reference`` artifact of any images to ``out``."""
    artifacts.check_out(out, "reference")
    with distributed.group():
        images, extractor = source.open(), _extractor(features, pick_device())
        rows = _rows(images, n, 0)
        found, card = _real(images, rows, extractor, source, (manifold, spatial))
        if distributed.is_main_process():
            config = {"extractor": extractor.name, "source": str(source.path)}
            write_reference(out, found, card, config)
            tell(f"reference: {out}, {found.n} images, {extractor.name}, {card['identity'][:10]}")


def run(request: Request) -> dict[str, Any] | None:
    """Score, show the values, write the JSON file.

    Returns:
        What is in the file, to the first process; None to the others.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    check_there(request.source.path)
    if request.out is not None:
        check_out(request.out)
    with distributed.group():
        device = pick_device()
        extractor = _extractor(request.features, device)
        default = _DEFAULT_METRICS.get(extractor.family, "fd,prdc")
        metrics = metric_names(request.metrics or default, extractor.name)
        reference = _open_reference(request, extractor, metrics)
        rows: list[dict[str, Any]] = []
        cards: list[dict[str, Any]] = []
        for images, seed in _each_seed(request, device):
            on = metric_device(device)
            found = _scored(request, images, seed, extractor, reference, metrics, on)
            here = {"device": device_name(device)}
            rows += [here | row for row in found]
            cards += [images.card()] if distributed.is_main_process() else []
        if not distributed.is_main_process():
            return None
    tree: dict[str, Any] = {
        "rows": rows, "images": cards, "reference": dict(reference.card),
        "extractor": {"name": extractor.name, **extractor.card},
    }  # fmt: skip
    if len(request.seeds) > 1:
        tree["over_seeds"] = over_seeds(rows)
    _show(tree)
    if request.out is not None:
        write_results(request.out, tree)
    return tree


def _extractor(f: Features, device: torch.device) -> Extractor:
    return open_extractor(f.extractor, device, f.batch, f.weights, f.hub, f.download)


def _each_seed(request: Request, device: torch.device) -> Iterator[tuple[Images, int]]:
    path = request.source.path
    if kind_of(path) in (None, "images"):
        if len(request.seeds) > 1:
            raise PagodaError(f"{path} is no generator: several --seeds have no meaning for files")
        yield request.source.open(), request.seeds[0]
        return
    artifact = artifacts.open_artifact(path, "generator")
    if request.n is None:
        raise PagodaError(f"{path} is a generator; --n says how many images it makes")
    for seed in request.seeds:
        batch = request.features.batch
        yield GeneratorImages(artifact, seed, request.n, batch, device), seed


def _scored(
    request: Request,
    images: Images,
    seed: int,
    extractor: Extractor,
    reference: Reference,
    metrics: tuple[str, ...],
    device: str | None,
) -> list[dict[str, Any]]:
    rows = _rows(images, request.n, seed)
    _check_size(images, reference)
    _check_exif(images, reference)
    check_enough(len(rows), reference, metrics, request.settings, extractor.classes)
    with track(len(rows), f"evaluate {images.where}") as bar:
        keep = wanted(metrics, request.intervals)
        found = collect(extractor, images, rows, keep, bar.advance)
    if not distributed.is_main_process():
        return []  # the arithmetic that follows is the first one's
    made = images if isinstance(images, GeneratorImages) else None
    drawn = made is not None or len(rows) < len(images)
    about = {
        "generator": request.name or request.source.path.stem or str(request.source.path),
        "nfe": None if made is None else 1,
        "seed": seed if drawn else None,
        "resolution": images.resolution[0],
        "base_res": None if made is None else made.base_res,
        "reference": reference.fingerprint,
        "features": extractor.fingerprint,
        "revision": package_revision(),
    }
    sample = Sample(extractor.name, found, None if made is None else made.labels)
    values = score(sample, reference, metrics, request.settings, request.intervals, device)
    return [about | value for value in values]


def _open_reference(request: Request, extractor: Extractor, metrics: tuple[str, ...]) -> Reference:
    path, k = request.reference, request.settings.neighbours
    refuse_pickle(path)
    if kind_of(path) not in (None, "images"):
        reference = from_artifact(artifacts.open_artifact(path, "reference"), k)
    elif path.is_file() and holds_statistics(path):
        reference = read_statistics(path, request.reference_features, k)
    else:
        return _reference_of_images(request, extractor, metrics)
    check_extractor(reference, extractor)
    if reference.manifold is None and needs_real(metrics) and path.is_file():
        images = reference_images(path)
        if images is not None:
            found = _pass(images, _rows(images, None, 0), extractor, Wanted())
            reference = _with_manifold(reference, found)
    return reference


def _with_manifold(reference: Reference, found: Collected) -> Reference:
    """Published statistics, with features of the images that were published beside them."""
    card = dict(reference.card) | {"manifold_n": found.n}
    return dataclasses.replace(reference, manifold=found.features, card=card)


def _reference_of_images(
    request: Request, extractor: Extractor, metrics: tuple[str, ...]
) -> Reference:
    source = request.source
    real = dataclasses.replace(source, path=request.reference, split=request.reference_split)
    images = real.open()
    spatial = wanted(metrics).spatial
    rows = _rows(images, None, 0)
    found, card = _real(images, rows, extractor, real, (MANIFOLD_IMAGES, spatial))
    return from_collected(str(real.path), found, card, request.settings.neighbours)


def _real(
    images: Images,
    rows: np.ndarray,
    extractor: Extractor,
    source: Source,
    keep: tuple[int, bool],
) -> tuple[Collected, dict[str, Any]]:
    """One pass over real images, and the card of the reference that they make."""
    manifold, spatial = keep
    kept = subset(len(rows), manifold)
    found = _pass(images, rows, extractor, Wanted(spatial=spatial, features=kept))
    about = distributed.broadcast_object(
        images.card() if distributed.is_main_process() else None
    )  # it may read them all
    card = reference_card(
        extractor, images=artifacts.digest([about, rows.tolist()]), recipe=about["crop"],
        resolution=images.resolution[0], split=source.split, n=len(rows), manifold_n=len(kept),
        exif=source.exif,
    )  # fmt: skip
    return found, card


def _pass(
    images: Images,
    rows: np.ndarray,
    extractor: Extractor,
    keep: Wanted,
) -> Collected:
    with track(len(rows), f"reference {images.where}") as bar:
        return collect(extractor, images, rows, keep, bar.advance)


def _rows(images: Images, n: int | None, seed: int) -> np.ndarray:
    if n is not None and n > len(images):
        raise PagodaError(f"{images.where} has {len(images)} images, --n asks for {n}")
    return subset(len(images), n, seed)


def _check_size(images: Images, reference: Reference) -> None:
    theirs = reference.card["resolution"]
    if theirs is not None and images.resolution != (theirs, theirs):
        height, width = images.resolution
        raise PagodaError(
            f"{images.where} is {width}x{height}, {reference.where} describes {theirs}x{theirs}; "
            "use images of the reference's size, or make a reference of this one"
        )


def _check_exif(images: Images, reference: Reference) -> None:
    """Arrays and generators hold images as they are seen: those go with any reference."""
    turned = bool(reference.card.get("exif"))
    if isinstance(images, FileImages) and images.exif != turned:
        raise PagodaError(
            f"{reference.where} was made of images "
            + ("turned as their EXIF orientation says; give --exif, " if turned else
               "as they are stored, not turned by EXIF; leave --exif away, ")
            + "or make a reference of the other kind"
        )  # fmt: skip


def _show(tree: dict[str, Any]) -> None:
    for row in tree["rows"]:
        seed = "" if row["seed"] is None else f"  seed {row['seed']}"
        between = f"  sd {row['sd']:.3g}" if row.get("sd") is not None else ""
        if row.get("interval"):
            between += f"  [{row['low']:.6g}, {row['high']:.6g}] {row['interval']}"
        sys.stdout.write(f"{row['protocol']:<40} {row['value']:.6g}{between}{seed}\n")
    for entry in tree.get("over_seeds", []):
        best = next(key for key in entry if "_best_of_" in key)
        sys.stdout.write(
            f"{entry['protocol']:<40} min {entry['min']:.6g}, mean {entry['mean']:.6g}, "
            f"sd {entry['sd']:.3g}\n{best:<40} {entry[best]:.6g}\n"
        )
