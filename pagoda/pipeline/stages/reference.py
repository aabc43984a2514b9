"""Feature statistics of real images, which generated ones are compared with."""

from __future__ import annotations

from pagoda import artifacts, distributed
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.evaluation.features.classifier import NAME
from pagoda.evaluation.metrics.base import needs
from pagoda.evaluation.reference import reference_card, write_reference
from pagoda.evaluation.streaming import collect, open_split, subset
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.extractors import metrics_of, open_extractors
from pagoda.pipeline.stages.made import identity, open_made
from pagoda.pipeline.stages.progress import track

_BATCH = 256  # images a call of the network


def run(config: Config, resolution: int) -> None:
    """Write the ``reference`` artifacts of one resolution, one for each feature network.

    Each holds mean and covariance over the whole split, and the features of a fixed random subset
    of ``reference.manifold_images`` images for precision and recall. The images are read once.
    """
    paths, split = Paths(config), config.reference.split
    data, features = open_made(config, f"data/{resolution}"), open_made(config, "features")
    extractors = open_extractors(config, features, pick_device(), _BATCH)
    for extractor in extractors:
        artifacts.check_out(paths.reference(resolution, extractor.name), "reference")
    images = open_split(data, split)
    kept = subset(len(images), config.reference.manifold_images)
    passes = [(e, {"features"} | needs(metrics_of(e)) & {"spatial"}) for e in extractors]
    with track(len(images), f"reference {resolution}") as bar:
        found = collect(images, passes, keep=kept, advance=bar.advance)
    if not distributed.is_main_process():
        return
    for extractor, sample in zip(extractors, found, strict=True):
        card = reference_card(
            extractor, images=data.fingerprint, recipe=data.card()["recipe"],
            resolution=resolution, split=split, n=sample.n, manifold_n=len(kept),
            exif=data.card().get("exif", False),
        )  # fmt: skip
        inputs = {"data": data} | ({"features": features} if extractor.name == NAME else {})
        where = paths.reference(resolution, extractor.name)
        of = identity(config, f"reference/{resolution}")
        write_reference(where, sample, card, of, inputs)
