"""The contract of a feature extractor: uint8 RGB images in, named features out.

A family of networks is one file of this package, which holds ``FAMILY``, a :class:`Family`: names
on the command line and in ``reference.extractors``, their checks and counts follow from it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pagoda.calls import calls_of
from pagoda.errors import PagodaError
from pagoda.evaluation import features as package

A = TypeVar("A", Tensor, np.ndarray)


class Features(NamedTuple, Generic[A]):
    """What a network says of n images: tensors on any device, or float32 arrays.

    ``pooled`` (n, d); ``spatial`` (n, s), a flattened feature map, None where not asked for or not
    there; ``logits`` (n, classes), None for a network without classes.
    """

    pooled: A
    spatial: A | None = None
    logits: A | None = None


Forward = Callable[[np.ndarray, bool], Features[Tensor]]
"""uint8 images (n, 3, h, w) and whether spatial features are wanted -> features of n rows."""


@dataclass(frozen=True)
class Extractor:
    """A feature network with its preprocessing.

    The network is always called with ``batch`` images (:func:`pagoda.calls.calls_of`), so an
    image's features have the same bits wherever it stands, however many images there are and
    however they are cut into calls. Another value of ``batch`` changes features in their last
    digits only: by less than 1e-5 of their largest value for the networks of the tests.

    Attributes:
        name: part of the protocol's name, e.g. ``inception_clean``. Everything that changes the
            features by design is in it.
        family: the name of the file that opens it, e.g. ``inception``.
        dim: of the pooled features.
        spatial_dim: of the spatial features; None if the network has none.
        classes: number of logits; None if the network has none.
        card: JSON-able facts: weights and their SHA-256, resize, normalisation.
        fingerprint: SHA-256 that says whether two sets of features compare.
        forward: the preprocessing and the network.
        batch: images a call of the network.
        labels: names of the logits' classes; empty if they are not known.
        columns: the logit of each class of the images at hand; None where none is known to be.
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
    labels: tuple[str, ...] = ()
    columns: tuple[int, ...] | None = None

    def among(self, classes: Sequence[str]) -> Self:
        """The same for images of these classes, which it tells apart if it knows them all."""
        at = {name: column for column, name in enumerate(self.labels)}
        known = set(classes) <= set(at)
        return replace(self, columns=tuple(at[c] for c in classes)) if known else self

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
        for rows, n in calls_of(np.arange(len(images)), self.batch):
            out = self.forward(images[rows], spatial)
            for into, tensor in ((pooled, out.pooled), (maps, out.spatial), (logits, out.logits)):
                if into is not None and tensor is not None:
                    into[rows[:n]] = tensor[:n].float().cpu().numpy()
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


@dataclass(frozen=True)
class Asked:
    """What :func:`open_extractor` is asked for; ``name`` is what follows the family's name."""

    name: str
    device: torch.device
    batch: int
    weights: Path | None = None
    hub: Path | None = None
    download: bool = False


@dataclass(frozen=True)
class Family:
    """A family of feature networks.

    Attributes:
        form: how its networks are named, e.g. ``custom:FILE``; what is in brackets may be left out.
        open: opens one; raises :class:`PagodaError` for an unknown name, or weights that are
            missing or damaged.
        check: raises :class:`PagodaError` for an unknown name.
        backbone: timm's name of a network, so that training does not see it, too; empty if none.
        untrained: makes a network without weights, to be counted, and the side of its images; None
            if it is not known here.
    """

    form: str
    open: Callable[[Asked], Extractor]
    check: Callable[[str], None] = lambda name: None
    backbone: Callable[[str], str] = lambda name: ""
    untrained: Callable[[str], tuple[Callable[[], nn.Module], int] | None] = lambda name: None


@cache
def families() -> dict[str, Family]:
    """All families by the name of their file."""
    modules = {info.name: importlib.import_module(f"{package.__name__}.{info.name}")
               for info in pkgutil.iter_modules(package.__path__)}  # fmt: skip
    return {name: module.FAMILY for name, module in modules.items() if hasattr(module, "FAMILY")}


def find_family(text: str) -> tuple[Family, str]:
    """The family that ``text`` names first, and the name within it.

    Raises:
        PagodaError: for an unknown family, or nothing after one that needs it.
    """
    first, _, name = text.partition(":")
    family = families().get(first)
    if family is None or (not name and family.form.startswith(f"{first}:")):
        forms = ", ".join(known.form for known in families().values())
        raise PagodaError(f"unknown extractor {text!r}; it is one of {forms}")
    return family, name


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
        text: family and name, in the family's form.
        device: where it runs.
        batch: images a call.
        weights: file of weights of Inception or DINOv2, or a folder that holds it.
        hub: checkout of the DINOv2 repository.
        download: whether missing weights and code may be fetched.

    Raises:
        PagodaError: for an unknown name, or whatever is wrong with the network.
    """
    family, name = find_family(text)
    return family.open(Asked(name, device, batch, weights, hub, download))
