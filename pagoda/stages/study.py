"""Last stage of a study: the measurements of its arms as results, pictures and a summary."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pagoda import artifacts, outputs
from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.report.studies import StudyCard, StudyFigure, StudyRow, study_folder, write_study
from pagoda.report.study_pictures import draw_parts, draw_same_latents
from pagoda.report.study_summary import write_summary
from pagoda.rows import Row
from pagoda.stages.paths import Paths
from pagoda.stages.revision import code_revision
from pagoda.stages.study_spec import Arm, Study

_FILES = ("results.csv", "study.json", "summary.md", "same_latents.png", "cost.png")

Measured = dict[tuple[str, int], Artifact]
"""By arm and seed."""


def run(config: Config, study: Study) -> None:
    """Write ``results.csv``, ``study.json``, pictures and ``summary.md`` of a study.

    Raises:
        PagodaError: if a run of an arm is missing or damaged, or the folder holds anything else.
    """
    measured = {
        (arm.name, seed): artifacts.open_artifact(
            study.folder(config, arm, seed) / "measured", "measurement",
            {"study": study.name, "arm": arm.name, "seed": seed, "name": config.name},
        )
        for arm in study.arms.values()
        for seed in study.seeds(config, arm)
    }  # fmt: skip
    rows = [row for key in measured for row in _rows(study, measured, *key)]
    folder = study_folder(config.name, study.name)
    with outputs.new_folder(folder, outputs.only(*_FILES)) as partial:
        pictures = (*_sheets(study, measured, config, partial), *_parts(study, rows, partial))
        card = _card(config, study, measured, pictures)
        write_study(partial, card, rows)
        write_summary(partial, card, rows)
    sys.stderr.write(f"study {study.name}: {folder}/summary.md\n")


def _rows(study: Study, measured: Measured, name: str, seed: int) -> list[StudyRow]:
    """Rows of one run, the teacher that it read among them: rules pair values by arm and seed."""
    arm = study.arms[name]
    trees = list(measured[name, seed].json("rows")["rows"])
    if arm.of is not None:
        parent = study.arms[arm.of]
        first = seed if (parent.name, seed) in measured else _first(measured, parent.name)
        above = measured[parent.name, first].json("rows")["rows"]
        trees += [row for row in above if row.get("generator") == "teacher"]
    return [_study_row(Row(**tree), arm, seed) for tree in trees]


def _study_row(row: Row, arm: Arm, seed: int) -> StudyRow:
    facts: dict[str, Any] = {
        f.name: getattr(row, f.name, None) for f in dataclasses.fields(StudyRow)
    }
    own = {"arm": arm.name, "axis": _axis(arm), "seed": seed, "eval_seed": row.seed}
    return StudyRow(**(facts | own))


def _first(measured: Measured, arm: str) -> int:
    return min(seed for name, seed in measured if name == arm)


def _axis(arm: Arm) -> float | None:
    return None if arm.axis is None else float(arm.axis)


def _card(
    config: Config, study: Study, measured: Measured, pictures: tuple[StudyFigure, ...]
) -> StudyCard:
    data = artifacts.open_artifact(Paths(config).data(config.target_res), "images").card()
    images = ", ".join(f"{n:,} {split}" for split, n in sorted(data["n"].items(), reverse=True))
    series = {arm.name: arm.series for arm in study.arms.values() if arm.series}
    return StudyCard(
        study=study.name,
        title=study.title,
        question=study.question,
        rule=" ".join(study.rule.split()),
        profile=config.name,
        data=f"{data['source']}, {len(data['classes'])} classes, images: {images}",
        revision=code_revision(),
        axis_label=study.axis_label,
        axis_log=study.axis_log,
        axis_metric=study.axis_metric,
        arms={arm.name: arm.label for arm in study.arms.values()},
        series=series,
        metrics=study.metrics,
        findings=tuple(_failures(study, measured)),
        figures=pictures,
    )


def _failures(study: Study, measured: Measured) -> list[str]:
    """A sentence for each signature of failure: arm, resolution, how many of its seeds."""
    seen: dict[tuple[str, str, str], int] = {}
    runs: dict[str, int] = {}
    for (name, _), artifact in measured.items():
        runs[name] = runs.get(name, 0) + 1
        for resolution, found in artifact.json("rows")["failures"].items():
            for signature in found:
                key = name, resolution, signature
                seen[key] = seen.get(key, 0) + 1
    return [
        f"{study.arms[name].label}, growth to {res}×{res}: {signature} "
        f"({count} of {runs[name]} seeds)"
        for (name, res, signature), count in seen.items()
    ]


def _sheets(study: Study, measured: Measured, config: Config, folder: Path) -> list[StudyFigure]:
    """The same latents through the resolutions, an arm a block; first seed, uncurated."""
    blocks: dict[str, list[np.ndarray]] = {}
    for arm in study.arms.values():
        artifact = measured[arm.name, study.seeds(config, arm)[0]]
        kept = (n.removesuffix(".npy") for n in artifact.manifest["files"] if n.endswith(".npy"))
        names = sorted(kept, key=lambda n: int(n.rpartition("-")[2]))
        own = [n for n in names if not n.startswith("samples-teacher-")]
        if len(names) > 1:
            teachers = [n for n in names if n not in own]
            sheets = {arm.label: own, f"{arm.label}: teacher": teachers}
            blocks |= {k: [artifact.array(n) for n in v] for k, v in sheets.items() if v}
    if not blocks:
        return []
    return [draw_same_latents(blocks, folder, config.studies.samples)]


def _parts(study: Study, rows: list[StudyRow], folder: Path) -> list[StudyFigure]:
    if not any(row.metric.startswith("part_seconds") for row in rows):
        return []
    arms = {arm.name: arm.label for arm in study.arms.values()}
    return [draw_parts([dataclasses.asdict(row) for row in rows], arms, folder)]
