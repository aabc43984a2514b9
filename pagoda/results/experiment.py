"""One finished experiment, read back from its artifacts and its training curves."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagoda import artifacts
from pagoda import rows as files
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.methods.clip import OWN
from pagoda.rows import Row

_NOT_CURVES = {"images", "step", "seconds", "final"}


@dataclass(frozen=True)
class History:
    """One stage's rows, in the order they were written.

    Each has ``images`` (seen so far), ``step``, ``seconds`` (since the stage began, resumed parts
    included) and the stage's statistics.
    """

    stage: str  # teacher, invert, distill, grow-16, ...
    rows: tuple[dict[str, Any], ...]

    @property
    def images(self) -> int:
        """Images seen at the last row."""
        return int(self.rows[-1]["images"]) if self.rows else 0

    @property
    def steps(self) -> int:
        """Steps done at the last row."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def seconds(self) -> float:
        """Wall time of the stage's work at the last row."""
        return float(self.rows[-1]["seconds"]) if self.rows else 0.0

    def names(self) -> list[str]:
        """Names of the curves, in order of first appearance."""
        found = ((k, v) for row in self.rows for k, v in row.items() if k not in _NOT_CURVES)
        return list(dict.fromkeys(k for k, v in found if type(v) in (int, float)))

    def curve(self, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(images seen, value) of the rows that carry ``key``, both (n,)."""
        found = [(r["images"], r[key]) for r in self.rows if type(r.get(key)) in (int, float)]
        images, values = np.array(found, np.float64).reshape(-1, 2).T
        return images, values


@dataclass(frozen=True)
class Evaluation:
    """Results and grids of samples at one resolution."""

    resolution: int
    rows: tuple[Row, ...]
    names: tuple[str, ...]  # of the generator of each grid; the first is the main one
    samples: NDArray[np.uint8]  # (grids, classes, columns, 3, R, R); a place has one latent in all
    neighbours: NDArray[np.uint8]  # (1, classes, k, 3, R, R): training images nearest to the first
    fingerprint: str  # of the artifact

    @property
    def main(self) -> str:
        """The generator the experiment is about at this resolution."""
        return self.names[0]


@dataclass(frozen=True)
class Experiment:
    """Everything the report prints and the tracker stores."""

    config: Config
    classes: tuple[str, ...]  # names, by label
    data: dict[str, Any]  # card of the images at the target resolution
    data_fingerprint: str
    latents: dict[str, Any]  # card of the inverted latents
    evaluations: dict[int, Evaluation]  # by resolution, ascending
    histories: dict[str, History]  # by stage, in the order of the pipeline

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every value at every resolution."""
        return tuple(row for e in self.evaluations.values() for row in e.rows)

    @property
    def main_rows(self) -> list[Row]:
        """Values of the main generator of every resolution."""
        return [r for e in self.evaluations.values() for r in e.rows if r.generator == e.main]

    @property
    def seconds(self) -> float:
        """Wall time of all training stages."""
        return sum(history.seconds for history in self.histories.values())

    @property
    def identity(self) -> str:
        """SHA-256 over the parameters and the evaluations: equal experiments, equal identity."""
        fingerprints = {str(r): e.fingerprint for r, e in self.evaluations.items()}
        return artifacts.digest([parameters_hash(self.config), fingerprints])


def stage_names(config: Config) -> list[str]:
    """Stages that write a history, in the order of the pipeline."""
    codes = ["autoencoder", *(f"encode-{r}" for r in config.resolutions)] if config.latent else []
    if config.captioned:
        codes = [*["clip"] * (config.text.encoder == OWN), "scorer"]
        codes += [f"caption-{r}" for r in config.resolutions]
    grown = [f"grow-{r}" for r in config.growth]
    return ["features", *codes, "teacher", "invert", "distill", *grown]


_SECTIONS = {"encode": "autoencoder", "clip": "text", "scorer": "text", "caption": "text"}


def stage_section(config: Config, stage: str) -> Any:
    """The section of the configuration that a stage of :func:`stage_names` is set by."""
    name = stage.split("-")[0]
    return getattr(config, _SECTIONS.get(name, name))


def parameters_hash(config: Config) -> str:
    """SHA-256 over every parameter."""
    return artifacts.digest(dataclasses.asdict(config))


def read_experiment(config: Config) -> Experiment:
    """Read an experiment's artifacts, relative to the working folder.

    Raises:
        PagodaError: one line for what is missing, damaged or from another configuration.
    """
    paths = Paths(config)
    data = artifacts.peek(paths.data(config.target_res), "images")
    card = data.card()
    return Experiment(
        config=config,
        classes=tuple(str(c) for c in card["classes"]),
        data=card,
        data_fingerprint=data.fingerprint,
        latents=artifacts.peek(paths.latents, "latents").card(),
        evaluations={r: _read_evaluation(config, paths, r) for r in sorted(config.resolutions)},
        histories={s: read_history(paths.history(s), s) for s in stage_names(config)},
    )


def _read_evaluation(config: Config, paths: Paths, resolution: int) -> Evaluation:
    expect = {"name": config.name, "base_res": config.base_res, "resolution": resolution}
    artifact = artifacts.open_artifact(paths.evaluation(resolution), "evaluation", expect)
    tree, again = artifact.json("results"), f"run 'dvc repro -f evaluate@{resolution}'"
    samples, neighbours = artifact.array("samples"), artifact.array("neighbours")
    names = tuple(tree["sheets"])
    if len(names) != len(samples) or samples.shape[-1] != resolution:
        raise PagodaError(
            f"{artifact.path}: grids of {names} do not fit samples of shape {samples.shape} at "
            f"{resolution}; {again}"
        )
    try:
        rows = files.from_json(tree["rows"], f"{artifact.path / 'results.json'}")
    except PagodaError as error:
        raise PagodaError(f"{error}; {again}") from error
    return Evaluation(resolution, tuple(rows), names, samples, neighbours, artifact.fingerprint)


def read_history(path: Path, stage: str, *, running: bool = False) -> History:
    """Read ``history/<stage>.jsonl``.

    Args:
        path: the file.
        stage: name of the stage.
        running: the stage may still be writing: a missing file is an empty history, and an
            unfinished last line is left for the next reading.

    Raises:
        PagodaError: one line for a missing or damaged file.
    """
    if not path.is_file():
        if running:
            return History(stage, ())
        raise PagodaError(f"{path} is missing; 'dvc repro' makes it")
    lines = path.read_text(encoding="utf-8").split("\n")
    if running:
        lines = lines[:-1]
    return History(stage, tuple(_row(path, n, line) for n, line in enumerate(lines, 1) if line))


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    where, again = f"{path} line {number}", "delete the file and run 'dvc repro'"
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise PagodaError(f"{where} is not a JSON object; {again}")
    if bad := [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]:
        raise PagodaError(f"{where}: {', '.join(bad)} is not finite; train the stage again")
    if not row.keys() >= {"images", "step", "seconds"}:
        raise PagodaError(f"{where} lacks images, step or seconds; {again}")
    return row
