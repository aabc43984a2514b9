"""One measured value: the one row type that evaluation writes and everything else reads."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measured value with all that is needed to trace it. None: unknown, or does not apply.

    Attributes:
        metric: what is measured: ``fd``, ``recall``, ``drift``, ``train_flops``, ...
        protocol: metric, features, n and settings; never compared with another protocol.
        value: the number; None where it is infinite (PSNR of equal pairs).
        n: images, or what else was counted.
        generator: ``teacher``, ``student``, ``grown``, ``real``, a file's name, or ``none`` for a
            quantity of a variant itself.
        variant: of a study; empty for the main pipeline.
        axis: where the variant stands on the study's axis.
        training_seed: of the networks that made the images.
        seed: of the latents, or of the choice of images.
        resolution: side of the images.
        base_res: side of the teacher's images.
        nfe: network evaluations an image.
        reference: fingerprint of the real images' statistics.
        reference_n: real images in them.
        features: fingerprint of the feature network.
        revision: code that measured.
        device: where it was measured.
        sd: standard deviation over the protocol's subsets or splits (ddof 0).
        low, high: ends of the interval.
        interval: how it was found, with its level: ``wilson_95``.
        images_seen: training images of all stages up to this generator.
        train_flops: floating-point operations of that training.
        train_seconds: its wall time.
    """

    metric: str
    protocol: str
    value: float | None
    n: int
    generator: str = "none"
    variant: str = ""
    axis: float | None = None
    training_seed: int | None = None
    seed: int | None = None
    resolution: int | None = None
    base_res: int | None = None
    nfe: int | None = None
    reference: str = ""
    reference_n: int | None = None
    features: str = ""
    revision: str = ""
    device: str = ""
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    images_seen: int | None = None
    train_flops: float | None = None
    train_seconds: float | None = None


COLUMNS = tuple(f.name for f in dataclasses.fields(Row))
_EMPTY = {f.name: f.default for f in dataclasses.fields(Row)}


def to_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as JSON holds them: keys that say nothing are left out."""
    return [{k: v for k, v in vars(row).items() if v != _EMPTY[k]} for row in rows]


def to_csv(rows: Iterable[Row]) -> str:
    """A line a value, floats in full; columns that are empty in every row are left out."""
    trees = [vars(row) for row in rows]
    names = [name for name in COLUMNS if any(tree[name] != _EMPTY[name] for tree in trees)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(trees)
    return stream.getvalue()
