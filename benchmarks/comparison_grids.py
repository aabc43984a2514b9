"""Samples of several runs side by side, from the same latents."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pagoda.results.grids import Group, draw
from pagoda.results.labels import generator_label


@dataclass(frozen=True)
class Picture:
    """A file beside ``comparison.md``."""

    file: str
    title: str
    caption: str


@dataclass(frozen=True)
class Grids:
    """Samples of a run at one resolution, by generator; the first is the main one."""

    base: int
    seed: int
    images: dict[str, np.ndarray]

    @property
    def main(self) -> str:
        return next(iter(self.images))


def draw_grids(work: Path, runs: list[str], folder: Path) -> list[Picture]:
    """Draw the first run through the resolutions, and every run at base and target resolution."""
    params = {run: yaml.safe_load((work / run / "params.yaml").read_text()) for run in runs}
    found = {run: read_grids(work / run, tree) for run, tree in params.items()}
    first = runs[0]
    names = _classes(work / first, params[first])
    if not found[first] or not names:
        return []
    ladder = [Group(f"{r}×{r}, {generator_label(s.main).lower()}", s.images[s.main])
              for r, s in found[first].items()]  # fmt: skip
    draw(ladder, names, folder / "resolutions.png")
    seed = next(iter(found[first].values())).seed
    same = f"The first latents of each class (seed {seed}), not selected"
    pictures = [Picture("resolutions.png", f"Run {first} through the resolutions",
                        f"Run {first}, the same latents at every resolution. {same}.")]  # fmt: skip
    for resolution in dict.fromkeys((params[first]["base_res"], params[first]["target_res"])):
        groups, other = beside(found, resolution)
        if not groups:
            continue
        file = f"runs-{resolution}.png"
        draw(groups, names, folder / file)
        who = " | ".join(group.title for group in groups)
        note = f" {', '.join(other)}: latents of another size, so other images." if other else ""
        pictures.append(Picture(file, f"Runs at {resolution}x{resolution}",
                                f"{resolution}×{resolution}: {who}. {same}.{note}"))  # fmt: skip
    return pictures


def read_grids(run: Path, tree: dict[str, Any]) -> dict[int, Grids]:
    """The grids of every resolution that a run was evaluated at."""
    base, found = tree["base_res"], {}
    for resolution in tree["resolutions"]:
        folder = run / "runs" / tree["name"] / f"b{base}" / "evaluate" / str(resolution)
        if (folder / "results.json").exists():
            result = json.loads((folder / "results.json").read_text())
            images = dict(zip(result["sheets"], np.load(folder / "samples.npy"), strict=True))
            found[resolution] = Grids(base, result["rows"][0]["seed"], images)
    return found


def beside(found: dict[str, dict[int, Grids]], resolution: int) -> tuple[list[Group], list[str]]:
    """The main generator of every run, after the first run's teacher; runs with other latents.

    Runs that share a generator with an earlier one, as growth alone differs, are shown once.
    """
    groups: list[Group] = []
    other, shown = [], list[np.ndarray]()
    base = next(iter(next(iter(found.values())).values())).base
    for run, grids in found.items():
        if resolution not in grids:
            continue
        here = grids[resolution]
        if not groups and "teacher" in here.images:
            groups.append(Group("teacher", here.images["teacher"]))
        images = here.images[here.main]
        if not any(np.array_equal(images, known) for known in shown):
            shown.append(images)
            groups.append(Group(run, images))
            if here.base != base:
                other.append(run)
    return groups, other


def _classes(run: Path, tree: dict[str, Any]) -> tuple[str, ...]:
    card = run / "runs" / tree["name"] / "data" / str(tree["target_res"]) / "card.json"
    return tuple(map(str, json.loads(card.read_text())["classes"])) if card.exists() else ()
