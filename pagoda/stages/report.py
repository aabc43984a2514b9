"""The report: tables, curves, sample sheets and ``metrics.json``."""

from __future__ import annotations

import sys
from pathlib import Path

from pagoda.config import Config
from pagoda.report.experiment import read_experiment
from pagoda.report.render import write_report
from pagoda.stages.paths import Paths


def run(config: Config) -> None:
    """Write the report folder and ``metrics.json`` of a finished experiment."""
    folder = Paths(config).report
    write_report(read_experiment(config), folder, Path("metrics.json"))
    sys.stderr.write(f"report: {folder}/index.html (page), {folder}/report.md (text)\n")
