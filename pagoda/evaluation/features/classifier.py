"""The embedded classifier of a pipeline as an extractor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.evaluation.features.base import Extractor, Family, Features
from pagoda.networks.classifier import load_feature_network

NAME = "classifier"


def open_classifier(path: Path, device: torch.device, batch: int) -> Extractor:
    """The network of a ``features`` artifact, by its folder.

    Raises:
        PagodaError: if it is missing, damaged or something else.
    """
    return classifier_of(artifacts.open_artifact(path, "features"), device, batch)


def classifier_of(artifact: Artifact, device: torch.device, batch: int) -> Extractor:
    """The network of an open ``features`` artifact; its fingerprint is the artifact's."""
    card = artifact.card()
    network = artifact.network(load_feature_network).to(device)
    classes = network.class_head.out_features

    def forward(images: np.ndarray, spatial: bool) -> Features[torch.Tensor]:
        features, logits, _ = network(torch.from_numpy(images).to(device))
        return Features(features, None, logits)

    return Extractor(
        NAME, "classifier", network.dim, None, classes, {"architecture": card["architecture"]},
        artifact.fingerprint, forward, batch, columns=tuple(range(classes)),
    )  # fmt: skip


FAMILY = Family(
    "classifier:FOLDER",
    lambda asked: open_classifier(Path(asked.name), asked.device, asked.batch),
)
