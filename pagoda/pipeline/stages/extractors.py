"""The feature networks that a pipeline's references and results are in."""

from __future__ import annotations

from pathlib import Path

import torch

from pagoda.artifacts import Artifact
from pagoda.config import Config, ReferenceConfig
from pagoda.config.root import project_root
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor, open_extractor
from pagoda.evaluation.features.classifier import NAME, classifier_of
from pagoda.evaluation.metrics.base import metrics

_BATCH = 64  # images a call of a published network, at 224 pixels or more a side


def open_extractors(
    config: Config, features: Artifact, device: torch.device, batch: int
) -> list[Extractor]:
    """The networks of ``reference.extractors``, the embedded classifier first.

    ``batch``: images a call of the classifier.

    Raises:
        PagodaError: if weights are not at hand or damaged, or two networks share a name.
    """
    section = config.reference
    found = [
        classifier_of(features, device, batch)
        if text == NAME
        else open_published(section, text, device, section.download)
        for text in section.extractors
    ]
    names = [extractor.name for extractor in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise PagodaError(f"reference.extractors names {min(twice)} twice; leave one of them out")
    return found


def open_published(
    section: ReferenceConfig, text: str, device: torch.device, download: bool
) -> Extractor:
    """One network of ``reference.extractors`` that is not the classifier.

    Raises:
        PagodaError: if weights are not at hand, and may not be fetched, or are damaged.
    """

    def at_hand(path: str) -> Path:  # as data are: here, or else in the project's root
        return Path(path) if Path(path).exists() else project_root() / path

    weights, code = (None if p is None else at_hand(p) for p in (section.weights, section.code))
    family, _, file = text.partition(":")
    if family == "custom" and at_hand(file).exists():
        text = f"custom:{at_hand(file)}"
    try:
        return open_extractor(text, device, _BATCH, weights, code, download)
    except PagodaError as error:
        raise PagodaError(f"reference.extractors names {text}: {error}") from error


def metrics_of(extractor: Extractor) -> tuple[str, ...]:
    """What a pipeline measures in these features; ``pagoda evaluate`` measures more on request."""
    lacks = {"spatial"} if extractor.spatial_dim is None else set()
    lacks |= {"logits"} if extractor.classes is None else set()
    lacks |= {"labels"} if extractor.columns is None else set()
    return tuple(
        key
        for key, metric in metrics().items()
        if metric.pipeline in ("any", extractor.family) and not lacks & set(metric.needs)
    )
