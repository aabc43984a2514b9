"""Last stage of a study: the measurements of its variants as results, pictures and a summary."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pagoda import artifacts, outputs
from pagoda import rows as files
from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.config.revision import code_revision
from pagoda.errors import PagodaError
from pagoda.pipeline.stages.study_spec import Study
from pagoda.results.blocks import Figure
from pagoda.results.claims import read_claims
from pagoda.results.labels import OWN, generator_within
from pagoda.results.speed_figure import SPEED, draw_speed
from pagoda.results.studies import (
    CARD,
    Failure,
    StudyCard,
    StudyResults,
    read_study,
    study_folder,
    write_study,
)
from pagoda.results.study_figures import draw_edits, draw_parts, draw_same_latents
from pagoda.results.study_tables import write_summary
from pagoda.rows import Row

_OF_RUNS = "same_latents.png", "edits.png"  # what the first seed of each variant made
_FILES = "results.csv", "study.json", "summary.md", *_OF_RUNS, "cost.png", SPEED

_EDIT = "edit-"  # name of a line of the picture of edits
_BESIDE = {"upsampled_base": "bilinear upsampling", "teacher": "teacher"}
"""Short names of what stands beside the generators of a variant."""

Measured = dict[tuple[str, int], Artifact]
"""By variant and seed."""


def run(config: Config, study: Study, keep: bool = False) -> None:
    """Write ``results.csv``, ``study.json``, pictures and ``summary.md`` of a study.

    Args:
        config: of the profile.
        study: which.
        keep: the results that are there stay, of runs that are not here: a study that is made on
            several machines, or in parts. Pictures of samples stay, too, if they show a variant,
            or a lower seed of one, that is not here.

    Raises:
        PagodaError: if a run of a variant is missing (with ``keep``, every run) or damaged, or the
            folder holds anything else.
    """
    measured = _measured(config, study, keep)
    folder = study_folder(config.name, study.name)
    before = read_study(folder) if keep and (folder / CARD).exists() else None
    kept = _kept(before, study, measured) if before else []
    made = [row for key in measured for row in _rows(study, measured, kept, *key)]
    rows = made + kept
    card = _card(config, study, measured)
    if before:
        _check_same_measure(study, made, kept, folder)
        _check_same_images(card, before)
        card = dataclasses.replace(card, failures=_failures(card, before, measured))
    with outputs.new_folder(folder, outputs.only(*_FILES)) as partial:
        first = _first(config, study, measured)
        if before and _shows_more(kept, first):
            figures = [f for f in before.card.figures if f.file in _OF_RUNS]
            for figure in figures:
                shutil.copyfile(folder / figure.file, partial / figure.file)
        else:
            figures = _pictures(study, first, config, partial)
        figures += _charts(study, rows, partial)
        card = dataclasses.replace(card, figures=tuple(figures))
        write_study(partial, card, rows)
        write_summary(StudyResults(card, tuple(rows), partial), read_claims())
    sys.stderr.write(f"study {study.name}: {folder}/summary.md\n")


def _measured(config: Config, study: Study, keep: bool) -> Measured:
    """The runs that are here; all must be, unless other results are kept."""
    places = {
        (variant.name, seed): study.folder(config, variant, seed) / "measured"
        for variant in study.variants.values()
        for seed in study.seeds(config, variant)
    }
    missing = [name for name, place in places.items() if not place.exists()]
    if missing and not (keep and len(missing) < len(places)):
        raise PagodaError(
            f"{len(missing)} of the {len(places)} runs of study {study.name} are missing, variant "
            f"{missing[0][0]} with seed {missing[0][1]} first; 'dvc --cd experiments repro "
            f"{study.name}/dvc.yaml' makes them"
        )
    return {
        (name, seed): artifacts.open_artifact(
            place, "measurement",
            {"study": study.name, "variant": name, "seed": seed, "name": config.name},
        )
        for (name, seed), place in places.items()
        if (name, seed) not in missing
    }  # fmt: skip


def _kept(before: StudyResults, study: Study, measured: Measured) -> list[Row]:
    """Rows of runs that are not here, of variants that the study still has."""
    others = (row for row in before.rows if _run_of(row) not in measured)
    return [row for row in others if row.variant in study.variants]


def _check_same_measure(
    study: Study, made: Sequence[Row], kept: Sequence[Row], folder: Path
) -> None:
    """Feature network and statistics of real images are one a protocol and size; of edits the
    network alone, since every seed compares with other images.
    """

    def measure(row: Row) -> tuple[str, ...]:
        edits = study.variants[row.variant].stage == "measure_edits"
        return (row.features,) if edits else (row.features, row.reference)

    by: dict[tuple[str, int | None], set[tuple[str, ...]]] = {}
    for row in made:
        if any(measure(row)):
            by.setdefault((row.protocol, row.resolution), set()).add(measure(row))
    for row in kept:
        here = by.get((row.protocol, row.resolution))
        if here is not None and measure(row) not in here:
            raise PagodaError(
                f"{folder} has {row.protocol} at {row.resolution} pixels in features of another "
                f"network, or against other real images, than the runs here; make the runs with "
                "its features.imported and reference.imported (docs/studies.md), or the folder anew"
            )


def _check_same_images(card: StudyCard, before: StudyResults) -> None:
    if before.card.data != card.data:
        raise PagodaError(
            f"{before.folder} has results on other images ({before.card.data}) than the runs here "
            f"({card.data}); move that folder away to begin anew"
        )


def _run_of(row: Row) -> tuple[str | None, int | None]:
    return row.variant, row.training_seed


def _rows(study: Study, measured: Measured, kept: Sequence[Row], name: str, seed: int) -> list[Row]:
    """Rows of one run, with the teacher that it read, unless it measured that itself: rules pair
    values by variant and seed.
    """
    variant = study.variants[name]
    rows = _read(measured[name, seed])
    if variant.of is not None and not any(row.generator == "teacher" for row in rows):
        above = {s: _read(run) for (other, s), run in measured.items() if other == variant.of}
        for row in kept:
            if row.variant == variant.of and row.training_seed is not None:
                above.setdefault(row.training_seed, []).append(row)
        of = above[seed if seed in above else min(above)] if above else []
        rows += [row for row in of if row.generator == "teacher"]
    axis = None if variant.axis is None else float(variant.axis)
    return [dataclasses.replace(r, variant=name, axis=axis, training_seed=seed) for r in rows]


def _read(artifact: Artifact) -> list[Row]:
    return files.from_json(artifact.json("rows")["rows"], f"{artifact.path / 'rows.json'}")


def _failures(card: StudyCard, before: StudyResults, measured: Measured) -> tuple[Failure, ...]:
    """Counts of the runs that are here, and of those before, of a variant with none made again."""
    earlier = {_run_of(row) for row in before.rows}
    stay = card.variants.keys() - {name for name, _ in earlier & measured.keys()}
    runs = Counter(n for n, _ in measured.keys() | {run for run in earlier if run[0] in stay})
    seen: Counter[tuple[str, int, str]] = Counter()
    for failure in (*card.failures, *(f for f in before.card.failures if f.variant in stay)):
        seen[failure.variant, failure.resolution, failure.signature] += failure.seeds
    return tuple(Failure(*key, count, runs[key[0]]) for key, count in seen.items())


def _first(config: Config, study: Study, measured: Measured) -> dict[tuple[str, int], Artifact]:
    """The run of each variant with its lowest seed, where it is here: what pictures show."""
    first = [(v.name, min(study.seeds(config, v))) for v in study.variants.values()]
    return {key: measured[key] for key in first if key in measured}


def _shows_more(kept: Sequence[Row], first: Mapping[tuple[str, int], Artifact]) -> bool:
    """Whether kept rows are of a variant, or an earlier seed of it, that is not shown here."""
    shown = dict(first.keys())
    return any((row.training_seed or 0) < shown.get(row.variant, sys.maxsize) for row in kept)


def _pictures(
    study: Study, first: Mapping[tuple[str, int], Artifact], config: Config, folder: Path
) -> list[Figure]:
    """Of what the first seed of each variant made."""
    runs = {name: run for (name, _), run in first.items()}
    return _same_latents(study, runs, config, folder) + _edits(study, runs, config, folder)


def _charts(study: Study, rows: Sequence[Row], folder: Path) -> list[Figure]:
    """Of the rows, whoever made them."""
    if not any(row.metric.startswith("part_seconds") for row in rows):
        return []
    timed = all(variant.stage == "measure_speed" for variant in study.variants.values())
    labels = {variant.name: variant.label for variant in study.variants.values()}
    return [(draw_speed if timed else draw_parts)(rows, labels, folder)]


def _card(config: Config, study: Study, measured: Measured) -> StudyCard:
    """All but the pictures."""
    data = artifacts.open_artifact(Paths(config).data(config.target_res), "images").card()
    images = ", ".join(f"{n:,} {split}" for split, n in sorted(data["n"].items(), reverse=True))
    runs = Counter(name for name, _ in measured)
    seen = Counter(
        (name, int(resolution), signature)
        for (name, _), artifact in measured.items()
        for resolution, found in artifact.json("rows")["failures"].items()
        for signature in found
    )
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
        variants={v.name: v.label for v in study.variants.values()},
        series={
            variant.name: variant.series for variant in study.variants.values() if variant.series
        },
        metrics=study.metrics,
        failures=tuple(Failure(*key, count, runs[key[0]]) for key, count in seen.items()),
    )


def _same_latents(
    study: Study, first: dict[str, Artifact], config: Config, folder: Path
) -> list[Figure]:
    """The same latents through the resolutions, a variant a block; first seed, uncurated."""
    blocks: dict[str, list[np.ndarray]] = {}
    for name, artifact in first.items():
        variant = study.variants[name]
        kept = (n.removesuffix(".npy") for n in artifact.manifest["files"] if n.endswith(".npy"))
        kept = (n for n in kept if not n.startswith(_EDIT))
        for label, names in blocks_of(variant.label, kept).items():
            blocks[label] = [artifact.array(name) for name in names]
    return [draw_same_latents(blocks, folder, config.studies.samples)] if blocks else []


def blocks_of(label: str, grids: Iterable[str]) -> dict[str, list[str]]:
    """Grids of samples by the label of their block, lowest resolution first.

    Args:
        label: of the variant: its generators have it, a teacher and plain upsampling one more word.
        grids: ``samples-<generator>-<resolution>``, ``below-<resolution>``; one alone is not shown.
    """
    names = sorted(grids, key=lambda n: int(n.rpartition("-")[2]))
    if len(names) < 2:
        return {}
    found: dict[str, list[str]] = {}
    for name in names:
        generator = name.removeprefix("samples-").rpartition("-")[0]
        own = generator in OWN or generator == "below"
        more = "" if own else f": {_BESIDE.get(generator) or generator_within(generator)}"
        found.setdefault(label + more, []).append(name)
    last = [f"{label}: {more}" for more in _BESIDE.values()]
    return dict(sorted(found.items(), key=lambda e: (e[0] != label, e[0] in last, e[0])))


def _edits(study: Study, first: dict[str, Artifact], config: Config, folder: Path) -> list[Figure]:
    """Held-out images and what became of them; first seed, not selected."""
    lines = []
    for name, artifact in first.items():
        variant = study.variants[name]
        for file in sorted(n for n in artifact.manifest["files"] if n.startswith(_EDIT)):
            line = file.removesuffix(".npy")
            label = generator_within(line.split("-", 2)[2])
            lines.append((f"{variant.label}: {label}", artifact.array(line)))
    return [draw_edits(lines, folder, config.studies.edit.images)] if lines else []
