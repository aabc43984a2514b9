"""Requests to score images by a small network of a module of one's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pagoda.evaluation.metrics.base import Settings
from pagoda.pipeline.stages.score import Features, Request, Source

NET = """
import torch
generator = torch.Generator().manual_seed(0)
matrix = torch.randn(3 * 6 * 6, 12, generator=generator)
head = torch.randn(12, 4, generator=generator)

def embed(images):
    small = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 6)
    features = torch.relu(small.flatten(1) @ matrix)
    return features, features @ head
"""

CUSTOM = Features("custom:scorenet:embed", batch=16)
SMALL = Settings(neighbours=3, splits=2, subsets=5, subset_size=20)


def request(**changes: Any) -> Request:
    plain = Request(Source(Path("made")), CUSTOM, Path("real.zip"), metrics="fd,kd,prdc,score",
                    settings=SMALL, out=Path("out.json"))  # fmt: skip
    return dataclasses.replace(plain, **changes)


def embedded(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import scorenet

    features, logits = scorenet.embed(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    return features.numpy(), logits.numpy()


def values(tree: dict[str, Any] | None) -> dict[str, float]:
    assert tree is not None
    return {row["metric"]: row["value"] for row in tree["rows"]}
