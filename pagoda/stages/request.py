"""What the command line asks of :mod:`pagoda.stages.score`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pagoda.errors import PagodaError
from pagoda.evaluation.files import FileImages, open_images
from pagoda.evaluation.metrics.base import Settings
from pagoda.evaluation.streaming import Images
from pagoda.stages.progress import tell


@dataclass(frozen=True)
class Source:
    """Images, as :func:`pagoda.evaluation.files.open_images` takes them."""

    path: Path
    split: str | None = None
    crop: str | None = None
    size: int | None = None
    exif: bool = False

    def open(self) -> Images:
        """The images; what lies among them and is passed over is told on stderr."""
        images = open_images(self.path, self.split, self.crop, self.size, self.exif)
        if isinstance(images, FileImages) and images.passed_over:
            tell(f"{images.where}: {images.passed_over}")
        return images


@dataclass(frozen=True)
class Features:
    """An extractor, as :func:`pagoda.evaluation.features.select.open_extractor` takes it."""

    extractor: str
    batch: int = 64
    weights: Path | None = None
    hub: Path | None = None
    download: bool = False


@dataclass(frozen=True)
class Request:
    """What to measure, against what, and how.

    Attributes:
        source: images, or the folder of a ``generator`` artifact.
        features: the extractor.
        reference: ``reference`` artifact, published ``.npz`` of statistics, or images.
        reference_split: of a reference that is images.
        reference_features: extractor that made a published ``.npz``; None goes by its kind.
        metrics: names with commas between; None takes a usual choice.
        n: images to use; None takes all (a generator needs a number).
        seeds: of a generator's latents, or of the choice of ``n`` images.
        settings: of the metrics.
        name: what rows call the images; None takes the path's.
        out: JSON file to write.
        intervals: whether rows get ``low``, ``high`` and ``interval``.
    """

    source: Source
    features: Features
    reference: Path
    reference_split: str | None = None
    reference_features: str | None = None
    metrics: str | None = None
    n: int | None = None
    seeds: tuple[int, ...] = (0,)
    settings: Settings = Settings()
    name: str | None = None
    out: Path | None = None
    intervals: bool = False


def seed_list(text: str) -> tuple[int, ...]:
    """``0,1,2`` -> (0, 1, 2).

    Raises:
        PagodaError: for anything but different whole numbers from 0.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise PagodaError(f"--seeds = {text!r}; it must be different whole numbers, e.g. 0,1,2")
    return tuple(int(part) for part in parts)
