"""Features of generated images and a reference -> rows of values, each named by its protocol.

The one place where measured values get their names. Only Inception's features make a number that
is called FID, sFID, KID or Inception Score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.reference import Reference, Statistics
from pagoda.evaluation.settings import Settings
from pagoda.evaluation.streaming import Collected, Wanted
from pagoda.metrics.frechet import frechet_distance
from pagoda.metrics.inception_score import inception_score, probabilities_of
from pagoda.metrics.kid import kernel_distance_of_subsets
from pagoda.metrics.memorisation import train_share
from pagoda.metrics.precision_recall import ManifoldScores, manifold_scores
from pagoda.metrics.protocol import protocol
from pagoda.metrics.statistics import Moments

_SHUFFLE_SEED = 2020  # of the score's splits; sources may be sorted by class
_ADM_SPLIT = 5000  # images a split of the score in ADM's evaluator


@dataclass(frozen=True)
class Sample:
    """Generated images to be scored.

    Attributes:
        extractor: name of the features.
        found: what a pass over them collected.
        labels: (n,) the class each image was asked to be, None if nobody knows.
    """

    extractor: str
    found: Collected
    labels: np.ndarray | None = None

    @property
    def inception(self) -> bool:
        """Whether the features are Inception's."""
        return self.extractor.startswith("inception_")

    @property
    def short(self) -> str:
        """The features in names that say Inception already: its mode."""
        return self.extractor.removeprefix("inception_")


@dataclass(frozen=True)
class _Scored:
    """A sample against a reference; what several metrics share is computed once."""

    sample: Sample
    reference: Reference
    settings: Settings

    @property
    def n(self) -> int:
        return self.sample.found.n

    @cached_property
    def manifold(self) -> ManifoldScores:
        real, k = _manifold(self.reference), self.settings.neighbours
        return manifold_scores(real, self.sample.found.features, k, self.reference.radii)

    def named(self, inception: str, other: str, **settings: int) -> str:
        """Protocol of a metric that has a name of its own with Inception's features."""
        sample = self.sample
        if sample.inception:
            return protocol(inception, sample.short, self.n, **settings)
        return protocol(other, sample.extractor, self.n, **settings)


Value = tuple[str, str, float, int | None]
"""Metric, protocol, value, number of reference images."""


def _frechet(s: _Scored) -> Value:
    value = _distance(s.reference.pooled, s.sample.found.moments)
    metric = "fid" if s.sample.inception else "fd"
    return metric, s.named("fid", "fd"), value, s.reference.n


def _spatial_frechet(s: _Scored) -> Value:
    if s.reference.spatial is None or s.sample.found.spatial is None:
        raise PagodaError(
            f"{s.reference.where} has no statistics of spatial features, which sFID needs; make "
            "the reference with --spatial"
        )
    value = _distance(s.reference.spatial, s.sample.found.spatial)
    return "sfid", s.named("sfid", "sfd"), value, s.reference.n


def _distance(real: Statistics, found: Moments) -> float:
    return frechet_distance(real.mean, real.covariance, found.mean, found.covariance, real.factor)


def _kernel(s: _Scored) -> Value:
    real, settings = _manifold(s.reference), s.settings
    count, size = settings.subsets, settings.subset_size
    value, _ = kernel_distance_of_subsets(real, s.sample.found.features, count, size)
    metric = "kid" if s.sample.inception else "kd"
    return metric, s.named("kid", "kd", s=count, m=size), value, len(real)


def _score(s: _Scored) -> Value:
    splits = s.settings.splits
    value, _ = inception_score(probabilities_of(_logits(s)), splits, _SHUFFLE_SEED)
    metric = "inception_score" if s.sample.inception else "classifier_score"
    return metric, s.named("is", "score", s=splits), value, s.reference.n


def _score_adm(s: _Scored) -> Value:
    """As ADM's evaluator: parts of 5,000 in the order of the images."""
    splits = max(1, s.n // _ADM_SPLIT)
    value, _ = inception_score(probabilities_of(_logits(s)), splits)
    metric = "inception_score" if s.sample.inception else "classifier_score"
    return metric, s.named("is_adm", "score_adm", s=splits), value, s.reference.n


def _accuracy(s: _Scored) -> Value:
    if s.sample.labels is None:
        raise PagodaError("class accuracy needs the class of every image; leave it out")
    value = float(np.mean(_logits(s).argmax(axis=1) == s.sample.labels))
    return "class_accuracy", s.named("accuracy", "accuracy"), value, s.reference.n


def _manifold_metric(name: str) -> Callable[[_Scored], Value]:
    def metric(s: _Scored) -> Value:
        value = getattr(s.manifold, name)
        named = protocol(name, s.sample.extractor, s.n, k=s.settings.neighbours)
        return name, named, value, len(_manifold(s.reference))

    return metric


_MANIFOLD = ("precision", "recall", "density", "coverage")
_METRICS: dict[str, Callable[[_Scored], Value]] = {
    "fd": _frechet,
    "sfd": _spatial_frechet,
    "kd": _kernel,
    "score": _score,
    "score_adm": _score_adm,
    **{name: _manifold_metric(name) for name in _MANIFOLD},
    "accuracy": _accuracy,
}
_ALIASES = {"fid": "fd", "sfid": "sfd", "kid": "kd", "is": "score", "is_adm": "score_adm"}
_NEED_FEATURES, _NEED_LOGITS = {"kd", *_MANIFOLD}, {"score", "score_adm", "accuracy"}
LARGER_IS_BETTER = {
    "inception_score", "classifier_score", "class_accuracy", "precision", "recall", "density",
    "coverage",
}  # fmt: skip


def metric_names(text: str, extractor: str) -> tuple[str, ...]:
    """``fid,prdc`` -> the metrics to compute, in the order given, each once.

    Args:
        text: names with commas between; ``prdc`` stands for four of them.
        extractor: name of the features.

    Raises:
        PagodaError: for an unknown name, or one that only Inception's features may have.
    """
    names: list[str] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name in _ALIASES and not extractor.startswith("inception_"):
            raise PagodaError(
                f"--metrics {name} is a name for Inception's features only; with {extractor} it "
                f"is called {_ALIASES[name]}"
            )
        parts = _MANIFOLD if name == "prdc" else (_ALIASES.get(name, name),)
        if unknown := [part for part in parts if part not in _METRICS]:
            known = ", ".join([*_ALIASES, "prdc", *_METRICS])
            raise PagodaError(f"--metrics {unknown[0]} is unknown; known: {known}")
        names += [part for part in parts if part not in names]
    if not names:
        raise PagodaError("--metrics names no metric")
    return tuple(names)


def wanted(metrics: Iterable[str]) -> Wanted:
    """What a pass over generated images must keep for these metrics."""
    names = set(metrics)
    features = None if names & _NEED_FEATURES else np.empty(0, np.int64)
    return Wanted("sfd" in names, bool(names & _NEED_LOGITS), features)


def check_enough(
    n: int, reference: Reference, metrics: Iterable[str], settings: Settings, classes: int | None
) -> None:
    """Fail before the images are passed over where a metric cannot be computed after.

    Raises:
        PagodaError: one line: too few images, or a reference or network without what it needs.
    """
    names = set(metrics)
    if names & _NEED_FEATURES:
        have, k = min(n, len(_manifold(reference))), settings.neighbours
        if names & set(_MANIFOLD) and have <= k:
            raise PagodaError(f"{have} images have no {k} neighbours; use more, or smaller -k")
        if "kd" in names and have < settings.subset_size:
            raise PagodaError(
                f"subsets of {settings.subset_size} cannot be drawn from {have} images; lower "
                "--kid-subset-size, which changes the protocol"
            )
    if "score" in names and n < settings.splits:
        raise PagodaError(f"{n} images cannot fill {settings.splits} splits; lower --splits")
    if names & _NEED_LOGITS and classes is None:
        raise PagodaError("the features come without class logits, which the score needs")
    if "sfd" in names and reference.spatial is None:
        raise PagodaError(
            f"{reference.where} has no statistics of spatial features, which sFID needs; make "
            "the reference with --spatial"
        )


def score(
    sample: Sample, reference: Reference, metrics: Iterable[str], settings: Settings
) -> list[dict[str, Any]]:
    """All metrics of one pass: metric, protocol, value, n and n of the reference."""
    scored = _Scored(sample, reference, settings)
    keys = ("metric", "protocol", "value", "reference_n")
    found = (_METRICS[name](scored) for name in metrics)
    return [dict(zip(keys, value, strict=True)) | {"n": sample.found.n} for value in found]


def train_share_row(sample: Sample, reference: Reference, real: Sample) -> dict[str, Any]:
    """The share of :mod:`pagoda.metrics.memorisation`, as :func:`score` gives rows.

    Args:
        sample: generated images.
        reference: real images of one split, training or test.
        real: real images of the other split.
    """
    train, held_out = _manifold(reference), real.found.features
    if reference.card["split"] == "test":
        train, held_out = held_out, train
    found = train_share(sample.found.features, train, held_out)
    named = protocol("train_share", sample.extractor, found.n, m=found.real)
    return {
        "metric": "train_share", "protocol": named, "value": found.value,
        "reference_n": found.real, "n": found.n,
    }  # fmt: skip


def _manifold(reference: Reference) -> np.ndarray:
    if reference.manifold is None:
        raise PagodaError(
            f"{reference.where} keeps no features of real images, which precision, recall and "
            "kernel distances need; make a reference from the images with 'pagoda reference'"
        )
    return reference.manifold


def _logits(s: _Scored) -> np.ndarray:
    if s.sample.found.logits is None:
        raise PagodaError(f"{s.sample.extractor} gives no class logits, which the score needs")
    return s.sample.found.logits
