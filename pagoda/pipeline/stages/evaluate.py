"""Evaluate every generator at one resolution against real images, and keep grids of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pagoda import artifacts, distributed
from pagoda.artifacts import Artifact
from pagoda.config import Config, EvaluateConfig, check_counts
from pagoda.config.paths import Paths
from pagoda.config.revision import code_revision
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.evaluation.evaluator import Evaluator, evaluate
from pagoda.evaluation.features.base import Extractor
from pagoda.evaluation.features.classifier import NAME
from pagoda.evaluation.metrics.base import Settings, size
from pagoda.evaluation.metrics.high_frequency import high_frequency_energies
from pagoda.evaluation.reconstruction import AUTOENCODER, Reconstructed, reconstruction_rows
from pagoda.evaluation.reference import Reference, check_extractor, from_artifact
from pagoda.evaluation.streaming import Images, StoredImages, open_split
from pagoda.networks.autoencoder import autoencoder_beside
from pagoda.pipeline.stages.aligned import alignment_of
from pagoda.pipeline.stages.device import device_name, metric_device, pick_device
from pagoda.pipeline.stages.extractors import metrics_of, open_extractors
from pagoda.pipeline.stages.made import identity, open_made
from pagoda.pipeline.stages.models import pipeline_samplers
from pagoda.pipeline.stages.neighbours import nearest_images
from pagoda.pipeline.stages.progress import track
from pagoda.rows import Row, to_json

_GRID_CLASSES = 16  # a grid of a thousand classes would be gigabytes that nobody looks at
_NEIGHBOUR_COLUMNS = 4


def run(config: Config, resolution: int) -> None:
    """Write the ``evaluation`` artifact of one resolution.

    Every generator sees the same latents: sample i has class ``i % classes`` and the latent of
    (``evaluate.seed``, i). Its images are made once and pass through every feature network. Real
    images of the split that the reference does not describe are the floor of every distance; in
    latent space what the autoencoder gives back of them is a second floor.
    """
    where, section, device = Paths(config).evaluation(resolution), config.evaluate, pick_device()
    artifacts.check_out(where, "evaluation")
    inputs = open_inputs(config, resolution)
    data = inputs["data"]
    check_counts(config, data.card()["n"])
    extractors = open_extractors(config, inputs["features"], device, section.batch)
    evaluators = open_evaluators(config, resolution, inputs, extractors)
    samplers = pipeline_samplers(config, resolution, inputs, device)
    real = unseen_images(data, evaluators[0].reference, section.samples)
    back = _given_back(inputs["base"], real, device, section.batch)
    sets: dict[str, Images] = {**samplers, **back, "real": real}
    cells = grid_cells(section, len(data.card()["classes"]))
    grids = {name: np.zeros((*cells.shape, 3, resolution, resolution), np.uint8)
             for name in samplers}  # fmt: skip

    energies = {name: np.zeros(len(images)) for name, images in sets.items()}
    held = "real" if evaluators[0].reference.split == "train" else ""
    alignment = alignment_of(inputs["base"], sets, device, held)

    def seen(name: str, rows: np.ndarray, images: np.ndarray) -> None:
        energies[name][rows] = high_frequency_energies(images)
        if alignment is not None:
            alignment.see(name, rows, images)
        if name in grids:
            here = (cells >= rows[0]) & (cells <= rows[-1])
            grids[name][here] = images[cells[here] - rows[0]]

    facts: dict[str, Any] = {
        "seed": section.seed, "resolution": resolution, "base_res": config.base_res,
        "revision": code_revision(), "device": device_name(device),
    }  # fmt: skip
    settings = settings_of(section, evaluators, sets)
    rows: list[Row] = []
    filled: list[np.ndarray] = []
    for images in back.values():
        rows += reconstruction_rows(real, images, extractors[0], facts)

    def gather() -> None:
        rows.extend([] if alignment is None else alignment.rows(facts))
        distributed.all_reduce_(map(torch.from_numpy, energies.values()))
        # Each cell was filled by the process whose block it is in, and is black in the others.
        filled.extend(distributed.all_gather_rows(g[None]).max(axis=0) for g in grids.values())

    with track(sum(map(len, sets.values())), f"evaluate {resolution}") as bar:
        measured = evaluate(
            sets, evaluators, settings, facts, held_out="real", device=metric_device(device),
            advance=bar.advance, seen=seen, then=gather,
        )  # fmt: skip
    if not distributed.is_main_process():
        return
    rows = measured + rows
    about = {"reference": data.fingerprint, "reference_n": len(real), **facts}
    rows += [_sharpness(name, sampler, energies[name], energies["real"], about)
             for name, sampler in samplers.items()]  # fmt: skip
    nearest = nearest_images(filled[0][:, :_NEIGHBOUR_COLUMNS], open_images(data, "train"), device)
    of = identity(config, f"evaluation/{resolution}")
    with artifacts.create(where, "evaluation", config=of, inputs=inputs) as out:
        tree = {"rows": to_json(rows), "sheets": list(grids)}
        artifacts.write_json(out / "results.json", tree)
        np.save(out / "samples.npy", np.stack(filled))
        np.save(out / "neighbours.npy", nearest[None])


def _given_back(
    model: Artifact, real: StoredImages, device: torch.device, batch: int
) -> dict[str, Reconstructed]:
    """What the autoencoder of codes makes of real images; nothing where images are modelled."""
    autoencoder = autoencoder_beside(model)
    if autoencoder is None:
        return {}
    return {AUTOENCODER: Reconstructed(real, autoencoder, device, batch)}


def _sharpness(
    name: str, images: Images, own: np.ndarray, real: np.ndarray, about: Mapping[str, Any]
) -> Row:
    """High-frequency energy of a generator's images over that of real ones, a mean each."""
    return Row(metric="high_frequency", protocol=f"high_frequency_ratio_{size(len(images))}",
               value=float(own.mean() / max(real.mean(), 1e-12)), n=len(images),
               generator=name, nfe=getattr(images, "nfe", None), **about)  # fmt: skip


def unseen_images(data: Artifact, reference: Reference, n: int) -> StoredImages:
    """Real images of the split that the reference does not describe: the floor of distances."""
    return open_split(data, "train" if reference.split == "test" else "test", n)


def open_evaluators(
    config: Config, resolution: int, inputs: dict[str, Artifact], extractors: Sequence[Extractor]
) -> list[Evaluator]:
    """The feature networks of ``reference.extractors``, each with its reference.

    References beside the classifier's are added to ``inputs``, which has ``data``, ``features`` and
    ``reference``.

    Raises:
        PagodaError: if a reference is missing or was made from other images or features.
    """
    found, expect = [], identity(config, f"reference/{resolution}")
    classes = inputs["data"].card()["classes"]
    for opened in extractors:
        extractor = opened.among(classes)
        artifact = inputs["reference"]
        if extractor.name != NAME:
            where = Paths(config).reference(resolution, extractor.name)
            artifact = artifacts.open_artifact(where, "reference", expect)
            _check_made_from(artifact, inputs, ("data",), resolution)
            inputs[f"reference_{extractor.name}"] = artifact
        reference = from_artifact(artifact)
        check_extractor(reference, extractor)
        found.append(Evaluator(extractor, reference, metrics_of(extractor)))
    return found


def settings_of(
    section: EvaluateConfig, evaluators: Sequence[Evaluator], sets: Mapping[str, Images]
) -> Settings:
    """Of the metrics; subsets of the kernel distance are of 1,000 images, or of all there are."""
    most = [len(images) for images in sets.values()]
    most += [len(evaluator.reference.features) for evaluator in evaluators]
    return Settings(neighbours=section.neighbours, splits=section.score_splits,
                    subset_size=min(Settings.subset_size, *most))  # fmt: skip


def open_inputs(config: Config, resolution: int) -> dict[str, Artifact]:
    """Everything an evaluation reads, checked to belong together.

    Raises:
        PagodaError: if one is missing or damaged, or if the reference was made from other images
            or other features: distances to it would mean nothing.
    """
    keys = {
        "base": f"gen/{config.base_res}", "data": f"data/{resolution}", "features": "features",
        "reference": f"reference/{resolution}", "teacher": "teacher",
        "generator": f"gen/{resolution}",
    }  # fmt: skip
    found = {name: open_made(config, key) for name, key in keys.items()}
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


def grid_cells(section: EvaluateConfig, classes: int) -> np.ndarray:
    """(rows, columns): the sample in each cell of a grid; row c holds samples of class c."""
    columns = min(section.grid_per_class, max(1, section.samples // classes))
    rows = min(classes, _GRID_CLASSES, section.samples)
    return np.arange(rows)[:, None] + classes * np.arange(columns)[None]
