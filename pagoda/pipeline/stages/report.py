"""The report: tables, curves, samples and ``metrics.json``."""

from __future__ import annotations

import sys
from pathlib import Path

from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.results.evaluations import evaluations_table
from pagoda.results.experiment import read_experiment
from pagoda.results.report import write_report


def run(config: Config, results: tuple[Path, ...] = ()) -> None:
    """Write the report folder and ``metrics.json`` of a finished experiment.

    Args:
        config: the experiment.
        results: files of ``pagoda evaluate --images ... --out FILE``, shown in a table of their
            own.
    """
    folder = Paths(config).report
    others = evaluations_table(results) if results else None
    write_report(read_experiment(config), folder, Path("metrics.json"), others)
    sys.stderr.write(f"report: {folder}/index.html (page), {folder}/report.md (text)\n")
