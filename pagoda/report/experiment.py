"""One finished experiment, read back from its artifacts."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from pagoda import artifacts
from pagoda.config import Config
from pagoda.errors import PagodaError
from pagoda.report.history import History, read_history
from pagoda.stages.paths import Paths


@dataclass(frozen=True)
class Row:
    """One measured value with all that is needed to trace it.

    ``sd``, if there is one, is over the subsets or splits that the value is a mean over.
    """

    generator: str
    metric: str
    protocol: str
    value: float
    n: int
    seed: int
    resolution: int
    reference: str
    reference_n: int
    features: str
    revision: str
    device: str
    base_res: int
    nfe: int | None = None
    sd: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Results and sample sheets at one resolution.

    Attributes:
        resolution: of the images.
        rows: every value measured.
        sheets: name of each sample sheet; the first is the main generator's.
        samples: (sheets, classes, columns, 3, R, R) uint8; a cell's latent is the same everywhere.
        neighbours: (1, classes, k, 3, R, R) uint8, the training image nearest to the first k
            columns of the first sheet.
        fingerprint: of the artifact.
        inputs: fingerprints of what it was made from.
    """

    resolution: int
    rows: tuple[Row, ...]
    sheets: tuple[str, ...]
    samples: NDArray[np.uint8]
    neighbours: NDArray[np.uint8]
    fingerprint: str
    inputs: dict[str, str]

    @property
    def main(self) -> str:
        """The generator the experiment is about at this resolution."""
        return self.sheets[0]


@dataclass(frozen=True)
class Experiment:
    """Everything the report prints and the tracker stores.

    Attributes:
        config: the configuration.
        classes: class names, by label.
        data: card of the images at the target resolution.
        data_fingerprint: of those images.
        latents: card of the inverted latents.
        evaluations: by resolution, ascending.
        histories: by stage, in the order of the pipeline.
    """

    config: Config
    classes: tuple[str, ...]
    data: dict[str, Any]
    data_fingerprint: str
    latents: dict[str, Any]
    evaluations: dict[int, Evaluation]
    histories: dict[str, History]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every value at every resolution."""
        return tuple(row for e in self.evaluations.values() for row in e.rows)

    @property
    def identity(self) -> str:
        """SHA-256 over the parameters and the evaluations: equal experiments, equal identity."""
        fingerprints = {str(r): e.fingerprint for r, e in self.evaluations.items()}
        return artifacts.digest([parameters_hash(self.config), fingerprints])


def stage_names(config: Config) -> list[str]:
    """Stages that write a history, in the order of the pipeline."""
    return ["features", "teacher", "invert", "distill", *(f"grow-{r}" for r in config.growth)]


def parameters_hash(config: Config) -> str:
    """SHA-256 over every parameter."""
    return artifacts.digest(dataclasses.asdict(config))


def read_experiment(config: Config) -> Experiment:
    """Read an experiment's artifacts, relative to the working folder.

    Raises:
        PagodaError: one line for what is missing, damaged or from another configuration.
    """
    paths = Paths(config)
    data, fingerprint = _read_card(paths.data(config.target_res), "images")
    latents, _ = _read_card(paths.latents, "latents")
    return Experiment(
        config=config,
        classes=tuple(str(c) for c in data["classes"]),
        data=data,
        data_fingerprint=fingerprint,
        latents=latents,
        evaluations={r: _read_evaluation(config, paths, r) for r in sorted(config.resolutions)},
        histories={s: read_history(paths.history(s), s) for s in stage_names(config)},
    )


def _read_card(path: Path, kind: str) -> tuple[dict[str, Any], str]:
    artifact = artifacts.peek(path, kind)
    return artifact.card(), artifact.fingerprint


def _read_evaluation(config: Config, paths: Paths, resolution: int) -> Evaluation:
    expect = {"name": config.name, "base_res": config.base_res, "resolution": resolution}
    artifact = artifacts.open_artifact(paths.evaluation(resolution), "evaluation", expect)
    tree, where = artifact.json("results"), artifact.path / "results.json"
    samples, neighbours = artifact.array("samples"), artifact.array("neighbours")
    sheets = tuple(tree["sheets"])
    if len(sheets) != len(samples) or samples.shape[-1] != resolution:
        raise PagodaError(
            f"{artifact.path}: sample sheets {sheets} do not fit samples of shape "
            f"{samples.shape} at {resolution}; run 'dvc repro -f evaluate@{resolution}'"
        )
    return Evaluation(
        resolution=resolution,
        rows=tuple(_read_row(row, f"{where}, row {n}") for n, row in enumerate(tree["rows"], 1)),
        sheets=sheets,
        samples=samples,
        neighbours=neighbours,
        fingerprint=artifact.fingerprint,
        inputs=dict(artifact.manifest["inputs"]),
    )


def check_row(tree: Any, where: str, unknown: tuple[str, ...] = ()) -> dict[str, Any]:
    """The entries of a row, if each is there and of the type that :class:`Row` says.

    Args:
        tree: of any shape, as JSON gives it.
        where: file and row, for the message.
        unknown: entries that may be None beside those that :class:`Row` allows to be.

    Raises:
        PagodaError: one line; an entry is missing or wrong, or a number is not finite.
    """
    if not isinstance(tree, dict):
        raise PagodaError(f"{where} is no row of measured values")
    for field in dataclasses.fields(Row):
        if field.name not in tree and field.default is dataclasses.MISSING:
            raise PagodaError(f"{where} lacks {field.name}")
        value, hint = tree.get(field.name), _HINTS[field.name]
        kind, *none = getattr(hint, "__args__", (hint,))
        if value is None and (none or field.name in unknown):
            continue
        if not _is(value, kind):
            raise PagodaError(f"{where}: {field.name} = {value!r} is not {_WORDS[kind]}")
    return tree


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        kinds = isinstance(value, int | float) and abs(value) <= sys.float_info.max  # no NaN
        return kinds and not isinstance(value, bool)
    return type(value) is kind


def _read_row(tree: Any, where: str) -> Row:
    again = "; run 'dvc repro -f evaluate'"
    try:
        row = check_row(tree, where)
        if wrong := sorted(set(row) - set(_HINTS)):
            raise PagodaError(f"{where} has unknown entries: {', '.join(wrong)}")
    except PagodaError as error:
        raise PagodaError(f"{error}{again}") from error
    return Row(**row)


_HINTS = get_type_hints(Row)
_WORDS = {str: "text", int: "a whole number", float: "a finite number"}
