"""Extractors by name: ``inception:clean``, ``dinov2:vitl14:dgm``, ``classifier:PATH``, ..."""

from __future__ import annotations

from pathlib import Path

import torch

from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor

FORMS = (
    "inception[:clean|legacy_tensorflow|legacy_pytorch], dinov2[:vits14|vitb14|vitl14|vitg14"
    "[:dgm|edm2]], classifier:FOLDER, custom:FILE or custom:module:function"
)


def open_extractor(
    text: str,
    device: torch.device,
    batch: int,
    weights: Path | None = None,
    hub: Path | None = None,
    download: bool = False,
) -> Extractor:
    """Open an extractor by its name.

    Args:
        text: one of :data:`FORMS`; what is left out is ``clean``, ``vitl14`` and ``dgm``.
        device: where it runs.
        batch: images a call.
        weights: file of weights, for Inception and DINOv2.
        hub: checkout of the DINOv2 repository.
        download: whether weights and code that are nowhere may be fetched.

    Raises:
        PagodaError: for an unknown name, or whatever is wrong with the network.
    """
    family, _, rest = text.partition(":")
    if family == "inception":
        from pagoda.evaluation.features.inception import open_inception

        return open_inception(rest or "clean", device, batch, weights, download)
    if family == "dinov2":
        from pagoda.evaluation.features.dinov2 import open_dinov2

        network, _, resize = rest.partition(":")
        return open_dinov2(
            network or "vitl14", resize or "dgm", device, batch, weights, hub, download
        )
    if family == "classifier" and rest:
        from pagoda.evaluation.features.classifier import open_classifier

        return open_classifier(Path(rest), device, batch)
    if family == "custom" and rest:
        from pagoda.evaluation.features.custom import open_custom

        return open_custom(rest, device, batch)
    raise PagodaError(f"unknown extractor {text!r}; it is one of {FORMS}")
