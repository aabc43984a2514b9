"""Feature statistics of real images, which generated ones are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pagoda import artifacts, distributed
from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.evaluation.features.classifier import NAME
from pagoda.evaluation.metrics.base import needs
from pagoda.evaluation.reference import differences, reference_card, write_reference
from pagoda.evaluation.streaming import collect, open_split, subset
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.extractors import metrics_of, open_extractors
from pagoda.pipeline.stages.made import identity, open_made
from pagoda.pipeline.stages.progress import track

_BATCH = 256  # images a call of the network


def run(config: Config, resolution: int) -> None:
    """Write the ``reference`` artifacts of one resolution, one for each feature network.

    Each holds mean and covariance over the whole split, and the features of a fixed random subset
    of ``reference.manifold_images`` images for precision and recall. The images are read once. What
    ``reference.imported`` holds is taken from there.
    """
    paths, split = Paths(config), config.reference.split
    data, features = open_made(config, f"data/{resolution}"), open_made(config, "features")
    extractors = open_extractors(config, features, pick_device(), _BATCH)
    for extractor in extractors:
        artifacts.check_out(paths.reference(resolution, extractor.name), "reference")
    images = open_split(data, split)
    kept = subset(len(images), config.reference.manifold_images)
    cards = {
        extractor.name: reference_card(
            extractor, images=data.fingerprint, recipe=data.card()["recipe"],
            resolution=resolution, split=split, n=len(images), manifold_n=len(kept),
            exif=data.card().get("exif", False),
        )
        for extractor in extractors
    }  # fmt: skip
    imported = {name: _imported(config, resolution, name, card) for name, card in cards.items()}
    left = [e for e in extractors if imported[e.name] is None]
    passes = [(e, {"features"} | needs(metrics_of(e)) & {"spatial"}) for e in left]
    found = {}
    if passes:
        with track(len(images), f"reference {resolution}") as bar:
            samples = collect(images, passes, keep=kept, advance=bar.advance)
        found = {e.name: sample for e, sample in zip(left, samples, strict=True)}
    if not distributed.is_main_process():
        return
    of = identity(config, f"reference/{resolution}")
    for name, card in cards.items():
        inputs = {"data": data} | ({"features": features} if name == NAME else {})
        where = paths.reference(resolution, name)
        if (source := imported[name]) is not None:
            artifacts.copy(source, where, config=of, inputs=inputs)
        else:
            write_reference(where, found[name], card, of, inputs)


def _imported(
    config: Config, resolution: int, extractor: str, card: Mapping[str, Any]
) -> Artifact | None:
    """What ``reference.imported`` holds for one network at one resolution, if anything.

    Raises:
        PagodaError: one line if it describes other images or another network than this one's.
    """
    folder = Path(config.reference.imported) / str(resolution) / extractor
    if not folder.is_dir():
        return None
    source = artifacts.open_artifact(folder, "reference")
    if (theirs := source.card()) != card:
        why = differences(theirs, card) or "other images are kept for precision and recall"
        raise PagodaError(
            f"{folder} does not describe the real images of this experiment ({why}); choose "
            "another, or measure them with reference.imported=weights/none"
        )
    return source
