"""Statistics of real images that others are held against, with what they were made of.

A reference says which images (files, crop, size, split, how many) and which features it describes.
Numbers compare only if all of that is equal; :func:`differences` names what is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor
from pagoda.evaluation.metrics.frechet import covariance_factor
from pagoda.evaluation.metrics.precision_recall import squared_radii
from pagoda.evaluation.metrics.statistics import check_features, check_statistics
from pagoda.evaluation.streaming import Collected

SPATIAL = ("spatial_mean", "spatial_covariance")
_TEXT, _COUNT = (str, type(None)), (int, type(None))
_CARD: dict[str, tuple[type, ...]] = {
    "images": _TEXT, "recipe": _TEXT, "resolution": _COUNT, "split": _TEXT, "n": _COUNT,
    "extractor": (str,), "extractor_fingerprint": _TEXT, "manifold_n": (int,), "identity": (str,),
}  # fmt: skip
_IDENTITY = ("images", "recipe", "resolution", "split", "n", "extractor", "extractor_fingerprint")


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of features, with the covariance's factor computed once."""

    mean: np.ndarray
    covariance: np.ndarray

    @cached_property
    def factor(self) -> np.ndarray:
        """Of the covariance, see :func:`pagoda.evaluation.metrics.frechet.covariance_factor`."""
        return covariance_factor(self.covariance)


def checked(where: str, mean: np.ndarray, covariance: np.ndarray) -> Statistics:
    """Statistics that come from outside.

    Raises:
        PagodaError: if they are impossible: :func:`.statistics.check_statistics`.
    """
    return Statistics(*check_statistics(mean, covariance, where))


@dataclass(frozen=True)
class Reference:
    """Statistics of real images.

    Attributes:
        where: what messages call it.
        pooled: statistics of the pooled features.
        spatial: of the spatial features, None if it has none.
        manifold: (k, d) features of real images, None if it has none.
        neighbours: k of the manifold's radii.
        card: what it describes, keys of ``reference_card``; None stands for unknown.
        fingerprint: of the content.
    """

    where: str
    pooled: Statistics
    spatial: Statistics | None
    manifold: np.ndarray | None
    neighbours: int
    card: Mapping[str, Any]
    fingerprint: str

    @property
    def n(self) -> int | None:
        """Number of images, None if the file does not say."""
        return self.card["n"]

    @property
    def real(self) -> np.ndarray:
        """The features of real images.

        Raises:
            PagodaError: if the reference keeps none.
        """
        if self.manifold is None:
            raise PagodaError(
                f"{self.where} keeps no features of real images, which precision, recall and "
                "kernel distances need; make a reference from the images with 'pagoda reference'"
            )
        return self.manifold

    def radii(self, device: str | None = None) -> np.ndarray:
        """Squared radii of the manifold, made once; by torch on ``device``, None for numpy.

        Raises:
            PagodaError: if the reference keeps no features.
        """
        if not self._radii:  # the same bits on every device
            self._radii.append(squared_radii(self.real, self.neighbours, device))
        return self._radii[0]

    @cached_property
    def _radii(self) -> list[np.ndarray]:
        return []


def reference_card(
    extractor: Extractor,
    *,
    images: str | None,
    recipe: str | None,
    resolution: int | None,
    split: str | None,
    n: int | None,
    manifold_n: int,
    exif: bool = False,
) -> dict[str, Any]:
    """What a reference describes, and ``identity``, a SHA-256 over it.

    Args:
        extractor: of the features; its fingerprint covers weights, resize and normalisation.
        images: SHA-256 of the list of files, or of the artifact that holds the images.
        recipe: how images were cut; None if unknown.
        resolution: side of the images; None if unknown.
        split: of the source; None if it has none.
        n: number of images; None if unknown.
        manifold_n: images whose features are kept.
        exif: whether images were turned as their EXIF orientation says; said where they were.
    """
    card = {
        "images": images, "recipe": recipe, "resolution": resolution, "split": split, "n": n,
        "extractor": extractor.name, "extractor_fingerprint": extractor.fingerprint,
    } | ({"exif": True} if exif else {})  # fmt: skip
    return card | {"manifold_n": manifold_n, "identity": artifacts.digest(card)}


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """What differs between two cards, ``n 50000 and 10000, split train and test``; '' if nothing.

    What one of them does not know is passed over.
    """
    parts = []
    for key in _IDENTITY:
        a, b = first.get(key), second.get(key)
        if a is not None and b is not None and a != b:
            a, b = (str(v)[:10] if len(str(v)) == 64 else v for v in (a, b))
            parts.append(f"{key.replace('_', ' ')} {a} and {b}")
    return ", ".join(parts)


def from_collected(
    where: str, found: Collected, card: Mapping[str, Any], neighbours: int
) -> Reference:
    """A reference that was just measured; its fingerprint is the card's."""
    spatial = found.spatial
    return Reference(
        where, Statistics(found.moments.mean, found.moments.covariance),
        None if spatial is None else Statistics(spatial.mean, spatial.covariance),
        found.features if len(found.features) else None, neighbours, card, card["identity"],
    )  # fmt: skip


def write_reference(
    path: Path,
    found: Collected,
    card: Mapping[str, Any],
    config: Mapping[str, Any],
    inputs: Mapping[str, Artifact] | None = None,
) -> None:
    """Write a ``reference`` artifact; an older one there is replaced.

    Raises:
        PagodaError: if anything else is there, or it cannot be written; nothing is left behind.
    """
    with artifacts.create(path, "reference", config=config, inputs=inputs) as out:
        np.save(out / "mean.npy", found.moments.mean)
        np.save(out / "covariance.npy", found.moments.covariance)
        np.save(out / "manifold.npy", found.features)
        if found.spatial is not None:
            for name, array in zip(
                SPATIAL, (found.spatial.mean, found.spatial.covariance), strict=True
            ):
                np.save(out / f"{name}.npy", array)
        artifacts.write_json(out / "card.json", card)


def from_artifact(artifact: Artifact, neighbours: int) -> Reference:
    """A ``reference`` artifact.

    Raises:
        PagodaError: if its card lacks something, its statistics are impossible, or its parts do not
            belong together.
    """
    where, spatial, manifold = str(artifact.path), None, artifact.array("manifold")
    card = artifact.card()
    for key, types in _CARD.items():
        if not isinstance(card.get(key, ...), types):
            raise PagodaError(f"{where}: card.json has no sound {key!r}; make it again")
    if "spatial_mean.npy" in artifact.manifest["files"]:
        spatial = checked(f"{where} (spatial)", *(artifact.array(name) for name in SPATIAL))
    pooled = checked(where, artifact.array("mean"), artifact.array("covariance"))
    if len(manifold):
        manifold = check_features(manifold, f"the features of {where}")
    if manifold.shape[1] != pooled.mean.size:
        raise PagodaError(
            f"{where}: features of {manifold.shape[1]} and statistics of {pooled.mean.size} "
            "dimensions do not belong together; make it again"
        )
    return Reference(
        where, pooled, spatial, manifold if len(manifold) else None, neighbours, card,
        artifact.fingerprint,
    )  # fmt: skip


def check_extractor(reference: Reference, extractor: Extractor) -> None:
    """Refuse a reference of other features.

    Raises:
        PagodaError: one line: what differs.
    """
    theirs = reference.card
    mine = {"extractor": extractor.name, "extractor_fingerprint": extractor.fingerprint}
    if found := differences(theirs, mine):
        raise PagodaError(
            f"{reference.where} and --extractor do not compare: {found}; use the extractor that "
            "the reference was made with, or make a reference with this one"
        )
    if reference.pooled.mean.size != extractor.dim:
        raise PagodaError(
            f"{reference.where} describes {reference.pooled.mean.size}-d features, "
            f"{extractor.name} gives {extractor.dim}-d ones; use one feature network"
        )
