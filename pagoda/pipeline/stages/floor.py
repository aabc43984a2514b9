"""What an autoencoder loses of held-out images, in a study's metrics: the floor of its variants."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from pagoda.config import VariantConfig
from pagoda.evaluation.evaluator import evaluate
from pagoda.evaluation.features.base import Extractor
from pagoda.evaluation.features.classifier import NAME
from pagoda.evaluation.reconstruction import AUTOENCODER, Reconstructed, reconstruction_rows
from pagoda.networks.autoencoder import load_autoencoder
from pagoda.pipeline.stages.device import metric_device
from pagoda.pipeline.stages.evaluate import open_evaluators, settings_of, unseen_images
from pagoda.pipeline.stages.made import open_made
from pagoda.rows import Row

_METRICS = ("fd", "precision", "recall")


def floor_rows(
    config: VariantConfig, extractors: Sequence[Extractor], device: torch.device
) -> list[Row]:
    """Distance and diversity of what comes back of held-out images, and errors of the pairs."""
    network, found = open_made(config, "autoencoder").network(load_autoencoder), []
    for resolution in config.resolutions:
        names = {"data": f"data/{resolution}", "reference": f"reference/{resolution}",
                 "features": "features"}  # fmt: skip
        inputs = {name: open_made(config, key) for name, key in names.items()}
        evaluators = [
            dataclasses.replace(e, metrics=tuple(k for k in e.metrics if k in _METRICS))
            for e in open_evaluators(config, resolution, inputs, extractors)
            if e.extractor.name == NAME
        ]
        real = unseen_images(inputs["data"], evaluators[0].reference, config.studies.samples)
        back = Reconstructed(real, network, device, config.evaluate.batch)
        facts = {"resolution": resolution}
        settings = settings_of(config.evaluate, evaluators, {AUTOENCODER: back})
        found += evaluate({AUTOENCODER: back}, evaluators, settings, facts,
                          device=metric_device(device))  # fmt: skip
        found += reconstruction_rows(real, back, evaluators[0].extractor, facts)
    return found
