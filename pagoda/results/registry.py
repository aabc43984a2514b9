"""A tracked generator in MLflow's model registry: files, signature, card, and how it is opened.

The artifact is the generator's folder with an ``MLmodel`` beside it: ``mlflow.pyfunc.load_model``
opens it by :func:`_load_pyfunc`, from safetensors, and no pickle is written or read.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pagoda.results.labels import DISTANCES
from pagoda.results.numbers import number
from pagoda.rows import Row

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "model"
_CLASS, _SEED = "class", "seed"


@dataclass(frozen=True)
class Generator:
    """A generator to register."""

    name: str  # of the registered model
    folder: Path  # its artifact
    resolution: int
    classes: tuple[str, ...]
    card: str  # Markdown


def card(name: str, data: str, resolution: int, rows: Sequence[Row]) -> str:
    """What a reader needs before they use it: images, distances with their protocol, the call."""
    told = [f"- `{r.protocol}` {number(r.number)} ({r.n:,} samples, {r.nfe} network evaluation)"
            for r in rows if r.metric in DISTANCES]  # fmt: skip
    return "\n".join([
        f"# {name}", "",
        f"One-step generator of {resolution}×{resolution} images, grown as in PaGoDA "
        "(arXiv 2405.14822). Not for use where a wrong image does harm.", "",
        f"Trained on: {data}.", "", "Fréchet distance to real images, lower is better; its name is "
        "its protocol, and only Inception features make a FID:", "", *told, "",
        "```python", "import mlflow, pandas",
        f'model = mlflow.pyfunc.load_model("models:/{name}/latest")',
        'model.predict(pandas.DataFrame({"class": [0, 1], "seed": [0, 0]}))'
        f"  # uint8 (2, 3, {resolution}, {resolution})",
        "```", "",
    ])  # fmt: skip


def register(client: MlflowClient, run: str, generator: Generator) -> str:
    """Put a generator among a run's artifacts and make a version of the registered model of it.

    Returns:
        The number of the version.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from mlflow.types.schema import DataType

    side = generator.resolution
    model = Model(artifact_path=FOLDER, run_id=run, signature=ModelSignature(
        inputs=Schema([ColSpec(DataType.long, _CLASS), ColSpec(DataType.long, _SEED)]),
        outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, 3, side, side), "images")]),
    ))  # fmt: skip
    mlflow.pyfunc.add_to_model(model, loader_module=__name__, data="generator")
    with tempfile.TemporaryDirectory() as made:
        model.save(f"{made}/MLmodel")
        Path(made, "README.md").write_text(generator.card, encoding="utf-8")
        client.log_artifacts(run, made, FOLDER)
    client.log_artifacts(run, str(generator.folder), f"{FOLDER}/generator")
    with contextlib.suppress(MlflowException):  # it is there already
        client.create_registered_model(generator.name)
    version = client.create_model_version(
        generator.name, f"{client.get_run(run).info.artifact_uri}/{FOLDER}", run,
        tags={"resolution": str(side)}, description=generator.card,
    )  # fmt: skip
    return str(version.version)


class _Sampler:
    """What MLflow calls: a line of the table is an image."""

    def __init__(self, folder: str) -> None:
        import pagoda

        self.model: Any = pagoda.load(folder)

    def predict(self, table: Any, params: Any = None) -> np.ndarray[Any, Any]:
        """uint8 images (lines, 3, R, R) of the classes, by number, and seeds of a table."""
        classes, seeds = np.asarray(table[_CLASS]), np.asarray(table[_SEED])
        known = np.unique(classes)
        found = [np.flatnonzero(classes == c) for c in known]
        made = [self.model.sample(classes=[int(c)], seeds=seeds[i].tolist())
                for c, i in zip(known, found, strict=True)]  # fmt: skip
        return np.concatenate(made)[np.argsort(np.concatenate(found))]


def _load_pyfunc(path: str) -> _Sampler:
    return _Sampler(path)
