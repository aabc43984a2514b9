"""The first screen of an experiment's page: one sentence, real images beside generated ones, and
the distances that matter.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pagoda import artifacts
from pagoda.config.paths import Paths
from pagoda.data.store import open_images
from pagoda.results import grids
from pagoda.results.blocks import Cell, Gallery, Pair, Table, table
from pagoda.results.classes import class_labels
from pagoda.results.experiment import Evaluation, Experiment
from pagoda.results.numbers import number, value_cell, with_ends
from pagoda.results.verdicts import FAILS, HOLDS, distance_protocols, verdicts
from pagoda.rows import Row

_MADE = "generated in one step"
ROWS, COLUMNS = 5, 3  # classes, and images of each on either side
_HEADS = {  # in the order of the columns
    "teacher": "Diffusion teacher",
    "main": "**One-step generator**",
    "upsampled_base": "Student enlarged without growth",
    "real": "Held-out real images (floor)",
}


def sentence(experiment: Experiment) -> str:
    """What came out, in one sentence."""
    config = experiment.config
    first, last = config.resolutions[0], config.resolutions[-1]
    protocol = next(iter(distance_protocols(experiment)), None)
    rows = {} if protocol is None else _distances(experiment.evaluations[last], protocol)
    what = (
        f"A diffusion teacher at {first}×{first} became a generator of one network evaluation an "
        f"image{f', grown to {last}×{last}' if last > first else ''}"
    )
    if not (main := rows.get(experiment.evaluations[last].main)):
        return f"{what}."
    told = (
        f"{what}, whose images are at a Fréchet distance of **{number(main.number)}** from the data"
    )
    beside = [
        *([f"{number(rows['upsampled_base'].number)} without growth"]
          if "upsampled_base" in rows else []),
        *([f"{number(rows['real'].number)} for real images held out"] if "real" in rows else []),
    ]  # fmt: skip
    return f"{told} ({', '.join(beside)})." if beside else f"{told}."


def size(experiment: Experiment) -> str:
    """Rules, time and data, in small type."""
    minutes, seconds = divmod(round(experiment.seconds), 60)
    time = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    config, device = experiment.config, experiment.main_rows[0].device
    return (
        f"Profile `{config.name}`, {len(experiment.classes)} classes of `{config.data.source}` "
        f"images; {time} of training on {device}; {rules(experiment)}. One training "
        "seed: the page of all results has repeats with others, and the method's claims."
    )


def rules(experiment: Experiment) -> str:
    """How many of the rules hold."""
    outcomes = [v.outcome for v in verdicts(experiment)]
    held, measured = outcomes.count(HOLDS), outcomes.count(HOLDS) + outcomes.count(FAILS)
    return f"{held} of {measured} rules hold"


def gallery(experiment: Experiment, folder: Path) -> Gallery:
    """Draw real images and samples of the same classes, a picture a resolution."""
    config, pairs = experiment.config, []
    shown = config.report.real_images
    names = class_labels(experiment.classes, config.data.hub)[:ROWS]
    for res, evaluation in experiment.evaluations.items():
        made = evaluation.samples[0][: len(names), :COLUMNS]
        sides = [made]
        if shown:
            sides.insert(0, examples(experiment, res, len(names)))
        file = f"beside-{res}.png"
        grids.tiles(sides, folder / file)
        halves = ("real, held out", _MADE) if shown else (_MADE,)
        told = " on the left, samples of the same classes on the right" if shown else ""
        alt = f"{'Real images' if shown else 'Samples'} at {res} by {res}{told}, a row a class"
        pairs.append(Pair(f"{res}×{res}", file, alt, names, halves))
    real = "Left: the first held-out images of each class. Right: " if shown else "The "
    caption = (
        f"**{'Real images beside generated ones' if shown else 'Generated images'}**, of the first "
        f"{len(names)} classes. {real}{'the ' if shown else ''}first samples of the class, not "
        "selected; at every resolution of the same latents."
    )
    return Gallery(tuple(pairs), caption)


def examples(experiment: Experiment, resolution: int, classes: int) -> NDArray[np.uint8]:
    """The first held-out images of each class: (classes, COLUMNS, 3, R, R), white where none is."""
    artifact = artifacts.peek(Paths(experiment.config).data(resolution), "images")
    images, labels = open_images(artifact, "test"), artifact.array("test_labels")
    found = np.full((classes, COLUMNS, 3, resolution, resolution), 255, np.uint8)
    for label in range(classes):
        rows = np.flatnonzero(labels == label)[:COLUMNS]
        if len(rows):
            found[label, : len(rows)] = images[rows]
    return found


def headline(experiment: Experiment) -> Table:
    """A line a resolution: the generator between what it learned from and what it must beat."""
    protocol = next(iter(distance_protocols(experiment)), "")
    by_size = {r: _distances(e, protocol) for r, e in experiment.evaluations.items()}
    columns = [name for name in _HEADS
               if name == "main" or any(name in rows for rows in by_size.values())]  # fmt: skip
    lines: list[tuple[str | Cell, ...]] = []
    for res, rows in by_size.items():
        found = rows | {"main": rows.get(experiment.evaluations[res].main)}
        cells = [_cell(row) if (row := found.get(name)) else Cell("–") for name in columns]
        lines.append((f"{res}×{res}", *cells))
    n = {row.n for rows in by_size.values() for row in rows.values()}
    ends = any(row.interval for rows in by_size.values() for row in rows.values())
    caption = (
        "**Fréchet distance to real images** of the same resolution, lower is better, "
        f"`{protocol}`: {' or '.join(f'{k:,}' for k in sorted(n))} images each, in features of a "
        "small classifier of these data, so no FID. "
        + ("In brackets: the interval of the evaluation." if ends
           else "One training seed has no interval.")
    )  # fmt: skip
    return table(caption, ("Resolution", *(_HEADS[name] for name in columns)), lines)


def _cell(row: Row) -> Cell:
    cell = value_cell(row)
    if row.interval and row.low is not None and row.high is not None:
        return Cell(with_ends(cell.text, row.low, row.high), cell.title)
    return cell


def _distances(evaluation: Evaluation, protocol: str) -> dict[str, Row]:
    """Rows of one protocol by generator."""
    return {row.generator: row for row in evaluation.rows if row.protocol == protocol}
