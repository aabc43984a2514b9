"""Score every generator at one resolution against real images, and keep sample sheets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pagoda import artifacts, distributed
from pagoda.artifacts import Artifact
from pagoda.config import Config, EvaluateConfig, check_counts
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor
from pagoda.evaluation.features.classifier import NAME
from pagoda.evaluation.reference import Reference, Statistics, check_extractor, from_artifact
from pagoda.evaluation.scoring import Sample, other_split_row, score, train_share_row, wanted
from pagoda.evaluation.settings import Settings
from pagoda.evaluation.streaming import collect_each
from pagoda.stages.contenders import Contender, contenders
from pagoda.stages.device import device_name, metric_device, pick_device
from pagoda.stages.extractors import metrics_of, open_extractors
from pagoda.stages.neighbours import nearest_images
from pagoda.stages.paths import Paths
from pagoda.stages.progress import Bar, track
from pagoda.stages.revision import code_revision

_SHEET_CLASSES = 16  # a sheet of a thousand classes would be gigabytes that nobody looks at
_NEIGHBOUR_COLUMNS = 4


@dataclass(frozen=True)
class Judge:
    """A feature network with real images in its features, and what is measured there."""

    extractor: Extractor
    artifact: Artifact
    reference: Reference
    metrics: tuple[str, ...]


def run(config: Config, resolution: int) -> None:
    """Write the ``evaluation`` artifact of one resolution.

    Every generator sees the same latents: sample i has class ``i % classes`` and the latent of
    (``evaluate.seed``, i). Its images are made once and pass through every feature network.
    """
    artifacts.check_out(Paths(config).evaluation(resolution), "evaluation")
    inputs = open_inputs(config, resolution)
    check_counts(config, inputs["data"].card()["n"])
    device, section = pick_device(), config.evaluate
    judges = open_judges(config, resolution, inputs, device)
    settings = Settings(neighbours=section.neighbours, splits=section.score_splits)
    field = contenders(config, resolution, inputs, device)
    cells = sheet_cells(section, len(inputs["data"].card()["classes"]))
    facts = {
        "seed": section.seed,
        "resolution": resolution,
        "base_res": config.base_res,
        "revision": code_revision(),
        "device": device_name(device),
    }
    rows: list[dict[str, Any]] = []
    seen: dict[str, tuple[dict[str, Any], list[Sample]]] = {}
    sheets: dict[str, np.ndarray] = {}
    with track(sum(len(c.labels) for c in field), f"evaluate {resolution}") as bar:
        for contender in field:
            samples, sheet = observe(contender, judges, section.batch, cells, resolution, bar)
            if not distributed.is_main_process():
                continue
            about = {"generator": contender.name, "nfe": contender.nfe, **facts}
            for judge, sample in zip(judges, samples, strict=True):
                values = score(
                    sample, judge.reference, judge.metrics, settings, device=metric_device(device)
                )
                rows += [about | _described(judge) | value for value in values]
            seen[contender.name] = about, samples
            if contender.has_latents:
                sheets[contender.name] = sheet
    if not distributed.is_main_process():
        return
    rows += _memorisation(seen, judges, inputs["data"].fingerprint, metric_device(device))
    first = next(iter(sheets.values()))
    train = open_images(inputs["data"], "train")
    nearest = nearest_images(first[:, :_NEIGHBOUR_COLUMNS], train, device)
    identity = {"name": config.name, "base_res": config.base_res, "resolution": resolution}
    inputs |= {f"reference_{judge.extractor.name}": judge.artifact for judge in judges[1:]}
    where = Paths(config).evaluation(resolution)
    with artifacts.create(where, "evaluation", config=identity, inputs=inputs) as out:
        artifacts.write_json(out / "results.json", {"rows": rows, "sheets": list(sheets)})
        np.save(out / "samples.npy", np.stack(list(sheets.values())))
        np.save(out / "neighbours.npy", nearest[None])


def _described(judge: Judge) -> dict[str, str]:
    return {"reference": judge.reference.fingerprint, "features": judge.extractor.fingerprint}


def _memorisation(
    seen: dict[str, tuple[dict[str, Any], list[Sample]]],
    judges: list[Judge],
    held_out: str,
    device: str | None,
) -> list[dict[str, Any]]:
    """Two rows a generator and network: is it nearer to training images than to held-out ones?

    The reference has features of one split, the contender ``real`` those of the other, which the
    fingerprint ``held_out`` of the data identifies.
    """
    _, real = seen["real"]
    rows = []
    for i, judge in enumerate(judges):
        found, reference = real[i].found, judge.reference
        other = Statistics(found.moments.mean, found.moments.covariance)
        for name, (about, samples) in seen.items():
            if name != "real":
                share = train_share_row(samples[i], reference, real[i], device)
                distance = other_split_row(samples[i], reference, other, found.n)
                facts = about | _described(judge)
                rows += [facts | share, facts | distance | {"reference": held_out}]
    return rows


def open_judges(
    config: Config, resolution: int, inputs: dict[str, Artifact], device: torch.device
) -> list[Judge]:
    """The feature networks of ``reference.extractors``, each with its reference.

    Raises:
        PagodaError: if weights are not at hand, or a reference is missing or was made from other
            images or features.
    """
    found = []
    k, batch = config.evaluate.neighbours, config.evaluate.batch
    identity = {"name": config.name, "resolution": resolution}
    for extractor in open_extractors(config, inputs["features"], device, batch):
        artifact = inputs["reference"]
        if extractor.name != NAME:
            where = Paths(config).reference(resolution, extractor.name)
            artifact = artifacts.open_artifact(where, "reference", identity)
            _check_made_from(artifact, inputs, ("data",), resolution)
        reference = from_artifact(artifact, k)
        check_extractor(reference, extractor)
        found.append(Judge(extractor, artifact, reference, metrics_of(extractor)))
    return found


def open_inputs(config: Config, resolution: int) -> dict[str, Artifact]:
    """Everything an evaluation reads, checked to belong together.

    Raises:
        PagodaError: if one is missing or damaged, or if the reference was made from other images
            or other features: distances to it would mean nothing.
    """
    paths, name = Paths(config), {"name": config.name}
    base = name | {"base_res": config.base_res}
    opened = artifacts.open_artifact
    found = {
        "data": opened(paths.data(resolution), "images", name | {"resolution": resolution}),
        "features": opened(paths.features, "features", name | {"target_res": config.target_res}),
        "reference": opened(
            paths.reference(resolution), "reference", name | {"resolution": resolution}
        ),
        "teacher": opened(paths.teacher, "teacher", base),
        "base": opened(
            paths.generator(config.base_res), "generator", base | {"resolution": config.base_res}
        ),
    }
    found["generator"] = found["base"]
    if resolution != config.base_res:
        found["generator"] = opened(
            paths.generator(resolution), "generator", base | {"resolution": resolution}
        )
    _check_made_from(found["reference"], found, ("data", "features"), resolution)
    return found


def _check_made_from(
    reference: Artifact, inputs: dict[str, Artifact], keys: tuple[str, ...], resolution: int
) -> None:
    for key in keys:
        if reference.manifest["inputs"].get(key) != inputs[key].fingerprint:
            raise PagodaError(
                f"{reference.path} was made from other {key} than {inputs[key].path}; "
                f"'dvc repro reference@{resolution}' makes it again"
            )


class _Watched:
    """A contender's images as they are made, with those of the sample sheet kept."""

    def __init__(
        self, contender: Contender, batch: int, cells: np.ndarray, resolution: int
    ) -> None:
        self.where, self.resolution = contender.name, (resolution, resolution)
        self.sheet = np.zeros((*cells.shape, 3, resolution, resolution), np.uint8)
        self._contender, self._batch, self._cells = contender, batch, cells

    def __len__(self) -> int:
        return len(self._contender.labels)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 images (n, 3, r, r) of consecutive rows, made in batches."""
        start, stop = int(rows[0]), int(rows[-1]) + 1
        pieces = range(start, stop, self._batch)
        images = np.concatenate(
            [self._contender.images(slice(a, min(a + self._batch, stop))) for a in pieces]
        )
        here = (self._cells >= start) & (self._cells < stop)
        self.sheet[here] = images[self._cells[here] - start]
        return images

    def card(self) -> dict[str, Any]:
        """The contender's name."""
        return {"generator": self._contender.name}


@torch.inference_mode()
def observe(
    contender: Contender,
    judges: list[Judge],
    batch: int,
    cells: np.ndarray,
    resolution: int,
    bar: Bar,
) -> tuple[list[Sample], np.ndarray]:
    """Make all images of a contender, batch by batch, and keep their features only.

    Returns:
        A sample a judge, and the sheet (classes, columns, 3, r, r) uint8.
    """
    images = _Watched(contender, batch, cells, resolution)
    passes = [(judge.extractor, wanted(judge.metrics)) for judge in judges]
    found = collect_each(passes, images, np.arange(len(images)), bar.advance)
    # Each cell was filled by the process whose block it is in, and is black in the others.
    sheet = distributed.all_gather_rows(images.sheet[None]).max(axis=0)
    samples = [
        Sample(judge.extractor.name, one, contender.labels)
        for judge, one in zip(judges, found, strict=True)
    ]
    return samples, sheet


def sheet_cells(section: EvaluateConfig, classes: int) -> np.ndarray:
    """(rows, columns): the sample in each cell of a sheet; row c holds samples of class c."""
    columns = min(section.grid_per_class, max(1, section.samples // classes))
    rows = min(classes, _SHEET_CLASSES, section.samples)
    return np.arange(rows)[:, None] + classes * np.arange(columns)[None]
