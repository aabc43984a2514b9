"""The best of several samples, and a second step: scores and maps that are known, end to end."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pagoda import artifacts
from pagoda.config import Config, for_its_methods, parse
from pagoda.config.paths import Paths
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_uint8
from pagoda.errors import PagodaError
from pagoda.evaluation.samplers import Draws, Map, Sampler, one_step
from pagoda.evaluation.two_steps import LEVEL, two_steps
from pagoda.methods.class_ratio import RATIO_FILE, ClassRatio
from pagoda.methods.mean_flow import average_velocity
from pagoda.networks.autoencoder import BESIDE
from pagoda.networks.captions import CaptionsInTurn
from pagoda.networks.generator import load_generator
from pagoda.pipeline.commands import scoring
from pagoda.pipeline.stages import (
    distill,
    downsample,
    features,
    invert,
    reference,
    steps,
    verify,
)
from pagoda.pipeline.stages.evaluate import open_inputs
from pagoda.pipeline.stages.models import pipeline_samplers, weight_of
from pagoda.pipeline.stages.verify import (
    best_of,
    candidate,
    count_list,
    load_ratio,
    random_of,
    scored,
)
from pagoda.tensors import save_tensors
from pagoda.training.sharding import full_state_on_main
from tests.methods.small import make
from tests.pipeline.stages.untrained import write_models
from tests.tiny import tiny_tree

N, CLASSES = 30, 3


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that an evaluation at 8x8 reads."""
    folder = tmp_path_factory.mktemp("verify")
    config = parse(tiny_tree(target_res=8))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)
        downsample.run(config, 8)
        features.run(config)
        write_models(config)
        reference.run(config, 8)
    return folder


@pytest.fixture
def config(made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The same in the working folder, to be changed."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return parse(tiny_tree(target_res=8))


def sampler() -> Sampler:
    """Images of as many greys as latents, darker by the class."""

    def make(z: torch.Tensor, labels: torch.Tensor, indices: np.ndarray) -> torch.Tensor:
        grey = torch.tanh(z.mean((1, 2, 3), keepdim=True)) - 0.1 * labels[:, None, None, None]
        return grey.expand(-1, 3, 4, 4)

    opened: tuple[Map, int] = make, 0
    draws = Draws(5, N, 8, torch.device("cpu"))
    return Sampler("grey", "grey", lambda: opened, 4, 2, CLASSES, 1, draws)


def brightness(images: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return images.mean((1, 2, 3))


def test_the_best_of_one_is_the_plain_sample_bit_for_bit() -> None:
    rows, plain = np.arange(3, 25), sampler()
    for one in (best_of(plain, scored(plain, 1, brightness)), random_of(plain, 1)):
        assert np.array_equal(one.read(rows), plain.read(rows))
        assert np.array_equal(one.labels, plain.labels)


def test_a_known_score_picks_the_brightest_candidate_of_the_class() -> None:
    rows, plain = np.arange(N), sampler()
    drawn = np.stack([candidate(plain, np.full(N, k)).read(rows) for k in range(4)])
    scores = scored(plain, 4, brightness)
    assert np.array_equal(scores.T, brightness_of(drawn))
    best = best_of(plain, scores)
    found = best.read(rows)
    assert np.array_equal(found, drawn[brightness_of(drawn).argmax(0), rows])
    assert (brightness_of(drawn)[1:] > brightness_of(drawn)[0]).any()  # else nothing was chosen
    assert np.array_equal(best.read(rows[7:20]), found[7:20])
    assert best.nfe == 4 and len(best) == N
    seeds = {tuple(c) for k in range(4) for c in
             np.stack(candidate(plain, np.full(N, k)).which(rows), 1).tolist()}  # fmt: skip
    assert len(seeds) == 4 * N  # no latent is a candidate twice


def test_a_weight_of_the_evaluation_is_for_generators_that_are_told_one(config: Config) -> None:
    """A student of a guided teacher stands beside it without a weight of its own."""
    student = artifacts.open_artifact(Paths(config).generator(8), "generator")
    draws = Draws(0, 4, 4, torch.device("cpu"))
    with pytest.raises(PagodaError, match="is a generator that is told no weight"):
        one_step(student, draws, guidance=2.0)
    assert weight_of(student, 2.0) == 1.0


def test_candidates_are_of_the_classes_of_their_captions() -> None:
    """Each caption's number stays, with which the network is told it."""
    told = CaptionsInTurn(np.array([40, 41, 42]), np.arange(50) % 10)
    plain = dataclasses.replace(sampler(), captions=told)
    other = candidate(plain, np.ones(N, np.int64))
    assert np.array_equal(other.which(np.arange(3))[1], [40, 41, 42])
    assert np.array_equal(other.labels, plain.labels) and plain.labels[:3].tolist() == [0, 1, 2]


def brightness_of(drawn: np.ndarray) -> np.ndarray:
    return drawn.mean((2, 3, 4))


def test_the_control_takes_any_of_the_candidates_as_often() -> None:
    plain = sampler()
    indices, labels = random_of(plain, 4).which(np.arange(N))
    assert np.array_equal(indices % N, np.arange(N)) and np.array_equal(labels, plain.labels)
    counts = np.bincount(indices // N, minlength=4)
    assert len(counts) == 4 and counts.min() >= 2


def test_the_stage_leaves_the_ratio_network_beside_the_generator(config: Config) -> None:
    settings = {"distill.method": "class_ratio", "distill.optim.images": 16}
    config = parse(for_its_methods(tiny_tree(target_res=8, **settings)))
    invert.run(config)
    distill.run(config)
    made = artifacts.open_artifact(Paths(config).generator(8), "generator")
    assert RATIO_FILE in made.manifest["files"]
    network, _ = load_ratio(made.path, made.card())
    labels = torch.arange(2)
    assert network(torch.zeros(2, 3, 8, 8), torch.ones(2), labels).isfinite().all()


def test_a_ratio_network_is_measured_from_end_to_end(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "verify.json"
    with pytest.raises(PagodaError, match=r"gen/8 has no ratio network.*method: class_ratio"):
        verify.run(config, 8, [1], out)
    method, where = make("class_ratio"), Paths(config).generator(8)
    assert isinstance(method, ClassRatio)
    about, trunk = method.card(), method.ratio.trunk
    about["ratio"]["unet"]["num_classes"] = config.data.num_classes
    trunk.label = torch.nn.Embedding(config.data.num_classes, trunk.embedding)
    old = artifacts.open_artifact(where, "generator")
    weights, card, identity = old.weights(), old.card(), old.config

    def put() -> None:
        with artifacts.create(where, "generator", config=identity) as made:
            artifacts.save_weights(made, weights, card | about)
            save_tensors(made / RATIO_FILE, full_state_on_main(method.beside()["ratio"]))

    put()
    with pytest.raises(PagodaError, match="verify a generator of images"):
        verify.load_ratio(where, about | {BESIDE: {"factor": 2}})
    verify.run(config, 8, [1, 2], out)
    rows = json.loads(out.read_text())["rows"]
    found = {(r["generator"], r["metric"]): r for r in rows}
    wanted = {"fd", "precision", "recall"}
    names = {"best_of_1", "best_of_2", "random_of_2"}
    assert set(found) == {(name, metric) for name in names for metric in wanted}
    assert [found[name, "fd"]["nfe"] for name in sorted(names)] == [1, 2, 1]
    assert len({found[name, "fd"]["value"] for name in names}) == 3
    assert capsys.readouterr().out.count("best_of_2") == 3
    method.ratio.head[1].bias.data.fill_(1e20)
    method.ratio.head[-1].weight.data.fill_(1e30)
    put()
    with pytest.raises(PagodaError, match=r"log-ratio is not finite at noise level 4"):
        verify.run(config, 8, [2], out)


def test_counts_are_numbers_from_one() -> None:
    assert count_list("1, 4") == [1, 4]
    for wrong in ("0,1", "2,2", "two", ""):
        with pytest.raises(PagodaError, match="--counts"):
            count_list(wrong)


def _without(r: torch.Tensor, t: torch.Tensor) -> float:
    """The embedding of the second time at r = 0."""
    return 0.0


def test_the_second_step_is_one_of_the_average_velocity_and_both_are_measured(
    config: Config, tmp_path: Path
) -> None:
    """x' = z - t u(z, 0, t) at the flow's time of the noise level."""
    where, out = Paths(config).generator(8), tmp_path / "steps.json"
    with pytest.raises(PagodaError, match=r"gen/8 makes images in one step alone"):
        steps.run(config, 0.8, out)
    with pytest.raises(PagodaError, match=r"--sigma 90; it must be between 0.002 and 80"):
        steps.run(config, 90.0, out)
    old = artifacts.open_artifact(where, "generator")
    weights, card, identity = old.weights(), old.card(), old.config
    with artifacts.create(where, "generator", config=identity) as made:
        artifacts.save_weights(made, weights, card | make("mean_flow").card())
    artifact = artifacts.open_artifact(where, "generator")
    draws = Draws(3, 6, 6, torch.device("cpu"))
    sampler = two_steps(artifact, draws, 0.002)
    network, plain = artifact.network(load_generator), one_step(artifact, draws)
    z, labels, indices = plain.latents(np.arange(6))
    e = torch.from_numpy(standard_normal(3, indices, (3, 8, 8), "second-step"))
    with torch.no_grad():
        skipped = 0.25 / (network.sigma_max**2 + 0.25) * network.sigma_max * z
        noisy = network(z, labels) + skipped + (0.8**2 - 0.002**2) ** 0.5 * e
        t = torch.full((6,), 0.8 / 1.8)
        u = average_velocity(network, _without, noisy / 1.8, 0 * t, t, labels)  # type: ignore[arg-type]
        wanted = to_uint8(noisy / 1.8 - t[:, None, None, None] * u).numpy()
    apart = sampler.read(np.arange(6)).astype(int) - wanted
    assert np.abs(apart).max() <= 1 and sampler.nfe == 2  # float32 rounds one way or the other
    assert np.abs(plain.read(np.arange(6)).astype(int) - wanted).mean() > 1
    inputs = open_inputs(config, 8)
    evaluated = pipeline_samplers(config, 8, inputs, draws.device)
    assert list(evaluated)[:2] == ["student", "student_two_steps"]
    assert inspect.signature(scoring.steps).parameters["sigma"].default == LEVEL
    steps.run(config, LEVEL, out)
    rows = json.loads(out.read_text())["rows"]
    assert {(r["generator"], r["nfe"]) for r in rows} == {("student", 1), ("student_two_steps", 2)}
