"""Score every generator at one resolution against real images, and keep sample sheets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.config import Config, EvaluateConfig
from pagoda.errors import PagodaError
from pagoda.metrics.frechet import covariance_factor, frechet_distance
from pagoda.metrics.inception_score import inception_score, probabilities_of
from pagoda.metrics.precision_recall import manifold_scores, squared_radii
from pagoda.metrics.protocol import protocol
from pagoda.metrics.statistics import feature_moments
from pagoda.networks.classifier import FeatureNetwork, extract, load_feature_network
from pagoda.stages.contenders import Contender, contenders
from pagoda.stages.device import device_name, pick_device
from pagoda.stages.neighbours import nearest_images
from pagoda.stages.paths import Paths
from pagoda.stages.progress import Bar, track
from pagoda.stages.revision import code_revision

_SHUFFLE_SEED = 2020  # of the classifier score's splits; sources may be sorted by class
_SHEET_CLASSES = 16  # a sheet of a thousand classes would be gigabytes that nobody looks at
_NEIGHBOUR_COLUMNS = 4


def run(config: Config, resolution: int) -> None:
    """Write the ``evaluation`` artifact of one resolution.

    Every generator sees the same latents: sample i has class ``i % classes`` and the latent of
    (``evaluate.seed``, i). Each passes through the feature network once.
    """
    inputs = open_inputs(config, resolution)
    device, section = pick_device(), config.evaluate
    features = inputs["features"]
    network = load_feature_network(features.weights(), features.card()).to(device)
    reference = Reference(inputs["reference"], section.neighbours)
    field = contenders(config, resolution, inputs, device)
    cells = sheet_cells(section, len(inputs["data"].card()["classes"]))
    facts = {
        "seed": section.seed,
        "resolution": resolution,
        "base_res": config.base_res,
        "reference": inputs["reference"].fingerprint,
        "features": features.fingerprint,
        "revision": code_revision(),
        "device": device_name(device),
    }
    rows: list[dict[str, Any]] = []
    sheets: dict[str, np.ndarray] = {}
    with track(sum(len(c.labels) for c in field), f"evaluate {resolution}") as bar:
        for contender in field:
            seen = observe(contender, network, section.batch, cells, resolution, bar)
            about = {"generator": contender.name, "nfe": contender.nfe, **facts}
            rows += [about | value for value in score(seen, contender.labels, reference, section)]
            if contender.has_latents:
                sheets[contender.name] = seen.sheet
    first = next(iter(sheets.values()))
    train = inputs["data"].array("train_images")
    nearest = nearest_images(first[:, :_NEIGHBOUR_COLUMNS], train, device)
    identity = {"name": config.name, "base_res": config.base_res, "resolution": resolution}
    where = Paths(config).evaluation(resolution)
    with artifacts.create(where, "evaluation", config=identity, inputs=inputs) as out:
        artifacts.write_json(out / "results.json", {"rows": rows, "sheets": list(sheets)})
        np.save(out / "samples.npy", np.stack(list(sheets.values())))
        np.save(out / "neighbours.npy", nearest[None])


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
    for key in ("data", "features"):
        if found["reference"].manifest["inputs"].get(key) != found[key].fingerprint:
            raise PagodaError(
                f"{found['reference'].path} was made from other {key} than {found[key].path}; "
                f"'dvc repro reference@{resolution}' makes it again"
            )
    return found


class Reference:
    """Statistics of real images, with what every comparison shares computed once."""

    def __init__(self, artifact: Artifact, neighbours: int) -> None:
        card = artifact.card()
        self.n, self.split = int(card["n"]), str(card["split"])
        self.mean, self.covariance = artifact.array("mean"), artifact.array("covariance")
        self.factor = covariance_factor(self.covariance)
        self.manifold = artifact.array("manifold")
        self.radii = squared_radii(self.manifold, neighbours)


@dataclass(frozen=True)
class Observed:
    """One pass over a contender's images.

    Attributes:
        features: (n, d) float32.
        logits: (n, classes) float32.
        sheet: (classes, columns, 3, r, r) uint8, the images of the sheet's cells.
    """

    features: np.ndarray
    logits: np.ndarray
    sheet: np.ndarray


@torch.inference_mode()
def observe(
    contender: Contender,
    network: FeatureNetwork,
    batch: int,
    cells: np.ndarray,
    resolution: int,
    bar: Bar,
) -> Observed:
    """Make all images of a contender, batch by batch, and keep their features only."""
    sheet = np.zeros((*cells.shape, 3, resolution, resolution), np.uint8)
    parts = []
    for start in range(0, len(contender.labels), batch):
        rows = slice(start, min(start + batch, len(contender.labels)))
        images = contender.images(rows)
        parts.append(extract(network, images, batch))
        here = (cells >= rows.start) & (cells < rows.stop)
        sheet[here] = images[cells[here] - start]
        bar.advance(len(images))
    features, logits = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Observed(features, logits, sheet)


def score(
    seen: Observed, labels: np.ndarray, reference: Reference, section: EvaluateConfig
) -> list[dict[str, Any]]:
    """All metrics of one pass: metric, protocol, value, n and n of the reference."""
    n, k, splits = len(labels), section.neighbours, section.score_splits
    moments = feature_moments(seen.features)
    distance = frechet_distance(
        reference.mean, reference.covariance, moments.mean, moments.covariance, reference.factor
    )
    manifold = manifold_scores(reference.manifold, seen.features, k, reference.radii)
    sharpness, _ = inception_score(probabilities_of(seen.logits), splits, _SHUFFLE_SEED)
    named = [
        ("fd", protocol("fd", "classifier", n), distance, reference.n),
        ("classifier_score", protocol("score", "classifier", n, s=splits), sharpness, reference.n),
        ("precision", protocol("precision", "classifier", n, k=k), manifold.precision,
         len(reference.manifold)),
        ("recall", protocol("recall", "classifier", n, k=k), manifold.recall,
         len(reference.manifold)),
        ("class_accuracy", protocol("accuracy", "classifier", n),
         float(np.mean(seen.logits.argmax(axis=1) == labels)), reference.n),
    ]  # fmt: skip
    keys = ("metric", "protocol", "value", "reference_n")
    return [dict(zip(keys, entry, strict=True)) | {"n": n} for entry in named]


def sheet_cells(section: EvaluateConfig, classes: int) -> np.ndarray:
    """(rows, columns): the sample in each cell of a sheet; row c holds samples of class c."""
    columns = min(section.grid_per_class, max(1, section.samples // classes))
    rows = min(classes, _SHEET_CLASSES, section.samples)
    return np.arange(rows)[:, None] + classes * np.arange(columns)[None]
