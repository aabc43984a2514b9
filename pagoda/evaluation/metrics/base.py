"""What a metric is and what it is given. A metric is one file of this package, found by listing it.

A file makes a :class:`Metric` (or a :class:`PairMetric`) at module level and nothing else needs to
know of it: names on the command line, what a pass over images keeps, tables, intervals and which
way is better follow from what it says of itself.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation import metrics as package
from pagoda.extras import part
from pagoda.rows import Row

if TYPE_CHECKING:
    from pagoda.evaluation.metrics.intervals import Interval
    from pagoda.evaluation.metrics.statistics import Moments

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What changes a value besides features and images; each is in the protocol's name.

    ``neighbours``: k of precision, recall, density, coverage. ``splits``: of the Inception Score.
    ``subsets`` and ``subset_size``: of the kernel distance. ``mmd_width``: sigma of the Gaussian
    kernel, in the features' units.
    """

    neighbours: int = 3
    splits: int = 10
    subsets: int = 100
    subset_size: int = 1000
    mmd_width: int = 10


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Images as one feature network sees them: what a pass over them kept.

    Attributes:
        where: what messages call them.
        extractor: name of the features.
        n: number of images; None if unknown, as of published statistics.
        moments: of the pooled features.
        spatial: of the spatial features, None if there are none.
        features: (k, d) float32 of some or all images; k = 0 where none are kept.
        logits: (n, classes) float32, None if there are none.
        labels: (n,) the class that each image was asked to be, None if nobody knows.
        columns: the logit of each class; None: the class's own number.
        split: of real images: ``train`` or ``test``.
        fingerprint: of the images.
    """

    where: str
    extractor: str
    n: int | None
    moments: Moments
    spatial: Moments | None
    features: np.ndarray
    logits: np.ndarray | None = None
    labels: np.ndarray | None = None
    columns: tuple[int, ...] | None = None
    split: str | None = None
    fingerprint: str = ""
    _shared: dict[object, object] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kept(self) -> np.ndarray:
        """The features of single images.

        Raises:
            PagodaError: if none are kept.
        """
        if not len(self.features):
            raise PagodaError(
                f"{self.where} keeps no features of single images, which precision, recall and "
                "kernel distances need: make a reference of real images with 'pagoda reference'; a "
                "metric that asks for those of generated ones has 'features' among its needs"
            )
        return self.features

    def once(self, key: object, make: Callable[[], T]) -> T:
        """``make()``, made once for all comparisons with these images."""
        if key not in self._shared:
            self._shared[key] = make()
        return cast(T, self._shared[key])


@dataclass(frozen=True)
class Comparison:
    """Generated images beside real ones: all that a metric is computed from.

    ``held_out``: real images of the split that the reference does not describe, if there are any.
    ``device``: where torch makes distances between points; None for numpy.
    """

    made: Sample
    real: Sample
    settings: Settings = Settings()
    held_out: Sample | None = None
    device: str | None = None
    _shared: dict[object, object] = field(default_factory=dict, repr=False, compare=False)

    @property
    def n(self) -> int:
        """Number of generated images."""
        return self.made.n or 0

    @property
    def inception(self) -> bool:
        """Whether the features are Inception's."""
        return is_inception(self.made.extractor)

    @property
    def logits(self) -> np.ndarray:
        """(n, classes) of the generated images."""
        if self.made.logits is None:
            raise PagodaError(f"{self.made.extractor} gives no class logits, which it needs")
        return self.made.logits

    @property
    def other(self) -> Sample:
        """Real images of the split that the reference does not describe."""
        if self.held_out is None:
            raise PagodaError("memorisation is measured with real images of a second split")
        return self.held_out

    def once(self, part: Callable[[Comparison], T]) -> T:
        """``part(self)``, made once for all metrics that share it."""
        if part not in self._shared:
            self._shared[part] = part(self)
        return cast(T, self._shared[part])

    def row(
        self,
        metric: str,
        value: float,
        reference_n: int | None,
        *names: str,
        sd: float | None = None,
        **settings: int,
    ) -> Row:
        """The row of a value.

        Args:
            metric: what is measured.
            value: the number.
            reference_n: real images that took part.
            names: first word of the protocol, if it is not the metric's; of two, the first is for
                Inception's features, which are then called by their mode alone.
            sd: deviation over subsets or splits.
            settings: of :func:`protocol`.
        """
        features, name = self.made.extractor, names[-1] if names else metric
        if len(names) == 2 and self.inception:
            features, name = features.removeprefix("inception_"), names[0]
        named = protocol(name, features, self.n, **settings)
        return Row(metric=metric, protocol=named, value=value, n=self.n, reference_n=reference_n,
                   sd=sd)  # fmt: skip


_NEEDS = ("features", "real", "spatial", "logits", "labels", "held_out")


@dataclass(frozen=True)
class Metric:
    """A number from generated and real images in the features of one network.

    Attributes:
        key: what ``--metrics`` calls it.
        labels: by each name that its rows may have, what tables call it.
        measure: makes the row.
        needs: of ``features`` (of single generated images), ``real`` (of single real ones),
            ``spatial``, ``logits``, ``labels`` and ``held_out`` (the split that the reference does
            not describe).
        better: ``lower``, ``higher``, or empty where neither is.
        alias: its name with the features of ``owner``, and only with these.
        owner: ``Inception`` or ``CLIP``.
        group: a name that stands for several metrics.
        pipeline: family of networks in whose features the pipeline measures it, or ``any``; empty
            if only on request.
        place: among the columns of a table.
        check: is told the images, the reference and the settings, and raises where these cannot do.
        interval: over other generated images, the reference as it is; None where there is none.
        interval_needs: what it needs beyond ``needs``.
    """

    key: str
    labels: Mapping[str, str]
    measure: Callable[[Comparison], Row]
    needs: Collection[str] = ()
    better: str = "lower"
    alias: str = ""
    owner: str = "Inception"
    group: str = ""
    pipeline: str = ""
    place: int = 100
    check: Callable[[int, Sample, Settings], None] = lambda n, real, settings: None
    interval: Callable[[Comparison, float], Interval | None] = lambda comparison, value: None
    interval_needs: Collection[str] = ()

    def __post_init__(self) -> None:
        """Refuse what nothing would look at."""
        for name, value, known in (
            ("better", {self.better}, ("lower", "higher", "")),
            ("needs", {*self.needs, *self.interval_needs}, _NEEDS),
        ):
            if wrong := value - {*known}:
                raise PagodaError(
                    f"metric {self.key}: {name} has {', '.join(map(repr, sorted(wrong)))}, known "
                    f"are {', '.join(map(repr, known))}"
                )


PairValues = Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]]
"""uint8 images (n, 3, h, w) twice -> by name (n,) values, whose mean is the row's, or (n, 2), the
ratio of whose means is."""


@dataclass(frozen=True)
class PairMetric:
    """Numbers from images beside their originals, pair by pair.

    Attributes:
        key: what ``--metrics`` calls it.
        open: takes LPIPS's network, its weights and a device, and gives what measures.
        place: in the list of metrics.
        square: whether images must be square.
        learned: whether the protocol names the network instead of ``pixels``.
        least, most: between which its numbers lie.
    """

    key: str
    open: Callable[[str, Path | None, str], PairValues]
    place: int
    square: bool = False
    learned: bool = False
    least: float = 0.0
    most: float = float("inf")


@cache
def metrics() -> dict[str, Metric]:
    """All metrics by key, in the order of a table's columns."""
    found = sorted(_declared(Metric), key=lambda m: (m.place, m.key))
    keys = [m.key for m in found]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise PagodaError(f"two metrics are called {twice[0]}; give one of them another key")
    return dict(zip(keys, found, strict=True))


@cache
def pair_metrics() -> dict[str, PairMetric]:
    """All metrics of pairs of images by key."""
    return {m.key: m for m in sorted(_declared(PairMetric), key=lambda m: (m.place, m.key))}


def _declared(kind: type[T]) -> list[T]:
    names = [f"{package.__name__}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]
    modules = map(part, sorted(names))
    return [value for module in modules for value in vars(module).values()
            if isinstance(value, kind)]  # fmt: skip


def labels() -> dict[str, str]:
    """What tables call each metric, with an arrow that says which way is better."""
    arrow = {"lower": " ↓", "higher": " ↑"}
    return {name: label + arrow.get(metric.better, "")
            for metric in metrics().values() for name, label in metric.labels.items()}  # fmt: skip


def larger_is_better() -> set[str]:
    """Names of metrics that grow with quality."""
    return {name for m in metrics().values() if m.better == "higher" for name in m.labels}


def is_inception(extractor: str) -> bool:
    """Whether an extractor's name says Inception."""
    return extractor.startswith("inception_")


def is_clip(extractor: str) -> bool:
    """Whether an extractor's name says CLIP, as ``custom_clip_vitl14_336`` does."""
    return "clip" in extractor.lower().split("_")


def metric_names(text: str, extractor: str) -> tuple[str, ...]:
    """``fid,prdc`` -> keys of the metrics to compute, in the order given, each once.

    Raises:
        PagodaError: for an unknown name, or one that only other features may have.
    """
    found = metrics()
    aliases = {m.alias: m for m in found.values() if m.alias}
    groups: dict[str, list[str]] = {}
    for metric in found.values():
        groups.setdefault(metric.group, []).append(metric.key)
    keys: list[str] = []
    for name in filter(None, (piece.strip() for piece in text.split(","))):
        if (special := aliases.get(name)) is not None:
            may = is_clip if special.owner == "CLIP" else is_inception
            if not may(extractor):
                raise PagodaError(
                    f"--metrics {name} is a name for {special.owner}'s features only; with "
                    f"{extractor} it is called {special.key}"
                )
            name = special.key
        parts = groups.get(name, [name])
        if unknown := [part for part in parts if part not in found]:
            known = ", ".join([*aliases, *filter(None, groups), *found])
            raise PagodaError(f"--metrics {unknown[0]} is unknown; known: {known}")
        keys += [part for part in parts if part not in keys]
    if not keys:
        raise PagodaError("--metrics names no metric")
    return tuple(keys)


def needs(keys: Iterable[str], intervals: bool = False) -> set[str]:
    """What a pass over images must keep for these metrics."""
    chosen = [metrics()[key] for key in keys]
    found = {need for metric in chosen for need in metric.needs}
    return found | {n for metric in chosen if intervals for n in metric.interval_needs}


def protocol(metric: str, features: str, n: int, **settings: int) -> str:
    """Name of a measured value: ``fd_classifier_2k``, ``precision_inception_50k_k3``.

    Metric, features, number of generated images, and whatever else changes the value, as letter and
    number. Values may share a column only if their protocols are equal.
    """
    extra = [f"{letter}{value}" for letter, value in settings.items()]
    return "_".join([metric, features, size(n), *extra])


def size(n: int) -> str:
    """A number of images in short, no two alike: 50000 -> 50k, 2048 -> 2k, 2000 -> 2000.

    k is 1024 where there are 1, 2, 4, 8, ... of them, as a set is often cut, and else 1000.
    """
    blocks, rest = divmod(n, 1024)
    if n and not rest and blocks & (blocks - 1) == 0:
        return f"{blocks}k"
    thousands, rest = divmod(n, 1000)
    if n and not rest and thousands & (thousands - 1):
        return f"{thousands}k"
    return str(n)
