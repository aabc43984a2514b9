"""The best of several samples: a score that is known, and the ratio network's from end to end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pagoda import artifacts
from pagoda.config import parse
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.evaluation.samplers import Draws, Map, Sampler
from pagoda.methods.class_ratio import RATIO_FILE, ClassRatio, save_ratio
from pagoda.pipeline.stages import downsample, features, reference, verify
from pagoda.pipeline.stages.verify import BestOf, candidate, count_list, random_of
from tests.methods.small import make
from tests.pipeline.stages.untrained import write_models
from tests.tiny import tiny_tree

N, CLASSES = 30, 3


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
    for one in (BestOf(plain, 1, brightness), random_of(plain, 1)):
        assert np.array_equal(one.read(rows), plain.read(rows))
        assert np.array_equal(one.labels, plain.labels)


def test_a_known_score_picks_the_brightest_candidate_of_the_class() -> None:
    rows, plain = np.arange(N), sampler()
    drawn = np.stack([candidate(plain, np.full(N, k)).read(rows) for k in range(4)])
    best = BestOf(plain, 4, brightness)
    found = best.read(rows)
    assert np.array_equal(found, drawn[brightness_of(drawn).argmax(0), rows])
    assert (brightness_of(drawn)[1:] > brightness_of(drawn)[0]).any()  # else nothing was chosen
    assert np.array_equal(best.read(rows[7:20]), found[7:20])
    assert best.nfe == 4 and len(best) == N
    seeds = {tuple(c) for k in range(4) for c in
             np.stack(candidate(plain, np.full(N, k)).which(rows), 1).tolist()}  # fmt: skip
    assert len(seeds) == 4 * N  # no latent is a candidate twice


def brightness_of(drawn: np.ndarray) -> np.ndarray:
    return drawn.mean((2, 3, 4))


def test_the_control_takes_any_of_the_candidates_as_often() -> None:
    plain = sampler()
    indices, labels = random_of(plain, 4).which(np.arange(N))
    assert np.array_equal(indices % N, np.arange(N)) and np.array_equal(labels, plain.labels)
    counts = np.bincount(indices // N, minlength=4)
    assert len(counts) == 4 and counts.min() >= 2


def test_a_ratio_network_is_measured_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse(tiny_tree(target_res=8))
    downsample.run(config, 8)
    features.run(config)
    write_models(config)
    reference.run(config, 8)
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
        save_ratio(method.ratio, tmp_path)
        with artifacts.create(where, "generator", config=identity) as made:
            artifacts.save_weights(made, weights, card | about)
            shutil.copyfile(tmp_path / RATIO_FILE, made / RATIO_FILE)

    put()
    verify.run(config, 8, [1, 2], out)
    rows = json.loads(out.read_text())["rows"]
    found = {(r["generator"], r["metric"]): r for r in rows}
    wanted = {"fd", "precision", "recall"}
    names = {"best of 1", "best of 2", "random of 2"}
    assert set(found) == {(name, metric) for name in names for metric in wanted}
    assert [found[name, "fd"]["nfe"] for name in sorted(names)] == [1, 2, 1]
    assert len({found[name, "fd"]["value"] for name in names}) == 3
    assert capsys.readouterr().out.count("best of 2") == 3
    method.ratio.head[1].bias.data.fill_(1e20)
    method.ratio.head[-1].weight.data.fill_(1e30)
    put()
    with pytest.raises(PagodaError, match=r"log-ratio is not finite at noise level 2"):
        verify.run(config, 8, [2], out)


def test_counts_are_numbers_from_one() -> None:
    assert count_list("1, 4") == [1, 4]
    for wrong in ("0,1", "2,2", "two", ""):
        with pytest.raises(PagodaError, match="--counts"):
            count_list(wrong)
