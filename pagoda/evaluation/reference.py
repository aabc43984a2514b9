"""Statistics of real images that others are compared with, and what they were made of.

A reference says which images (files, crop, size, split, how many) and which features it describes.
Numbers compare only if all of that is equal; :func:`differences` names what is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor
from pagoda.evaluation.metrics.base import Sample
from pagoda.evaluation.metrics.statistics import Moments, check_features, check_statistics

_TEXT, _COUNT = (str, type(None)), (int, type(None))
_CARD: dict[str, tuple[type, ...]] = {
    "images": _TEXT, "recipe": _TEXT, "resolution": _COUNT, "split": _TEXT, "n": _COUNT,
    "extractor": (str,), "extractor_fingerprint": _TEXT, "manifold_n": (int,), "identity": (str,),
}  # fmt: skip
_IDENTITY = ("images", "recipe", "resolution", "split", "n", "extractor", "extractor_fingerprint")


def checked(where: str, mean: np.ndarray, covariance: np.ndarray) -> Moments:
    """Statistics that come from outside, of an unknown number of images.

    Raises:
        PagodaError: if they are impossible: :func:`.statistics.check_statistics`.
    """
    return Moments(0, *check_statistics(mean, covariance, where))


@dataclass(frozen=True, kw_only=True)
class Reference(Sample):
    """Real images that others are compared with.

    Attributes:
        card: what it describes, keys of :func:`reference_card`; None stands for unknown.
    """

    card: Mapping[str, Any]


def reference_of(
    where: str,
    card: Mapping[str, Any],
    moments: Moments,
    spatial: Moments | None = None,
    features: np.ndarray | None = None,
    fingerprint: str = "",
) -> Reference:
    """A reference of its parts; the fingerprint is the card's identity if there is no other."""
    return Reference(
        where=where, extractor=card["extractor"], n=card["n"], moments=moments, spatial=spatial,
        features=np.empty((0, moments.mean.size), np.float32) if features is None else features,
        split=card["split"], fingerprint=fingerprint or card["identity"], card=card,
    )  # fmt: skip


def reference_card(
    extractor: Extractor, manifold_n: int, exif: bool = False, **images: str | int | None
) -> dict[str, Any]:
    """What a reference describes, and ``identity``, a SHA-256 over it.

    Args:
        extractor: of the features; its fingerprint covers weights, resize and normalisation.
        manifold_n: images whose features are kept.
        exif: whether images were turned as their EXIF orientation says; said where they were.
        images: ``images`` (SHA-256 of the list of files, or of the artifact that holds them),
            ``recipe`` of cutting, ``resolution``, ``split`` and ``n``; None stands for unknown.
    """
    card = {key: images[key] for key in _IDENTITY[:5]}
    card |= {"extractor": extractor.name, "extractor_fingerprint": extractor.fingerprint}
    card |= {"exif": True} if exif else {}
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


def from_sample(where: str, sample: Sample, card: Mapping[str, Any]) -> Reference:
    """A reference that was just measured."""
    plain = replace(sample.moments, factor=None)
    spatial = None if sample.spatial is None else replace(sample.spatial, factor=None)
    return reference_of(where, card, plain, spatial, sample.features)


def write_reference(
    path: Path,
    sample: Sample,
    card: Mapping[str, Any],
    config: Mapping[str, Any],
    inputs: Mapping[str, Artifact] | None = None,
) -> None:
    """Write a ``reference`` artifact; an older one there is replaced.

    Raises:
        PagodaError: if anything else is there, or it cannot be written; nothing is left behind.
    """
    with artifacts.create(path, "reference", config=config, inputs=inputs) as out:
        np.save(out / "mean.npy", sample.moments.mean)
        np.save(out / "covariance.npy", sample.moments.covariance)
        np.save(out / "manifold.npy", sample.features)
        if sample.spatial is not None:
            np.save(out / "spatial_mean.npy", sample.spatial.mean)
            np.save(out / "spatial_covariance.npy", sample.spatial.covariance)
        artifacts.write_json(out / "card.json", card)


def from_artifact(artifact: Artifact) -> Reference:
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
        arrays = (artifact.array(f"spatial_{name}") for name in ("mean", "covariance"))
        spatial = checked(f"{where} (spatial)", *arrays)
    pooled = checked(where, artifact.array("mean"), artifact.array("covariance"))
    if len(manifold):
        manifold = check_features(manifold, f"the features of {where}")
    if manifold.shape[1] != pooled.mean.size:
        raise PagodaError(
            f"{where}: features of {manifold.shape[1]} and statistics of {pooled.mean.size} "
            "dimensions do not belong together; make it again"
        )
    return reference_of(where, card, pooled, spatial, manifold, artifact.fingerprint)


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
    if reference.moments.mean.size != extractor.dim:
        raise PagodaError(
            f"{reference.where} describes {reference.moments.mean.size}-d features, "
            f"{extractor.name} gives {extractor.dim}-d ones; use one feature network"
        )
