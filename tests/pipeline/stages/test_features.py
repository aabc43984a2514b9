"""The feature network's training and the reference statistics, from images to artifacts."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pagoda import artifacts
from pagoda.config import Config, parse
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.evaluation import streaming
from pagoda.evaluation.streaming import subset
from pagoda.networks.classifier import FeatureNetwork, extract, load_feature_network
from pagoda.pipeline.cli import main
from pagoda.pipeline.stages import downsample, features, reference
from tests.group import log, run_group
from tests.tiny import tiny_tree

SMALL = {
    "data.train_images": 240, "data.test_images": 80, "target_res": 16, "base_res": 8,
    "features.images": 2400, "features.batch": 24, "features.lr": 0.01, "features.channels": 4,
    "features.dim": 16, "reference.manifold_images": 50, "data.exif": True,
}  # fmt: skip

Make = Callable[..., Config]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images at 8 and 16 and a trained feature network."""
    config, folder = parse(tiny_tree(**SMALL)), tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for resolution in (8, 16):
            downsample.run(config, resolution)
        features.run(config)
    return folder


@pytest.fixture
def trained(made: Path, tiny_config: Make) -> Config:
    """A copy of it to work in."""
    config = tiny_config(**SMALL)
    shutil.copytree(made, Path.cwd(), dirs_exist_ok=True)
    return config


def network_of(config: Config) -> artifacts.Artifact:
    return artifacts.open_artifact(Paths(config).features, "features", {"name": config.name})


def reference_of(config: Config, resolution: int) -> artifacts.Artifact:
    expect = {"name": config.name, "resolution": resolution}
    return artifacts.open_artifact(Paths(config).reference(resolution), "reference", expect)


def test_training_learns_and_says_what_it_did(trained: Config) -> None:
    card = network_of(trained).card()
    # 80 held-out images of 10 balanced classes: a guess is right for 8, +- 2.7.
    assert set(card["accuracy"]) == {"8", "16"}
    assert min(card["accuracy"].values()) > 0.2 and max(card["accuracy"].values()) > 0.3
    assert card["images_seen"] == trained.features.images
    data = artifacts.open_artifact(Paths(trained).data(16), "images")
    assert card["data"] == data.fingerprint and card["classes"] == data.card()["classes"]
    rows = [json.loads(row) for row in Paths(trained).history("features").read_text().splitlines()]
    assert rows[-1]["images"] == trained.features.images
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert all({"images", "step", "seconds", "loss", "lr"} <= set(row) for row in rows)


@pytest.mark.parametrize("images", [24, 480])
def test_a_rate_that_breaks_the_network_writes_nothing(images: int, tiny_config: Make) -> None:
    """One step, whose loss is still that of the start; or twenty, whose losses are not finite."""
    config = tiny_config(**SMALL | {"features.lr": 1e30, "features.images": images})
    downsample.run(config, 16)
    with pytest.raises(PagodaError, match=r"^features: .* not finite.* learning rate .* run again"):
        features.run(config)
    assert not Paths(config).features.exists()


def test_the_run_seed_does_not_matter_and_its_own_does(trained: Config) -> None:
    first = network_of(trained).fingerprint
    torch.manual_seed(99)  # nor does the state of the global generator
    features.run(dataclasses.replace(trained, seed=trained.seed + 1))
    assert network_of(trained).fingerprint == first
    other = dataclasses.replace(trained.features, seed=trained.features.seed + 1)
    features.run(dataclasses.replace(trained, features=other))
    assert network_of(trained).fingerprint != first


def test_held_out_images_are_named_in_parts(
    trained: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all of them have to fit into memory; the shares are those of all at once."""
    expected = network_of(trained).card()["accuracy"]
    read: list[int] = []
    monkeypatch.setattr(features, "_AT_ONCE", 30)  # of 80: the last part is smaller

    def seen(network: FeatureNetwork, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        read.append(len(images))
        return extract(network, images)

    monkeypatch.setattr(features, "extract", seen)
    data = artifacts.open_artifact(Paths(trained).data(16), "images")
    card = network_of(trained)
    network = load_feature_network(card.weights(), card.card())
    assert features._accuracy(network, data, [8, 16]) == expected
    assert read == [30, 30, 30, 30, 20, 20]


def _command(tree: dict[str, Any]) -> None:
    """``pagoda features``, as a launcher's process runs it."""
    Path("params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    sys.argv = ["pagoda", "features"]
    with pytest.raises(SystemExit, match=r"^0$"):
        main()


@pytest.mark.longer
def test_two_processes_of_a_launcher_train_one_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch normalisation sees the rows of both, and so its running statistics too."""
    tree = tiny_tree(**SMALL | {"features.images": 192})
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    downsample.run(parse(tree), 16)
    folder = tmp_path / "shared"
    shutil.copytree(tmp_path / "runs", folder / "runs")
    assert run_group(2, _command, tree, folder=folder) == [0, 0], log(folder)
    features.run(parse(tree))
    alone, shared = (
        artifacts.open_artifact(part / Paths(parse(tree)).features, "features").weights()
        for part in (tmp_path, folder)
    )
    for key, value in alone.items():
        torch.testing.assert_close(shared[key], value, rtol=1e-2, atol=1e-3)
    assert not list((folder / ".scratch").rglob("*.safetensors"))


def test_no_feature_is_dead(trained: Config) -> None:
    artifact = network_of(trained)
    network = load_feature_network(artifact.weights(), artifact.card())
    for resolution in (8, 16):
        data = artifacts.open_artifact(Paths(trained).data(resolution), "images")
        rows, _ = extract(network, data.array("train_images"))
        assert rows.std(axis=0).min() > 0.02 * rows.std(axis=0).max()


@pytest.mark.parametrize("split", ["train", "test"])
def test_reference_statistics_are_those_of_the_split(trained: Config, split: str) -> None:
    section = dataclasses.replace(trained.reference, split=split)
    config = dataclasses.replace(trained, reference=section)
    reference.run(config, 8)
    found, data = reference_of(config, 8), artifacts.open_artifact(Paths(config).data(8), "images")
    network = load_feature_network(network_of(config).weights(), network_of(config).card())
    rows, _ = extract(network, data.array(f"{split}_images"))
    np.testing.assert_allclose(found.array("mean"), rows.astype(np.float64).mean(0), rtol=1e-12)
    covariance = np.cov(rows.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(found.array("covariance"), covariance, rtol=1e-9, atol=1e-14)
    card = found.card()
    assert card["split"] == split and card["n"] == len(rows) and card["manifold_n"] == 50
    assert card["extractor_fingerprint"] == network_of(config).fingerprint
    assert card["images"] == data.fingerprint and card["extractor"] == "classifier"
    assert card["exif"] is True  # as data.exif
    kept = {row.tobytes() for row in found.array("manifold")}
    assert len(kept) == 50 and kept <= {row.tobytes() for row in rows}


def test_reading_in_chunks_changes_no_bit(trained: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    reference.run(trained, 16)
    whole = reference_of(trained, 16).fingerprint
    monkeypatch.setattr(streaming, "BLOCK", 37)
    reference.run(trained, 16)
    assert reference_of(trained, 16).fingerprint == whole


def test_the_subset_covers_a_sorted_source() -> None:
    """Every class of a source sorted by class is in the subset, about in proportion."""
    labels = np.repeat(np.arange(10), 100)
    rows = subset(1000, 200)
    assert len(np.unique(rows)) == 200 and (np.diff(rows) > 0).all()
    counts = np.bincount(labels[rows], minlength=10)
    assert counts.min() >= 8 and counts.max() <= 34  # 20, within 3.5 standard deviations
    assert np.array_equal(subset(5, 200), np.arange(5))


def test_missing_inputs_are_named(tiny_config: Make) -> None:
    config = tiny_config(**SMALL)
    with pytest.raises(PagodaError, match=r"data/16 is missing; 'dvc repro'"):
        features.run(config)
    downsample.run(config, 8)
    with pytest.raises(PagodaError, match=r"features is missing; 'dvc repro'"):
        reference.run(config, 8)
    assert not Path(Paths(config).reference(8)).exists()


@pytest.fixture
def kept(trained: Config) -> Path:
    """The classifier and statistics of a run, in a folder ``kept`` outside of it."""
    for resolution in (8, 16):
        reference.run(trained, resolution)
    shared = Paths(trained).shared
    for name in ("features", "reference"):
        shutil.move(shared / name, Path("kept") / name)
    return Path("kept")


def taking(kept: Path, **other: Any) -> Config:
    """The experiment with them; one that is trained would have other weights."""
    there = {"features.imported": f"{kept}/features", "reference.imported": f"{kept}/reference"}
    return parse(tiny_tree(**SMALL | there | {"features.seed": 99} | other))


def test_an_imported_measure_is_the_one_it_was(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows measured with it anywhere compare with those of the run that it is from."""
    config = taking(kept)
    features.run(config)
    theirs = artifacts.open_artifact(kept / "features", "features")
    assert network_of(config).fingerprint == theirs.fingerprint
    (row,) = Paths(config).history("features").read_text().splitlines()
    assert json.loads(row)["images"] == 0
    with monkeypatch.context() as patch:
        patch.setattr(reference, "collect", None)  # no image is read
        for resolution in (8, 16):
            reference.run(config, resolution)
    for resolution in (8, 16):
        theirs = artifacts.open_artifact(kept / f"reference/{resolution}/classifier", "reference")
        found = reference_of(config, resolution)
        assert found.fingerprint == theirs.fingerprint
        assert found.manifest["inputs"] == {
            "data": artifacts.peek(Paths(config).data(resolution), "images").fingerprint,
            "features": network_of(config).fingerprint,
        }


def test_statistics_that_are_not_among_the_imported_are_measured(kept: Path) -> None:
    config = taking(kept)
    features.run(config)
    theirs = artifacts.open_artifact(kept / "reference/16/classifier", "reference").fingerprint
    shutil.rmtree(kept / "reference/16")
    reference.run(config, 16)
    assert reference_of(config, 16).fingerprint == theirs


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"features.imported": "nosuch"}, r"nosuch is missing"),
        ({"features.imported": "kept/reference/8/classifier"}, r"is an artifact of kind reference"),
        (
            {"target_res": 8},
            r"its resolution is 16, the experiment's is 8; choose another, or train",
        ),
    ],
)
def test_a_classifier_of_something_else_is_refused(
    kept: Path, other: dict[str, Any], says: str
) -> None:
    config = taking(kept, **other)
    for resolution in config.resolutions:
        downsample.run(config, resolution)
    with pytest.raises(PagodaError, match=says):
        features.run(config)
    assert not Paths(config).features.exists()


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"reference.split": "test"}, r"split train and test"),
        ({"reference.manifold_images": 40}, r"other images are kept for precision and recall"),
        ({"features.imported": "weights/none"}, r"extractor fingerprint \w+ and \w+"),
    ],
)
def test_statistics_of_something_else_are_refused(
    kept: Path, other: dict[str, Any], says: str
) -> None:
    config = taking(kept, **other)
    features.run(config)
    with pytest.raises(PagodaError, match=rf"^kept/reference/8/classifier does not .*{says}.*none"):
        reference.run(config, 8)
    assert not Paths(config).reference(8).exists()


def test_a_classifier_of_other_classes_is_refused(kept: Path) -> None:
    source = artifacts.open_artifact(kept / "features", "features")
    weights, card = source.weights(), source.card()
    with artifacts.create(kept / "features", "features", config={}) as out:
        artifacts.save_weights(out, weights, card | {"classes": ["cat", *card["classes"][1:]]})
    told = r"^kept/features: its list of classes is \['cat', .*'disc', "
    with pytest.raises(PagodaError, match=told):
        features.run(taking(kept))
