"""A registered generator: MLflow opens it without a pickle, and it samples as the folder does."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import pagoda
from pagoda.results.registry import Generator, card, register
from tests.results.runs import client_of
from tests.results.synthetic_study import make_row
from tests.tiny_run import GEN


def test_mlflow_opens_the_registered_generator(
    tiny_run: Path, blank_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd

    monkeypatch.chdir(tmp_path)
    shutil.copy(blank_store, tmp_path)
    client, folder = client_of(tmp_path), tiny_run / GEN
    where = client.create_experiment("e", (tmp_path / "mlruns").as_uri())
    run = client.create_run(where).info.run_id
    text = card("pagoda-tiny", "8 images", 16, [make_row("few", 0, 3.5, resolution=16)])
    model = Generator("pagoda-tiny", folder, 16, (), text)
    assert [register(client, run, model) for _ in range(2)] == ["1", "2"]
    version = client.get_model_version("pagoda-tiny", "1")
    assert version.run_id == run and "`fd_classifier_1k` 3.50" in version.description
    kept = [f for f in (tmp_path / "mlruns").rglob("*") if f.is_file()]
    assert {f.name for f in kept} >= {"MLmodel", "README.md", "model.safetensors"}
    assert not [f for f in kept if f.suffix in (".pkl", ".pickle", ".pt")]

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    opened = mlflow.pyfunc.load_model("models:/pagoda-tiny/1")
    table = pd.DataFrame({"class": [3, 0, 3], "seed": [5, 1, 2]})
    images = opened.predict(table)
    own = pagoda.load(folder)
    for image, (c, s) in zip(images, table.itertuples(index=False), strict=True):
        off = np.abs(image.astype(int) - np.asarray(own.sample([int(c)], [int(s)]))[0].astype(int))
        assert off.max() <= 1  # batches of another size: the last digit
    with pytest.raises(mlflow.exceptions.MlflowException, match="seed"):
        opened.predict(table[["class"]])
