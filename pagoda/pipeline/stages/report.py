"""The report: tables, curves, samples and ``metrics.json``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pagoda.artifacts import MANIFEST
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.results.evaluations import evaluations_table
from pagoda.results.experiment import read_experiment
from pagoda.results.report import Uncurated, write_report

_CLASSES, _SEEDS = 2, 64  # of the uncurated samples; a square number of seeds


def run(config: Config, results: tuple[Path, ...] = ()) -> None:
    """Write the report folder and ``metrics.json`` of a finished experiment.

    Args:
        config: the experiment.
        results: files of ``pagoda evaluate --images ... --out FILE``, shown in a table of their
            own.
    """
    folder = Paths(config).report
    others = evaluations_table(results) if results else None
    experiment = read_experiment(config)
    shown = uncurated(config, experiment.classes)
    write_report(experiment, folder, Path("metrics.json"), others, shown)
    sys.stderr.write(f"report: {folder}/index.html (page), {folder}/report.md (text)\n")


def uncurated(config: Config, classes: tuple[str, ...]) -> Uncurated | None:
    """The first seeds in the first classes, of the generator at the target resolution.

    None where only its evaluation is there.

    Raises:
        PagodaError: it is damaged.
    """
    where = Paths(config).generator(config.target_res)
    if not (where / MANIFEST).is_file():
        return None
    from pagoda.models import load  # and torch, which no mistake above waits for

    generator, shown = load(where), range(min(_CLASSES, len(classes)))
    images = generator.sample(shown, range(_SEEDS))
    split = images.reshape(len(shown), _SEEDS, *images.shape[1:])
    return Uncurated(str(where), classes[: len(shown)], np.ascontiguousarray(split))
