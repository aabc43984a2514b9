"""Feature statistics of real images, which generated ones are held against."""

from __future__ import annotations

import numpy as np

from pagoda import artifacts
from pagoda.config import Config
from pagoda.metrics.statistics import RunningMoments
from pagoda.networks.classifier import extract, load_feature_network
from pagoda.stages.device import pick_device
from pagoda.stages.paths import Paths
from pagoda.stages.progress import track

_CHUNK = 1024  # images a read
_SUBSET_SEED = 0  # which real images describe the manifold; sources may be sorted by class


def run(config: Config, resolution: int) -> None:
    """Write the ``reference`` artifact of one resolution.

    It holds mean and covariance over the whole split, and the features of a fixed random subset of
    ``reference.manifold_images`` images for precision and recall.
    """
    paths, split = Paths(config), config.reference.split
    identity = {"name": config.name, "resolution": resolution}
    data = artifacts.open_artifact(paths.data(resolution), "images", identity)
    features = artifacts.open_artifact(
        paths.features, "features", {"name": config.name, "target_res": config.target_res}
    )
    network = load_feature_network(features.weights(), features.card()).to(pick_device())
    images = data.array(f"{split}_images")
    kept = subset(len(images), config.reference.manifold_images)
    moments, manifold = RunningMoments(network.dim), []
    with track(len(images), f"reference {resolution}") as bar:
        for start in range(0, len(images), _CHUNK):
            rows, _ = extract(network, images[start : start + _CHUNK])
            moments.update(rows)
            manifold.append(rows[kept[(kept >= start) & (kept < start + _CHUNK)] - start])
            bar.advance(len(rows))
    found = moments.moments()
    card = {
        "split": split,
        "n": found.n,
        "manifold_n": len(kept),
        "resolution": resolution,
        "recipe": data.card()["recipe"],
        "features": features.fingerprint,
        "data": data.fingerprint,
    }
    inputs = {"data": data, "features": features}
    where = paths.reference(resolution)
    with artifacts.create(where, "reference", config=identity, inputs=inputs) as out:
        np.save(out / "mean.npy", found.mean)
        np.save(out / "covariance.npy", found.covariance)
        np.save(out / "manifold.npy", np.concatenate(manifold))
        artifacts.write_json(out / "card.json", card)


def subset(n: int, most: int) -> np.ndarray:
    """Ascending indices of a fixed random ``min(n, most)`` of ``n`` images."""
    return np.sort(np.random.default_rng(_SUBSET_SEED).permutation(n)[:most])
