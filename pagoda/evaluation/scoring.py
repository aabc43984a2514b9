"""Features of generated images and a reference -> rows of values, each named by its protocol.

The one place where measured values get their names. Only Inception's features make a number that
is called FID, sFID, KID or Inception Score, and only CLIP's one that is called CMMD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.fd_infinity import extrapolation_sizes, frechet_infinity
from pagoda.evaluation.metrics.frechet import frechet_distance
from pagoda.evaluation.metrics.inception_score import inception_score, probabilities_of
from pagoda.evaluation.metrics.intervals import (
    GROUPS,
    Interval,
    frechet_influence,
    jackknife_interval,
    leave_groups_out,
    mean_interval,
    share_interval,
)
from pagoda.evaluation.metrics.kid import kernel_distance_of_subsets
from pagoda.evaluation.metrics.memorisation import train_share
from pagoda.evaluation.metrics.mmd import gaussian_mmd
from pagoda.evaluation.metrics.precision_recall import ManifoldValues, manifold_values
from pagoda.evaluation.metrics.protocol import protocol
from pagoda.evaluation.metrics.statistics import Moments
from pagoda.evaluation.reference import Reference, Statistics
from pagoda.evaluation.results import Value
from pagoda.evaluation.settings import Settings
from pagoda.evaluation.streaming import Collected, Wanted

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
        return _is_inception(self.extractor)

    @property
    def clip(self) -> bool:
        """Whether the features are CLIP's, which a custom extractor may give: by its name."""
        return is_clip(self.extractor)

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
    device: str | None

    @property
    def n(self) -> int:
        return self.sample.found.n

    @cached_property
    def manifold(self) -> ManifoldValues:
        real, k = self.reference.real, self.settings.neighbours
        radii = self.reference.radii(self.device)
        return manifold_values(real, self.sample.found.features, k, radii, self.device)

    @cached_property
    def manifold_left_out(self) -> dict[str, np.ndarray]:
        """Recall and coverage without one group of generated images at a time."""
        real, k, radii = self.reference.real, self.settings.neighbours, self.reference.radii
        features = self.sample.found.features

        def both(kept: np.ndarray) -> np.ndarray:
            part = manifold_values(real, features[kept], k, radii(self.device), self.device)
            return np.array([part.recalled.mean(), part.covered.mean()])

        return dict(zip(("recall", "coverage"), leave_groups_out(both, self.n).T, strict=True))

    @cached_property
    def correct(self) -> np.ndarray:
        """(n,) whether the class of each image is the one it was asked to be."""
        if self.sample.labels is None:
            raise PagodaError("class accuracy needs the class of every image; leave it out")
        return _logits(self).argmax(axis=1) == self.sample.labels

    def named(self, inception: str, other: str, **settings: int) -> str:
        """Protocol of a metric that has a name of its own with Inception's features."""
        sample = self.sample
        if sample.inception:
            return protocol(inception, sample.short, self.n, **settings)
        return protocol(other, sample.extractor, self.n, **settings)


def _frechet(s: _Scored) -> Value:
    value = _distance(s.reference.pooled, s.sample.found.moments)
    metric = "fid" if s.sample.inception else "fd"
    return Value(metric, s.named("fid", "fd"), value, s.reference.n)


def _spatial_frechet(s: _Scored) -> Value:
    if s.sample.found.spatial is None:
        raise PagodaError(f"{s.sample.extractor} gives no spatial features, which sFID needs")
    value = _distance(_spatial(s.reference), s.sample.found.spatial)
    return Value("sfid", s.named("sfid", "sfd"), value, s.reference.n)


def _distance(real: Statistics, found: Moments) -> float:
    return frechet_distance(
        real.mean, real.covariance, found.mean, found.covariance, real.factor, factor2=found.factor
    )


def _extrapolated(s: _Scored) -> Value:
    real = s.reference.pooled
    moments = Moments(s.reference.n or 0, real.mean, real.covariance)
    value = frechet_infinity(moments, s.sample.found.features, _POINTS, factor=real.factor).value
    metric = "fid_inf" if s.sample.inception else "fd_inf"
    return Value(metric, s.named("fid_inf", "fd_inf", p=_POINTS), value, s.reference.n)


def _mmd(s: _Scored) -> Value:
    """As cmmd-pytorch: V-statistic, times 1000; CLIP's features at unit length."""
    metric, width = "cmmd" if s.sample.clip else "mmd", s.settings.mmd_width
    real, found = s.reference.real, s.sample.found.features
    if s.sample.clip:
        real, found = (
            f / np.linalg.norm(f.astype(np.float64), axis=1, keepdims=True) for f in (real, found)
        )
    value = gaussian_mmd(real, found, width, device=s.device)
    return Value(metric, protocol(metric, s.sample.extractor, s.n, w=width), value, len(real))


def _kernel(s: _Scored) -> Value:
    real, settings = s.reference.real, s.settings
    count, size = settings.subsets, settings.subset_size
    found = s.sample.found.features
    value, sd = kernel_distance_of_subsets(real, found, count, size, device=s.device)
    metric = "kid" if s.sample.inception else "kd"
    return Value(
        metric, s.named("kid", "kd", s=count, m=size), value, len(real), sd if count > 1 else None
    )


def _score(s: _Scored) -> Value:
    return _classifier_score(s, ("is", "score"), s.settings.splits, _SHUFFLE_SEED)


def _score_adm(s: _Scored) -> Value:
    """As ADM's evaluator: parts of 5,000 in the order of the images."""
    return _classifier_score(s, ("is_adm", "score_adm"), max(1, s.n // _ADM_SPLIT), None)


def _classifier_score(
    s: _Scored, names: tuple[str, str], splits: int, shuffle_seed: int | None
) -> Value:
    value, sd = inception_score(probabilities_of(_logits(s)), splits, shuffle_seed)
    metric = "inception_score" if s.sample.inception else "classifier_score"
    spread = sd if splits > 1 else None
    return Value(metric, s.named(*names, s=splits), value, s.reference.n, spread)


def _accuracy(s: _Scored) -> Value:
    value = float(np.mean(s.correct))
    return Value("class_accuracy", s.named("accuracy", "accuracy"), value, s.reference.n)


def _manifold_metric(name: str) -> Callable[[_Scored], Value]:
    def metric(s: _Scored) -> Value:
        value = getattr(s.manifold.scores(), name)
        named = protocol(name, s.sample.extractor, s.n, k=s.settings.neighbours)
        return Value(name, named, value, len(s.reference.real))

    return metric


_MANIFOLD = ("precision", "recall", "density", "coverage")
_METRICS: dict[str, Callable[[_Scored], Value]] = {
    "fd": _frechet,
    "sfd": _spatial_frechet,
    "fd_inf": _extrapolated,
    "kd": _kernel,
    "mmd": _mmd,
    "score": _score,
    "score_adm": _score_adm,
    **{name: _manifold_metric(name) for name in _MANIFOLD},
    "accuracy": _accuracy,
}
_ALIASES = {
    "fid": "fd", "sfid": "sfd", "fid_inf": "fd_inf", "kid": "kd", "is": "score",
    "is_adm": "score_adm", "cmmd": "mmd",
}  # fmt: skip
_NEED_REAL, _NEED_LOGITS = {"kd", "mmd", *_MANIFOLD}, {"score", "score_adm", "accuracy"}
_NEED_FEATURES = {"fd_inf", *_NEED_REAL}
_POINTS = 15  # sizes of the extrapolation
LARGER_IS_BETTER = {
    "inception_score", "classifier_score", "class_accuracy", "precision", "recall", "density",
    "coverage",
}  # fmt: skip


def is_clip(extractor: str) -> bool:
    """Whether an extractor's name says CLIP, as ``custom_clip_vitl14_336`` does."""
    return "clip" in extractor.lower().split("_")


def _is_inception(extractor: str) -> bool:
    return extractor.startswith("inception_")


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
        owner, may = ("CLIP", is_clip) if name == "cmmd" else ("Inception", _is_inception)
        if name in _ALIASES and not may(extractor):
            raise PagodaError(
                f"--metrics {name} is a name for {owner}'s features only; with {extractor} it "
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


def wanted(metrics: Iterable[str], intervals: bool = False) -> Wanted:
    """What a pass over generated images must keep for these metrics."""
    names = set(metrics)
    keep = names & _NEED_FEATURES or (intervals and "fd" in names)
    features = None if keep else np.empty(0, np.int64)
    return Wanted("sfd" in names, bool(names & _NEED_LOGITS), features)


def needs_real(metrics: Iterable[str]) -> bool:
    """Whether a metric needs features of real images, beyond their mean and covariance."""
    return bool(set(metrics) & _NEED_REAL)


def check_enough(
    n: int, reference: Reference, metrics: Iterable[str], settings: Settings, classes: int | None
) -> None:
    """Fail before the images are passed over where a metric cannot be computed after.

    Raises:
        PagodaError: one line: too few images, or a reference or network without what it needs.
    """
    names = set(metrics)
    if "fd_inf" in names:
        extrapolation_sizes(n, _POINTS)
    if names & _NEED_REAL:
        have, k = min(n, len(reference.real)), settings.neighbours
        if names & set(_MANIFOLD) and not 1 <= k < have:
            raise PagodaError(f"{have} images have no {k} neighbours; use more, or smaller -k")
        if "kd" in names and (settings.subsets < 1 or not 2 <= settings.subset_size <= have):
            raise PagodaError(
                f"{settings.subsets} subsets of {settings.subset_size} cannot be drawn from {have} "
                "images; change --kid-subset-size, which changes the protocol"
            )
    if "score" in names and not 1 <= settings.splits <= n:
        raise PagodaError(f"{n} images cannot fill {settings.splits} splits; change --splits")
    if names & _NEED_LOGITS and classes is None:
        raise PagodaError("the features come without class logits, which the score needs")
    if "sfd" in names:
        _spatial(reference)


def score(
    sample: Sample,
    reference: Reference,
    metrics: Iterable[str],
    settings: Settings,
    intervals: bool = False,
    device: str | None = None,
) -> list[dict[str, Any]]:
    """All metrics of one pass: metric, protocol, value, n and n of the reference.

    A mean over subsets or splits has ``sd``, its standard deviation over them (:class:`Value`).
    With ``intervals`` also ``low``, ``high`` and ``interval``, which names how they were found;
    all three are None for a metric, or a number of images, that has none. On a ``device`` torch
    makes the distances between points; the Frechet distance is made here, in float64.
    """
    scored = _Scored(sample, reference, settings, device)
    rows = []
    for name in metrics:
        found = asdict(_METRICS[name](scored)) | {"n": sample.found.n}
        row = {key: value for key, value in found.items() if key != "sd" or value is not None}
        rows.append(row | (_interval(scored, name, row["value"]) if intervals else {}))
    return rows


def _interval(s: _Scored, name: str, value: float) -> dict[str, Any]:
    """Over other generated images, the reference as it is: :mod:`.metrics.intervals`."""
    features = s.sample.found.features
    found: Interval | None = None
    method = ""
    if name == "precision":
        found, method = share_interval(s.manifold.inside > 0), "wilson"
    elif name == "accuracy":
        found, method = share_interval(s.correct), "wilson"
    elif name == "density":
        found, method = mean_interval(s.manifold.inside / s.manifold.neighbours), "student"
    elif name in ("recall", "coverage") and _can_leave_out(s):
        found, method = jackknife_interval(value, s.manifold_left_out[name]), "jackknife"
    elif name == "fd" and len(features) > features.shape[1]:
        real = s.reference.pooled
        moments = Moments(s.reference.n or 0, real.mean, real.covariance)
        moved = mean_interval(frechet_influence(moments, features))
        found = Interval(value, value + moved.low, value + moved.high, moved.level)
        method = "influence"
    if found is None:
        return {"low": None, "high": None, "interval": None}
    return {"low": found.low, "high": found.high, "interval": f"{method}_{found.level * 100:g}"}


def _can_leave_out(s: _Scored) -> bool:
    """Whether k neighbours are left when a group of images is not there."""
    return s.n >= 2 * GROUPS and s.n - -(-s.n // GROUPS) > s.settings.neighbours


def train_share_row(
    sample: Sample, reference: Reference, real: Sample, device: str | None = None
) -> dict[str, Any]:
    """The share of :mod:`pagoda.evaluation.metrics.memorisation`, as :func:`score` gives rows.

    Args:
        sample: generated images.
        reference: real images of one split, training or test.
        real: real images of the other split.
        device: as of :func:`score`.
    """
    train, held_out = reference.real, real.found.features
    if reference.card["split"] == "test":
        train, held_out = held_out, train
    found = train_share(sample.found.features, train, held_out, device=device)
    named = protocol("train_share", sample.extractor, found.n, m=found.real)
    return {
        "metric": "train_share", "protocol": named, "value": found.value,
        "reference_n": found.real, "n": found.n,
    }  # fmt: skip


def other_split_row(
    sample: Sample, reference: Reference, real: Statistics, n: int
) -> dict[str, Any]:
    """The Frechet distance to real images of the split that the reference does not describe.

    With a reference of training images: to held-out ones, ``fd_test``. It is larger than the
    distance to training images where those were memorised, and a little where ``m``, the number
    of real images, is smaller.

    Args:
        sample: generated images.
        reference: real images of one split, training or test.
        real: of ``n`` real images of the other split.
        n: their number.
    """
    split = "train" if reference.card["split"] == "test" else "test"
    value = _distance(real, sample.found.moments)
    metric = f"fid_{split}" if sample.inception else f"fd_{split}"
    features = sample.short if sample.inception else sample.extractor
    return {
        "metric": metric, "protocol": protocol(metric, features, sample.found.n, m=n),
        "value": value, "reference_n": n, "n": sample.found.n,
    }  # fmt: skip


def _spatial(reference: Reference) -> Statistics:
    if reference.spatial is None:
        raise PagodaError(
            f"{reference.where} has no statistics of spatial features, which sFID needs; make "
            "the reference with --spatial"
        )
    return reference.spatial


def _logits(s: _Scored) -> np.ndarray:
    if s.sample.found.logits is None:
        raise PagodaError(f"{s.sample.extractor} gives no class logits, which the score needs")
    return s.sample.found.logits
