"""Feature statistics of real images, which generated ones are held against."""

from __future__ import annotations

import numpy as np

from pagoda import artifacts, distributed
from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.data.store import open_images
from pagoda.evaluation.features.classifier import NAME
from pagoda.evaluation.reference import reference_card, write_reference
from pagoda.evaluation.streaming import Wanted, collect_each, subset
from pagoda.stages.device import pick_device
from pagoda.stages.extractors import metrics_of, open_extractors
from pagoda.stages.paths import Paths
from pagoda.stages.progress import track

_BATCH = 256  # images a call of the network


def run(config: Config, resolution: int) -> None:
    """Write the ``reference`` artifacts of one resolution, one for each feature network.

    Each holds mean and covariance over the whole split, and the features of a fixed random subset
    of ``reference.manifold_images`` images for precision and recall. The images are read once.
    """
    paths, split = Paths(config), config.reference.split
    identity = {"name": config.name, "resolution": resolution}
    data = artifacts.open_artifact(paths.data(resolution), "images", identity)
    features = artifacts.open_artifact(
        paths.features, "features", {"name": config.name, "target_res": config.target_res}
    )
    extractors = open_extractors(config, features, pick_device(), _BATCH)
    for extractor in extractors:
        artifacts.check_out(paths.reference(resolution, extractor.name), "reference")
    images = ArtifactImages(data, split)
    kept = subset(len(images), config.reference.manifold_images)
    passes = [(e, Wanted("sfd" in metrics_of(e), features=kept)) for e in extractors]
    with track(len(images), f"reference {resolution}") as bar:
        found = collect_each(passes, images, np.arange(len(images)), bar.advance)
    if not distributed.is_main_process():
        return
    for extractor, one in zip(extractors, found, strict=True):
        card = reference_card(
            extractor, images=data.fingerprint, recipe=data.card()["recipe"],
            resolution=resolution, split=split, n=one.n, manifold_n=len(kept),
            exif=data.card().get("exif", False),
        )  # fmt: skip
        inputs = {"data": data} | ({"features": features} if extractor.name == NAME else {})
        write_reference(paths.reference(resolution, extractor.name), one, card, identity, inputs)


class ArtifactImages:
    """One split of an ``images`` artifact."""

    def __init__(self, artifact: Artifact, split: str) -> None:
        self._images = open_images(artifact, split)
        self._card = {"files": artifact.fingerprint, "split": split}
        self.where = f"{artifact.path} ({split})"
        self.resolution = self._images.shape[2], self._images.shape[3]

    def __len__(self) -> int:
        return len(self._images)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 RGB images (n, 3, r, r)."""
        return self._images[rows]

    def card(self) -> dict[str, object]:
        """Fingerprint of the artifact."""
        return dict(self._card)
