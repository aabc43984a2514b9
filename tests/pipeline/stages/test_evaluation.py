"""Evaluation end to end, with networks that nobody trained: what counts here is the bookkeeping."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pagoda import artifacts, distributed
from pagoda.config import Config, parse
from pagoda.config.paths import Paths
from pagoda.data.pixels import to_uint8
from pagoda.diffusion.solver import edm_grid, sample
from pagoda.errors import PagodaError
from pagoda.evaluation import streaming
from pagoda.evaluation.metrics.frechet import frechet_distance_of_features
from pagoda.evaluation.metrics.high_frequency import high_frequency_energy
from pagoda.evaluation.reference import from_artifact
from pagoda.evaluation.samplers import Draws, one_step, untrained, upsample
from pagoda.evaluation.streaming import Images, StoredImages, subset
from pagoda.networks.classifier import extract, load_feature_network
from pagoda.networks.denoiser import load_denoiser
from pagoda.networks.generator import generator_from_teacher, load_generator
from pagoda.pipeline.stages import downsample, evaluate, features, reference
from pagoda.pipeline.stages.models import pipeline_samplers
from tests.evaluation.features.stand_ins import publish, write_inception
from tests.group import log, run_group
from tests.pipeline.stages.evaluated import (
    CLASSES,
    SAMPLES,
    changed,
    drawn,
    evaluation,
    generator_of,
    images_of,
    prior,
    values,
)
from tests.pipeline.stages.untrained import write_models
from tests.tiny import tiny_tree


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A folder with everything that evaluation reads, and both evaluations."""
    made = parse(tiny_tree(**{"target_res": 16, "evaluate.grid_per_class": 5}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("evaluation"))
        torch.set_num_threads(1)
        for resolution in made.resolutions:
            downsample.run(made, resolution)
        features.run(made)
        write_models(made)
        for resolution in made.resolutions:
            reference.run(made, resolution)
            evaluate.run(made, resolution)
        yield made


def test_pixels_that_are_not_finite_are_not_scored(config: Config) -> None:
    artifact = artifacts.open_artifact(Paths(config).generator(8), "generator")
    images = one_step(artifact, Draws(0, 6, 4, torch.device("cpu")))
    assert images.read(np.arange(6)).shape == (6, 3, 8, 8)
    damaged = load_generator(artifact.weights(), artifact.card())
    next(iter(damaged.parameters())).data[0] = float("nan")
    images = one_step(artifact, images.draws, network=lambda: damaged)
    with pytest.raises(PagodaError) as error:
        images.read(np.arange(6))
    assert str(error.value).startswith(f"{artifact.path} made images with values that are not fin")


def cell_images(images: torch.Tensor, columns: int) -> np.ndarray:
    """Sample grid of images 0, 1, 2 ...: cell (c, j) holds image c + 10 j."""
    wide = images[: columns * CLASSES].reshape(columns, CLASSES, *images.shape[1:])
    return wide.transpose(0, 1).numpy()


def test_every_row_can_be_traced(config: Config) -> None:
    names = {
        8: {"student": 1, "teacher": 7, "untrained_teacher_weights": 1, "untrained": 1,
            "real": None},
        16: {"grown": 1, "upsampled_base": 1, "real": None},
    }  # fmt: skip
    protocols = {
        "fd": "fd_classifier_64", "classifier_score": "score_classifier_64_s2",
        "precision": "precision_classifier_64_k3", "recall": "recall_classifier_64_k3",
        "coverage": "coverage_classifier_64_k3",
        "class_accuracy": "accuracy_classifier_64", "train_share": "train_share_classifier_64_m64",
        "fd_test": "fd_test_classifier_64_m64", "high_frequency": "high_frequency_ratio_64",
    }  # fmt: skip
    of_generated = "train_share", "fd_test", "high_frequency"
    small = "precision", "recall", "coverage", *of_generated
    for resolution, generators in names.items():
        found = values(config, resolution)
        every = {(g, m) for g in generators for m in protocols}
        assert set(found) == every - {("real", metric) for metric in of_generated}
        held = artifacts.open_artifact(Paths(config).reference(resolution), "reference")
        network = artifacts.open_artifact(Paths(config).features, "features")
        images = artifacts.open_artifact(Paths(config).data(resolution), "images")
        for (generator, metric), row in found.items():
            assert row["protocol"] == protocols[metric] and row.get("nfe") == generators[generator]
            assert row["n"] == SAMPLES and row["seed"] == config.evaluate.seed
            assert (row["resolution"], row["base_res"]) == (resolution, 8)
            of = images if metric in ("fd_test", "high_frequency") else held
            assert row["reference"] == of.fingerprint
            seen_by = "" if metric == "high_frequency" else network.fingerprint
            assert row.get("features", "") == seen_by
            assert row["reference_n"] == (64 if metric in small else 200)
            assert row["device"] and row["revision"]


def test_values_are_those_of_a_plain_computation(config: Config) -> None:
    """The student's distance and accuracy again, all at once and through other functions."""
    artifact = artifacts.open_artifact(Paths(config).features, "features")
    network = load_feature_network(artifact.weights(), artifact.card())
    rows, logits = extract(network, drawn(config, 8).numpy())
    expected = frechet_distance_of_features(extract(network, images_of(config, 8))[0], rows)
    found, test = values(config, 8), images_of(config, 8, "test")
    labels = artifacts.open_artifact(Paths(config).data(8), "images").array("test_labels")
    unseen = test[subset(len(test), SAMPLES, labels=labels)]
    held_out = extract(network, unseen)[0]
    distance = frechet_distance_of_features(held_out, rows)
    assert found["student", "fd_test"]["value"] == pytest.approx(distance, rel=1e-3)
    assert found["student", "fd"]["value"] == pytest.approx(expected, rel=1e-3)
    accuracy = float(np.mean(logits.argmax(1) == np.arange(SAMPLES) % CLASSES))
    assert found["student", "class_accuracy"]["value"] == pytest.approx(accuracy, abs=1 / SAMPLES)
    sharp, real = map(high_frequency_energy, (drawn(config, 8).numpy(), unseen))
    assert found["student", "high_frequency"]["value"] == pytest.approx(sharp / real, rel=1e-3)


@pytest.mark.longer
def test_a_generator_that_copies_training_images_is_found(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference keeps 64 training images: shown, they have a fraction of 1, others not."""
    held = artifacts.open_artifact(Paths(config).data(8), "images")

    def copying(*args: Any) -> dict[str, Images]:
        found: dict[str, Images] = {**pipeline_samplers(*args)}
        images, labels = (held.array(f"{split}_{what}") for what in ("images", "labels"))
        kept = subset(len(images), SAMPLES)
        return found | {"student": StoredImages("copies", images, labels, kept)}

    monkeypatch.setattr(evaluate, "pipeline_samplers", copying)
    shown = {}
    for split in ("train", "test"):
        evaluate.run(config, 8)
        shown[split] = {
            m: row["value"] for (g, m), row in values(config, 8).items() if g == "student"
        }
    assert shown["train"]["train_share"] > 0.95 and shown["test"]["train_share"] < 0.5
    assert shown["train"]["fd_test"] > 2 * shown["train"]["fd"]
    monkeypatch.undo()
    evaluate.run(config, 8)


def test_real_images_are_the_floor(config: Config) -> None:
    for resolution in config.resolutions:
        found = values(config, resolution)
        distances = {g: row["value"] for (g, m), row in found.items() if m == "fd"}
        assert min(distances, key=distances.__getitem__) == "real"
        recalls = {g: row["value"] for (g, m), row in found.items() if m == "recall"}
        assert max(recalls, key=recalls.__getitem__) == "real"


def test_grids_show_the_samples_of_shared_latents(config: Config) -> None:
    for resolution, main in ((8, "student"), (16, "grown")):
        artifact = evaluation(config, resolution)
        grids = artifact.json("results")["sheets"]
        samples = artifact.array("samples")
        assert grids[0] == main and "real" not in grids
        assert samples.shape == (len(grids), CLASSES, 5, 3, resolution, resolution)
        apart = samples[0].astype(int) - cell_images(drawn(config, resolution), 5)
        assert np.abs(apart).max() <= 1  # batches of another size may round differently
        assert len(np.unique(samples[0].reshape(50, -1), axis=0)) == 50
        if resolution == 16:
            there = samples[grids.index("upsampled_base")].astype(int)
            plain = to_uint8(upsample(drawn(config, 8), 16))
            assert np.abs(there - cell_images(plain, 5)).max() <= 1


def test_the_teacher_samples_by_heun_from_the_same_latents(config: Config) -> None:
    z, labels = prior(config)
    artifact = artifacts.open_artifact(Paths(config).teacher, "teacher")
    denoiser = load_denoiser(artifact.weights(), artifact.card())
    schedule = config.diffusion
    grid = edm_grid(
        config.evaluate.teacher_steps, schedule.sigma_min, schedule.sigma_max, schedule.rho
    )
    with torch.inference_mode():
        images = to_uint8(sample(denoiser, z * schedule.sigma_max, grid, labels))
        one_step = generator_from_teacher(denoiser, sigma_max=schedule.sigma_max, output="denoiser")
        at_once = to_uint8(one_step.eval()(z, labels))
    found = evaluation(config, 8)
    grids = found.json("results")["sheets"]
    for name, expected in (("teacher", images), ("untrained_teacher_weights", at_once)):
        there = found.array("samples")[grids.index(name)]
        assert np.abs(there.astype(int) - cell_images(expected, 5)).max() <= 1


def test_neighbours_belong_to_the_first_grid(config: Config) -> None:
    found = evaluation(config, 16)
    neighbours = found.array("neighbours")
    assert neighbours.shape == (1, CLASSES, 4, 3, 16, 16)
    train = images_of(config, 16)
    everything = np.concatenate([train, train[..., ::-1]]).astype(np.int64)
    for c, j in ((0, 0), (7, 3)):
        asked = found.array("samples")[0, c, j].astype(np.int64)
        gaps = ((everything - asked) ** 2).sum((1, 2, 3))
        assert ((neighbours[0, c, j].astype(np.int64) - asked) ** 2).sum() == gaps.min()


@pytest.mark.longer
def test_a_second_run_gives_the_same_bytes(config: Config) -> None:
    first = {r: evaluation(config, r).fingerprint for r in config.resolutions}
    torch.manual_seed(123)  # no draw comes from the global generator
    for resolution in config.resolutions:
        evaluate.run(config, resolution)
        assert evaluation(config, resolution).fingerprint == first[resolution]


def _evaluate(tree: dict[str, Any]) -> None:
    """Both stages, in blocks that three processes share unequally."""
    streaming.BLOCK = 30
    with distributed.group():
        for stage in (reference, evaluate):
            stage.run(parse(tree), 16)
            distributed.barrier()


@pytest.mark.longer
def test_several_processes_give_the_same_bits(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shutil.copytree(Path.cwd(), shared)
    shutil.copytree(Path.cwd(), tmp_path / "alone")
    tree = dataclasses.asdict(config)
    assert run_group(3, _evaluate, tree, folder=shared, limit=400) == [0] * 3, log(shared)
    monkeypatch.setattr(streaming, "BLOCK", streaming.BLOCK)
    monkeypatch.chdir(tmp_path / "alone")
    _evaluate(tree)
    for part in (Paths(config).reference(16), Paths(config).evaluation(16)):
        texts = [(folder / part / artifacts.MANIFEST).read_text() for folder in (shared, Path())]
        assert len({json.loads(text)["fingerprint"] for text in texts}) == 1


def test_the_seed_decides_and_the_batch_does_not(config: Config) -> None:
    before = values(config, 16)
    evaluate.run(changed(config, "evaluate", batch=23), 16)
    for key, row in values(config, 16).items():
        assert row["value"] == pytest.approx(before[key]["value"], rel=0.02, abs=1 / SAMPLES)
    evaluate.run(changed(config, "evaluate", seed=config.evaluate.seed + 1), 16)
    after = values(config, 16)
    evaluate.run(config, 16)
    assert after["grown", "fd"]["value"] != before["grown", "fd"]["value"]
    assert after["real", "fd"]["value"] == before["real", "fd"]["value"]
    assert values(config, 16) == before


@pytest.mark.longer
def test_a_test_reference_has_training_images_as_its_floor(config: Config) -> None:
    """Real images are held-out from the reference, whichever split that is."""
    other = changed(config, "reference", split="test")
    reference.run(other, 8)
    evaluate.run(other, 8)
    found = values(other, 8)["real", "fd"]
    reference.run(config, 8)
    evaluate.run(config, 8)
    assert found["reference_n"] == 100 and found["n"] == SAMPLES and found["value"] > 0.0


def test_a_reference_of_other_images_or_features_is_refused(config: Config) -> None:
    where = Paths(config).reference(16) / artifacts.MANIFEST
    kept = where.read_text()
    for key in ("data", "features"):
        manifest = json.loads(kept)
        manifest["inputs"][key] = "0" * 64
        where.write_text(json.dumps(manifest))
        with pytest.raises(PagodaError, match=rf"made from other {key} .* reference@16") as raised:
            evaluate.run(config, 16)
        assert "\n" not in str(raised.value)
    where.write_text(kept)
    evaluate.run(config, 16)


def test_a_profile_may_name_more_feature_networks(config: Config, tmp_path: Path) -> None:
    """A user's TorchScript file beside the classifier, whose values stay as they were."""
    torch.jit.script(_Means()).save(str(tmp_path / "means.pt"))
    before = evaluation(config, 16).json("results")["rows"]
    rows = evaluated(config, ["classifier", f"custom:{tmp_path}/means.pt"])
    assert [row for row in rows if "custom" not in row["protocol"]] == before
    held = artifacts.open_artifact(Paths(config).reference(16, "custom_means"), "reference")
    assert held.fingerprint in {row["reference"] for row in rows}
    of_grown = {row["protocol"]: row["value"] for row in rows if row["generator"] == "grown"}
    assert set(of_grown) >= {
        "fd_custom_means_64", "precision_custom_means_64_k3", "train_share_custom_means_64_m64",
        "fd_test_custom_means_64_m64",
    }  # fmt: skip
    expected = frechet_distance_of_features(
        images_of(config, 16).mean((2, 3)), drawn(config, 16).numpy().mean((2, 3))
    )
    assert of_grown["fd_custom_means_64"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_inception_in_the_pipeline(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with Inception's interface and random weights, at hand in a folder."""
    write_inception(tmp_path / "inception-2015-12-05.pt")
    publish(tmp_path / "inception-2015-12-05.pt", monkeypatch)
    rows = evaluated(config, ["classifier", "inception:legacy_tensorflow"], str(tmp_path))
    assert {row["protocol"] for row in rows if row["generator"] == "grown"} >= {
        "fid_legacy_tensorflow_64", "sfid_legacy_tensorflow_64", "is_legacy_tensorflow_64_s2",
        "is_adm_legacy_tensorflow_64_s1", "recall_inception_legacy_tensorflow_64_k3",
        "train_share_inception_legacy_tensorflow_64_m64", "fid_test_legacy_tensorflow_64_m64",
    }  # fmt: skip


def evaluated(
    config: Config, extractors: list[str], weights: str | None = None
) -> list[dict[str, Any]]:
    """Rows at 16 with these feature networks; the configuration's own results come back after."""
    more = changed(config, "reference", extractors=extractors, weights=weights)
    reference.run(more, 16)
    evaluate.run(more, 16)
    rows = evaluation(config, 16).json("results")["rows"]
    evaluate.run(config, 16)
    return list(rows)


@pytest.mark.longer
def test_an_efficientnet_measures_the_kernel_distance_on_subsets_that_can_be_drawn(
    config: Config,
) -> None:
    rows = evaluated(config, ["classifier", "efficientnet:lite1:32"])
    found = {row["generator"]: row for row in rows if row["metric"] == "kd"}
    assert set(found) == {"grown", "upsampled_base", "real"}
    assert {row["protocol"] for row in found.values()} == {"kd_efficientnet_lite1_32_64_s100_m64"}
    assert found["real"]["value"] < found["grown"]["value"]


class _Means(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3))


def test_weights_that_are_not_at_hand_are_named_before_training(
    config: Config, tmp_path: Path
) -> None:
    names, folder = ["classifier", "inception:clean"], str(tmp_path)
    with pytest.raises(PagodaError, match=r"names inception:clean: there is no .*2015") as raised:
        reference.run(changed(config, "reference", extractors=names, weights=folder), 16)
    assert "\n" not in str(raised.value)
    reference.run(config, 16)  # the classifier needs none
    names = ["classifier", "custom:pagoda.nowhere:f"]
    with pytest.raises(PagodaError, match=r"names custom:pagoda.nowhere:f: cannot import"):
        reference.run(changed(config, "reference", extractors=names, weights=folder), 16)
    evaluate.run(config, 16)


def test_a_missing_generator_is_named(config: Config) -> None:
    away = (where := Paths(config).generator(16)).rename("away")
    with pytest.raises(PagodaError, match=r"gen/16 is missing; 'dvc repro'"):
        evaluate.run(config, 16)
    away.rename(where)


def test_cached_parts_of_a_reference_belong_to_it(config: Config) -> None:
    held = from_artifact(artifacts.open_artifact(Paths(config).reference(8), "reference"))
    factor = held.moments.cholesky
    np.testing.assert_allclose(factor @ factor.T, held.moments.covariance, atol=1e-10)
    assert len(held.features) == 64 and held.n == 200


def test_an_untrained_generator_is_random_in_every_layer(config: Config) -> None:
    card = generator_of(config, 16).card()
    first, again, other = (untrained(card, seed) for seed in (3, 3, 4))
    assert all(p.any() for n, p in first.named_parameters() if n.endswith("conv.weight"))
    with torch.inference_mode():
        images = [g(*prior(config)) for g in (first, again, other)]
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
    assert images[0].std(dim=0).mean() > 0  # samples differ: it is not one grey picture
