"""The one evaluator: images, feature networks with their references, metrics -> rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pagoda import distributed
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor
from pagoda.evaluation.metrics.base import Comparison, Sample, Settings, metrics, needs
from pagoda.evaluation.reference import Reference
from pagoda.evaluation.streaming import Images, collect
from pagoda.rows import Row


@dataclass(frozen=True)
class Evaluator:
    """A feature network, real images in its features, and the keys of what is measured there."""

    extractor: Extractor
    reference: Reference
    metrics: tuple[str, ...]

    def check(self, n: int, settings: Settings, has: Collection[str]) -> None:
        """Fail before the images are passed over where a metric cannot be computed after.

        ``has``: of ``labels`` and ``held_out``, what there is.

        Raises:
            PagodaError: one line: too few images, or a reference or network without what it needs.
        """
        wanted = needs(self.metrics)
        for key in self.metrics:
            metrics()[key].check(n, self.reference, settings)
        if "real" in wanted:
            _ = self.reference.kept
        if "logits" in wanted and self.extractor.classes is None:
            raise PagodaError("the features come without class logits, which the score needs")
        if "labels" in wanted and self.extractor.labels and self.extractor.columns is None:
            raise PagodaError(
                f"{self.extractor.name} does not know the images' classes by name, which class "
                "accuracy needs; leave it out"
            )
        if "labels" in wanted - set(has):
            raise PagodaError("class accuracy needs the class of every image; leave it out")
        if "held_out" in wanted - set(has):
            raise PagodaError(
                "memorisation is measured with real images of a second split, which the pipeline's "
                "own evaluation has; leave fd_test and train_share out of --metrics"
            )


def evaluate(
    sets: Mapping[str, Images],
    evaluators: Sequence[Evaluator],
    settings: Settings,
    facts: Mapping[str, Any],
    *,
    rows: np.ndarray | None = None,
    held_out: str = "",
    intervals: bool = False,
    device: str | None = None,
    advance: Callable[[int], None] = lambda _: None,
    seen: Callable[[str, np.ndarray, np.ndarray], None] = lambda name, rows, pixels: None,
    then: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Measure sets of images; each passes once through all feature networks.

    Args:
        sets: images by the name that rows give them.
        evaluators: networks with their references and metrics.
        settings: of the metrics.
        facts: what every row says besides, such as seed and resolution.
        rows: which images of each set, ascending; None takes all.
        held_out: the set of real images that the reference does not describe, for metrics of
            memorisation; without one there are no such rows.
        intervals: whether rows get intervals over other generated images, where there are.
        device: where torch makes distances between points; None for numpy.
        advance: is told how many images are done.
        seen: is shown the images that this process makes, by name and rows.
        then: what processes do together before the first one scores alone, for which none waits.

    Returns:
        A row a value to the first process, none to the others.

    Raises:
        PagodaError: one line; before any image is read where that can be known.
    """
    for images in sets.values():
        has = {"held_out"} if held_out else set()
        has |= set() if getattr(images, "labels", None) is None else {"labels"}
        for evaluator in evaluators:
            evaluator.check(len(images) if rows is None else len(rows), settings, has)
    passes = [(e.extractor, needs(e.metrics, intervals)) for e in evaluators]
    samples = {
        name: collect(
            images, passes, rows, advance=advance,
            seen=lambda block, pixels, name=name: seen(name, block, pixels),  # type: ignore[misc]
        )
        for name, images in sets.items()
    }  # fmt: skip
    then()
    if not distributed.is_main_process():
        return []  # the arithmetic that follows is the first one's
    found: list[Row] = []
    for name, images in sets.items():
        about = {"generator": name, "nfe": getattr(images, "nfe", None), **facts}
        for i, evaluator in enumerate(evaluators):
            other = samples[held_out][i] if held_out and name != held_out else None
            made = score(samples[name][i], evaluator, settings, other, intervals, device)
            found += [replace(row, **about) for row in made]
    return found


def score(
    sample: Sample,
    evaluator: Evaluator,
    settings: Settings,
    held_out: Sample | None = None,
    intervals: bool = False,
    device: str | None = None,
) -> list[Row]:
    """All metrics of one set of images in one network's features; no facts of the images yet."""
    comparison = Comparison(sample, evaluator.reference, settings, held_out, device)
    found = []
    for key in evaluator.metrics:
        metric = metrics()[key]
        if "held_out" in metric.needs and held_out is None:
            continue
        row = metric.measure(comparison)
        if not isinstance(row, Row):
            raise PagodaError(
                f"metric {key} measures {type(row).__name__}, no Row: Comparison.row makes one"
            )
        row = replace(row, features=evaluator.extractor.fingerprint,
                      reference=row.reference or evaluator.reference.fingerprint)  # fmt: skip
        if intervals and (over := metric.interval(comparison, row.value or 0.0)) is not None:
            row = replace(row, low=over.low, high=over.high, interval=str(over))
        found.append(row)
    return found
