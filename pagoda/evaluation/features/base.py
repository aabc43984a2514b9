"""The contract of a feature extractor: uint8 RGB images in, named features out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from pagoda.errors import PagodaError

A = TypeVar("A", Tensor, np.ndarray)


class Features(NamedTuple, Generic[A]):
    """What a network says of n images: tensors on any device, or float32 arrays.

    ``pooled`` (n, d); ``spatial`` (n, s), a flattened feature map, None where not asked for or not
    there; ``logits`` (n, classes), None for a network without classes.
    """

    pooled: A
    spatial: A | None = None
    logits: A | None = None


FORMS = (
    "inception[:clean|legacy_tensorflow|legacy_pytorch], dinov2[:vits14|vitb14|vitl14|vitg14"
    "[:dgm|edm2]], classifier:FOLDER, custom:FILE or custom:module:function"
)

Forward = Callable[[np.ndarray, bool], Features[Tensor]]
"""uint8 images (n, 3, h, w) and whether spatial features are wanted -> features of n rows."""


@dataclass(frozen=True)
class Extractor:
    """A feature network with its preprocessing.

    The network is always called with ``batch`` images (the last call is padded with black ones),
    because a kernel chosen by batch size may differ in the last bit. So an image's features have
    the same bits wherever it stands, however many images there are and however they are cut into
    calls. Another value of ``batch`` changes features in their last digits only: by less than
    1e-5 of their largest value for the networks of the tests.

    Attributes:
        name: part of the protocol's name, e.g. ``inception_clean``. Everything that changes the
            features by design is in it.
        family: ``inception``, ``dinov2``, ``classifier`` or ``custom``.
        dim: of the pooled features.
        spatial_dim: of the spatial features; None if the network has none.
        classes: number of logits; None if the network has none.
        card: JSON-able facts: weights and their SHA-256, resize, normalisation.
        fingerprint: SHA-256 that says whether two sets of features compare.
        forward: the preprocessing and the network.
        batch: images a call of the network.
    """

    name: str
    family: str
    dim: int
    spatial_dim: int | None
    classes: int | None
    card: Mapping[str, Any]
    fingerprint: str
    forward: Forward
    batch: int

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, spatial: bool = False) -> Features[np.ndarray]:
        """Features of uint8 RGB images (n, 3, h, w), any n, h and w; spatial ones if asked for.

        Raises:
            PagodaError: for anything but uint8 RGB, or if the network has no spatial features.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise PagodaError(
                f"images are {images.dtype} of shape {images.shape}; extractors take uint8 RGB, "
                "(n, 3, height, width)"
            )
        if spatial and self.spatial_dim is None:
            raise PagodaError(f"{self.name} has no spatial features, which sFID needs")
        pooled = np.empty((len(images), self.dim), np.float32)
        maps = np.empty((len(images), self.spatial_dim or 0), np.float32) if spatial else None
        logits = None if self.classes is None else np.empty((len(images), self.classes), np.float32)
        padded = np.zeros((self.batch, *images.shape[1:]), np.uint8)
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            padded[: len(part)] = part
            out = self.forward(padded, spatial)
            rows = slice(start, start + len(part))
            for into, tensor in ((pooled, out.pooled), (maps, out.spatial), (logits, out.logits)):
                if into is not None and tensor is not None:
                    into[rows] = tensor[: len(part)].float().cpu().numpy()
        return Features(pooled, maps, logits)


def sizes(forward: Forward, spatial: bool) -> tuple[int, int | None, int | None]:
    """Dimensions of pooled and spatial features and the number of logits, by trying two images."""
    with torch.inference_mode():
        out = forward(np.zeros((2, 3, 32, 32), np.uint8), spatial)
    found = []
    for rows in (out.pooled, out.spatial, out.logits):
        if rows is not None and (rows.ndim != 2 or len(rows) != 2):
            raise PagodaError(
                f"the network gives {tuple(rows.shape)} for 2 images; it must give (2, dimension)"
            )
        if rows is not None and not bool(rows.isfinite().all()):
            raise PagodaError("the network gives NaN or infinity for black images; get it again")
        found.append(None if rows is None else int(rows.shape[1]))
    return int(out.pooled.shape[1]), found[1], found[2]


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
        weights: file of weights of Inception or DINOv2, or a folder that holds it.
        hub: checkout of the DINOv2 repository.
        download: whether missing weights and code may be fetched.

    Raises:
        PagodaError: for an unknown name, or whatever is wrong with the network.
    """
    family, _, rest = text.partition(":")
    if family == "inception":
        from pagoda.evaluation.features.inception import open_inception

        return open_inception(rest or "clean", device, batch, weights, download)
    if family == "dinov2":
        from pagoda.evaluation.features.dinov2 import open_dinov2

        name, _, resize = rest.partition(":")
        how = name or "vitl14", resize or "dgm"
        return open_dinov2(*how, device, batch, weights, hub, download)
    if family == "classifier" and rest:
        from pagoda.evaluation.features.classifier import open_classifier

        return open_classifier(Path(rest), device, batch)
    if family == "custom" and rest:
        from pagoda.evaluation.features.custom import open_custom

        return open_custom(rest, device, batch)
    raise PagodaError(f"unknown extractor {text!r}; it is one of {FORMS}")
