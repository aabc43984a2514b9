"""Whether feature networks can be trusted: real images made worse by known amounts.

    python -m benchmarks.known_truth --run runs/smoke classifier
        [--run runs/imagenette_cpu classifier efficientnet:lite1 ...] [--n 1000] [--report FOLDER]

A run's images at its largest resolution serve: some of ``train`` are the reference, held-out ones
the floor. Held-out ones blurred, noised, with patches shuffled or without some classes must be
further away the more is done to them, and what is no image of the set must not count as precise.
Rows and the page go to ``reports/evaluators/``; without ``--run`` the page is made again from them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import known_truth_page
from benchmarks.known_truth_sets import SEED, Real, sets_of
from pagoda import artifacts, outputs
from pagoda.artifacts import Artifact
from pagoda.config.revision import code_revision
from pagoda.errors import PagodaError
from pagoda.evaluation.evaluator import Evaluator, evaluate
from pagoda.evaluation.features.base import Extractor, open_extractor
from pagoda.evaluation.metrics.base import Settings
from pagoda.evaluation.reference import from_sample, reference_card
from pagoda.evaluation.streaming import collect, open_split, subset
from pagoda.pipeline.stages.device import device_name, metric_device, pick_device
from pagoda.rows import Row

_METRICS = ("fd", "kd", "precision", "recall", "density", "coverage", "accuracy")


def measure(run: Path, names: Sequence[str], n: int) -> list[Row]:
    """Every set in the features of every network, by the evaluator of the suite.

    Rows have the kind of the set as their generator, the amount as their axis, and the run's name
    as their variant.

    Args:
        run: folder with ``data/`` and, for the network ``classifier``, ``features/``.
        names: of feature networks.
        n: images in the reference, and in every set.

    Raises:
        PagodaError: one line: an artifact or weights are missing, or there are too few images.
    """
    sides = sorted(int(p.name) for p in run.glob("data/*") if p.name.isdigit())
    if not sides:
        raise PagodaError(f"{run}/data holds no images; 'dvc repro downsample' makes them")
    data, device = artifacts.open_artifact(run / f"data/{sides[-1]}", "images"), pick_device()
    real = _held_out(data, n)
    sets = sets_of(real)
    facts = {"seed": SEED, "resolution": sides[-1], "revision": code_revision(),
             "device": device_name(device)}  # fmt: skip
    named = [f"classifier:{run / 'features'}" if name == "classifier" else name for name in names]
    evaluators = [_evaluator(open_extractor(name, device, 64), data, n) for name in named]
    settings = Settings(subset_size=min(1000, n // 2))
    rows = evaluate(sets.images, evaluators, settings, facts, device=metric_device(device))
    return [
        replace(row, generator=sets.told[row.generator][0], axis=sets.told[row.generator][1],
                variant=data.config["name"])
        for row in rows
    ]  # fmt: skip


def _held_out(data: Artifact, n: int) -> Real:
    test = open_split(data, "test")
    assert test.labels is not None
    order = np.random.default_rng(SEED).permutation(len(test))
    return Real(test.read(np.arange(len(test)))[order], test.labels[order], n)


def _evaluator(extractor: Extractor, data: Artifact, n: int) -> Evaluator:
    """A network with a reference of ``n`` training images."""
    card: dict[str, Any] = data.card()
    extractor = extractor.among(card["classes"])
    train = open_split(data, "train")
    (sample,) = collect(train, [(extractor, {"features"})], subset(len(train), n, SEED))
    described = reference_card(
        extractor, images=data.fingerprint, recipe=card["recipe"], resolution=card["resolution"],
        split="train", n=sample.n, manifold_n=n,
    )  # fmt: skip
    keys = _METRICS if extractor.columns is not None else _METRICS[:-1]
    return Evaluator(extractor, from_sample(train.where, sample, described), keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--run",
        nargs="+",
        action="append",
        default=[],
        metavar=("FOLDER", "NETWORK"),
        help="a run, and feature networks",
    )
    parser.add_argument("--n", type=int, default=1000, help="images in every set")
    parser.add_argument("--report", type=Path, default=known_truth_page.FOLDER)
    given = parser.parse_args()
    try:
        outputs.check_folder(given.report, known_truth_page.OWN)
        rows = [row for run, *names in given.run for row in measure(Path(run), names, given.n)]
        known_truth_page.write(rows or known_truth_page.read(given.report), given.report)
    except PagodaError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
