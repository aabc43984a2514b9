"""Train the embedded feature network on real images. It is used for evaluation only."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda import artifacts, distributed
from pagoda.artifacts import Artifact
from pagoda.config import NO_WEIGHTS, Config, derive_resolutions
from pagoda.config.paths import Paths
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.methods.classifier import Classifier, ClassifierConfig
from pagoda.networks.classifier import FeatureNetwork, degrade, extract, load_feature_network
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.made import identity, locate, open_made
from pagoda.pipeline.stages.train import check_same, image_batches, train_stage
from pagoda.training.history import History
from pagoda.training.method import Given
from pagoda.training.sharding import place

_LOWEST_RES = 8  # the network serves every resolution from here up to its own
_AT_ONCE = 256  # held-out images in memory


def run(config: Config) -> None:
    """Train the network at the target resolution, or take the imported one, and write it.

    Its seed is ``features.seed``, never the run's, and nothing depends on the base resolution: all
    runs of a profile are measured with the same network.
    """
    config = replace(config, seed=config.features.seed)
    section, device = config.features, pick_device()
    data = open_made(config, f"data/{config.target_res}")
    classes = data.card()["classes"]
    if section.imported != NO_WEIGHTS:
        _take(config, classes)
        return
    torch.manual_seed(config.seed)
    network = feature_network(config, len(classes))
    card = {
        "architecture": network.architecture,
        "classes": classes,
        "parameters": sum(p.numel() for p in network.parameters()),
        "seed": config.seed,
        "data": data.fingerprint,
    }
    given = Given(
        place(network, device), image_batches(device, data), device, config.seed, config.diffusion
    )

    def tested(weights: dict[str, Tensor]) -> dict[str, Any]:
        network = load_feature_network(weights, card).to(device)
        return {"accuracy": _accuracy(network, data, _ladder(config))}

    train_stage(
        config, "features", Classifier(ClassifierConfig(section.optim), given), section.optim,
        "features", card, device=device, inputs={"data": data}, sections={"features": section},
        code="classifier", tested=tested,
    )  # fmt: skip


def _take(config: Config, classes: list[str]) -> None:
    """Write the classifier that is imported; the history is one row.

    Raises:
        PagodaError: one line if none is there, or one of another resolution or other classes.
    """
    begun = time.monotonic()
    folder, out = Path(config.features.imported), locate(config, "features")
    artifacts.check_out(out, "features")
    source = artifacts.open_artifact(folder, "features")
    network = source.network(load_feature_network)
    facts = {
        "resolution": (network.resolution, config.target_res),
        "list of classes": (source.card()["classes"], classes),
    }
    check_same(folder, facts, "choose another, or train one with features.imported=weights/none")
    if distributed.is_main_process():
        artifacts.copy(source, out, config=identity(config, "features"))
        with History(Paths(config).history("features")) as history:
            history.write(images=0, step=0, seconds=time.monotonic() - begun)


def feature_network(config: Config, classes: int) -> FeatureNetwork:
    """The network, untrained."""
    section = config.features
    return FeatureNetwork(
        classes, config.target_res, section.channels, section.dim, len(_ladder(config))
    )


def _ladder(config: Config) -> list[int]:
    """Resolutions that the network serves."""
    return derive_resolutions(min(_LOWEST_RES, config.target_res), config.target_res)


def _accuracy(network: FeatureNetwork, data: Artifact, ladder: list[int]) -> dict[str, float]:
    """Fraction of held-out images named right, at each resolution."""
    images, labels = open_images(data, "test"), data.array("test_labels")
    right = dict.fromkeys(ladder, 0)
    for start in range(0, len(labels), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        part = torch.from_numpy(np.array(images[rows]))
        for res in ladder:
            _, logits = extract(network, degrade(part, res).numpy())
            if not np.isfinite(logits).all():
                raise PagodaError(
                    "features: the trained network's answers are not finite; lower the learning "
                    "rate features.lr, then run again"
                )
            right[res] += int((logits.argmax(1) == labels[rows]).sum())
    return {str(res): count / len(labels) for res, count in right.items()}
