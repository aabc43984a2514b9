"""Images against images in one call: :func:`pagoda.evaluate`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from pagoda.calls import shown
from pagoda.data.base import Arrays
from pagoda.errors import PagodaError
from pagoda.evaluation.files import ArrayImages, check_there
from pagoda.evaluation.metrics.base import Settings
from pagoda.evaluation.samplers import Draws
from pagoda.evaluation.streaming import Images
from pagoda.models import Generator, Teacher
from pagoda.pipeline.stages.score import Features, Request, Source, measure


def evaluate(
    images: str | Path | np.ndarray | Tensor | Generator | Teacher,
    reference: str | Path | np.ndarray | Tensor,
    metrics: str | Sequence[str] | None = None,
    *,
    extractor: str | None = None,
    n: int | None = None,
    seed: int = 0,
    split: str | None = None,
    reference_split: str | None = None,
    batch: int = 64,
    weights: str | Path | None = None,
    download: bool = False,
    settings: Settings | None = None,
) -> dict[str, float | None]:
    """Measure images against others; what ``pagoda evaluate --images`` measures.

    >>> pagoda.evaluate("samples.zip", "real.zip", metrics="fid,kid")      # doctest: +SKIP

    Args:
        images: a folder, ``.zip``, ``.tar``, ``.npz``, the folder of a generator, or what
            :func:`pagoda.load` opened; or an array, uint8, (n, h, w, 3), (n, 3, h, w) or, grey,
            (n, h, w).
        reference: likewise; or a kept reference, or published ``.npz`` statistics.
        metrics: names, ``"fid,kid"`` or a list of them; None: a usual choice.
        extractor: the feature network; only Inception's make an FID.
            ``classifier:runs/smoke/features`` is the one of a run; None: ``inception:clean``.
        n: images to use; of a generator, to make.
        seed: of a generator's latents, or of the choice of ``n``.
        split: of the images, where they have splits, as the images of a run do.
        reference_split: the same of the reference.
        batch: images a call of the feature network.
        weights: file of its weights.
        download: fetch missing weights.
        settings: of the metrics.

    Returns:
        Values by protocol: metric, features, n (``fid_clean_5k``). None: infinite.

    Raises:
        PagodaError: one line, as of the command.
    """
    n, batch = None if n is None else _at_least(2, n, "n"), _at_least(1, batch, "batch")
    real = _path_or_images(reference, "reference")
    if isinstance(images, Generator | Teacher):
        if n is None:
            raise PagodaError("images is a generator; n says how many it makes")
        source: Path | Images = images.sampler(Draws(seed, n, images.batch, images.device))
    else:
        source = _path_or_images(images, "images")
    request = Request(
        Source(source, split) if isinstance(source, Path)
        else Source(Path(source.where), opened=source),
        Features(extractor, batch, None if weights is None else Path(weights), None, download),
        real, reference_split,
        metrics=metrics if metrics is None or isinstance(metrics, str) else ",".join(metrics),
        n=n, seeds=(seed,), settings=settings or Settings(),
    )  # fmt: skip
    tree = measure(request)
    return {row["protocol"]: row["value"] for row in tree["rows"]} if tree else {}


def _at_least(least: int, value: int, called: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise PagodaError(f"{called} = {shown(value)}; it must be a whole number from {least} up")
    return number


def _path_or_images(given: str | Path | np.ndarray | Tensor, called: str) -> Path | Images:
    if isinstance(given, str | Path):
        check_there(Path(given))
        return Path(given)
    array = given.numpy(force=True) if isinstance(given, Tensor) else np.asarray(given)
    one = array.ndim == 3 and 3 in (array.shape[0], array.shape[-1])
    if one or array.ndim not in (3, 4):
        raise PagodaError(
            f"{called} is {type(given).__name__} of shape {array.shape}; it is a path, or an array "
            "of images (n, h, w, 3), (n, 3, h, w) or, grey, (n, h, w)"
        )
    if not len(array):
        raise PagodaError(f"{called} is an array without images")
    pictures = Arrays(called, array, called)
    return ArrayImages(pictures, np.arange(len(pictures)))
