"""Generators that are told the weight of the guidance: the special cases, and the estimator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pagoda import artifacts
from pagoda.config import parse, with_derived
from pagoda.diffusion.solver import nfe
from pagoda.errors import PagodaError
from pagoda.evaluation.guidance import check_weight
from pagoda.methods.guided import ESTIMATOR, Guided, load_estimator
from pagoda.methods.one_step import OneStep
from pagoda.networks.guidance import WeightEstimator
from pagoda.pipeline.stages.compute import Untrained
from pagoda.tensors import save_tensors
from pagoda.training.batches import PairBatches
from pagoda.training.draw import GlobalDraw
from tests.methods.small import CASES, CPU, Case, given, make, once, section
from tests.tiny import tiny_tree

GROWN = Case("guided", "grown", CASES["guided"].settings)


def guided(**changes: Any) -> Guided:
    method = make("guided", **changes)
    assert isinstance(method, Guided)
    return method


def test_the_generator_begins_as_the_one_without_a_weight() -> None:
    z, y = torch.randn(4, 3, 8, 8), torch.arange(4)
    plain = make("one_step").generator  # type: ignore[attr-defined]
    told = guided().generator
    assert told.guidance == (1.0, 3.0)
    for omega in (None, torch.tensor([1.0, 1.5, 2.0, 3.0])):
        assert torch.equal(told(z, y, omega=omega), plain(z, y))


def test_one_weight_and_networks_that_overlook_it_train_as_one_step() -> None:
    """Of the same draws: the estimator draws none here, and the weights are all 1."""
    settings = {"loss.fakes": "prior", "optim.clip": None}
    one, other = make("one_step", **settings), guided(**settings)
    assert isinstance(one, OneStep)
    other.discriminator.load_state_dict(one.discriminator.state_dict(), strict=False)
    for name in ("of_image", "of_class"):  # deaf to the weight
        path = getattr(other.discriminator, name)
        path.forward = lambda omega, path=path: path.weight_out.bias.new_zeros(len(omega), 8)
    del other.players[ESTIMATOR]
    other._prior_told = lambda draw, n: [  # type: ignore[method-assign]
        draw.labels(other.images, n),
        torch.ones(n),
    ]
    a, b = once(one), once(other)
    del a["grad_norm"], b["grad_norm"]  # the embedding of the weight has a gradient, too
    assert b == pytest.approx(a, rel=1e-5)
    theirs = dict(other.generator.named_parameters())
    for name, weight in one.generator.named_parameters():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-4, atol=1e-6)


def test_the_estimator_learns_the_weight_that_a_picture_shows() -> None:
    """Teacher samples whose brightness is their weight; real images of one brightness."""
    weights = np.linspace(1, 3, 64, dtype=np.float32)
    bright = np.round((weights - 1) * 127).astype(np.uint8)[:, None, None, None]
    images = np.broadcast_to(bright, (64, 3, 8, 8)).copy()
    own = given(CASES["guided"])
    assert own.pairs is not None
    samples = PairBatches(
        latents=np.zeros((64, 3, 8, 8), np.float32), indices=np.arange(64), device=CPU,
        flips=np.zeros(64, np.uint8), images=images, labels=np.arange(64) % 4, weights=weights,
        weight_range=(1.0, 3.0),
    )  # fmt: skip
    own = dataclasses.replace(own, teacher_pairs=lambda: samples)
    changes = {"optim.batch": 32, "optim.images": 3200, "estimator.lr": 3e-3, "optim.decay": 0.0}
    method = Guided(section(CASES["guided"], **changes), own)
    before = _estimator_error(method, samples)
    for i in range(60):
        torch.manual_seed(i)
        loss = method._estimator_loss(GlobalDraw(CPU))
        method.players[ESTIMATOR].backward(loss.value)
        method.players[ESTIMATOR].update(i)
    assert before > 0.2 and _estimator_error(method, samples) < 0.02
    x = torch.full((5, 3, 8, 8), 0.0)
    with torch.no_grad():
        middle = method.estimator(x, torch.tensor([0, 1, 2, 3, 0]))
    torch.testing.assert_close(middle, torch.full((5,), 2.0), rtol=0, atol=0.25)


def _estimator_error(method: Guided, samples: PairBatches) -> float:
    _, x, labels, omega = GlobalDraw(CPU).guided_pairs(samples, 64)
    with torch.no_grad():
        return float((method.estimator(x, labels) - omega).square().mean())


def test_the_discriminator_is_told_estimated_weights_of_real_images() -> None:
    method, seen = guided(**{"loss.fakes": "prior"}), []

    def discriminate(images: torch.Tensor, *told: torch.Tensor) -> torch.Tensor:
        seen.append((images[0] if isinstance(images, list) else images, *told))
        return images.flatten(1).mean(1)

    method._discriminate = discriminate  # type: ignore[method-assign, assignment]
    torch.manual_seed(0)
    real, told = method._real(GlobalDraw(CPU), 5)
    with torch.no_grad():
        expected = method.estimator(real, told[0])
    assert torch.equal(told[1], expected) and ((told[1] > 1) & (told[1] < 3)).all()
    once(method)
    fakes = seen[1][2]
    assert len(seen) == 3 and set(np.round(fakes.tolist(), 4)) <= set(
        np.round(np.linspace(1, 3, 16), 4)
    )


def test_growth_takes_the_estimator_below_and_leaves_it_beside(tmp_path: Path) -> None:
    below = guided()
    with artifacts.create(tmp_path / "below", "generator", config={}, inputs={}) as folder:
        card = {**below.generator.card(), **below.card()}
        artifacts.save_model(folder, below.generator, card)
        weights = {k: v.contiguous() for k, v in below.beside()[ESTIMATOR].items()}
        save_tensors(folder / "estimator.safetensors", weights)
    found = artifacts.open_artifact(tmp_path / "below", "generator")
    own = dataclasses.replace(given(GROWN), below=found, teacher_pairs=None)
    method = Guided(section(GROWN), own)
    x, y = torch.randn(3, 3, 16, 16), torch.arange(3)
    small = torch.nn.functional.avg_pool2d(x, 2)
    assert torch.equal(method.estimator(x, y), below.estimator(small, y))
    assert method.card()[ESTIMATOR] == below.card()[ESTIMATOR]
    once(method)
    for key, value in method.beside()[ESTIMATOR].items():
        assert torch.equal(value, below.beside()[ESTIMATOR][key])
    (tmp_path / "below" / "estimator.safetensors").write_bytes(b"no")
    with pytest.raises(PagodaError, match=r"estimator\.safetensors.*distil again$"):
        load_estimator(found)
    with pytest.raises(PagodaError, match=r"no estimator .* distil by it first$"):
        Guided(section(GROWN), dataclasses.replace(own, below=None))


def test_growth_keeps_the_pairs_whose_images_look_like_their_weight(tmp_path: Path) -> None:
    """An estimator that says 2.25 of every image, and pairs from 1 to 3."""
    below = guided()
    assert isinstance(below.estimator, WeightEstimator)
    with torch.no_grad():
        for parameter in below.estimator.parameters():
            parameter.zero_()
        below.estimator.logit.bias.fill_(float(torch.logit(torch.tensor(0.625))))
    with artifacts.create(tmp_path / "below", "generator", config={}, inputs={}) as folder:
        artifacts.save_model(folder, below.generator, {**below.generator.card(), **below.card()})
        weights = {k: v.contiguous() for k, v in below.beside()[ESTIMATOR].items()}
        save_tensors(folder / "estimator.safetensors", weights)
    found = artifacts.open_artifact(tmp_path / "below", "generator")
    own = dataclasses.replace(given(GROWN), below=found, teacher_pairs=None)
    assert own.pairs is not None and own.pairs.weights is not None
    method = Guided(section(GROWN, **{"estimator.tolerance": 0.4}), own)
    assert method.pairs.weights is not None
    near = np.abs(own.pairs.weights - 2.25) <= 0.4
    assert 0 < near.sum() < len(near)
    assert np.array_equal(method.pairs.weights, own.pairs.weights[near])
    assert np.array_equal(method.pairs.labels, own.pairs.labels[near])
    torch.manual_seed(0)
    told = method._prior_told(GlobalDraw(CPU), 64)[1]
    # What is generated has the weights of these pairs: real images have no others, so that the
    # discriminator cannot tell them by the weight alone.
    assert set(told.tolist()) == set(own.pairs.weights[near].tolist())
    wide = Guided(section(GROWN, **{"estimator.tolerance": 2.0}), own)
    assert len(wide.pairs) == len(own.pairs)
    with pytest.raises(PagodaError, match=r"no weight of .* raise grow\.estimator\.tolerance"):
        Guided(section(GROWN, **{"estimator.tolerance": 1e-6}), own)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"invert.guidance_max": 3.0}, r"distill\.method = 'one_step'.*guided while"),
        ({"distill.method": "guided"}, r"invert\.guidance_max = None; it must be a number"),
        ({"invert.guidance": 2.0, "invert.guidance_max": 1.5}, "or at least invert.guidance = 2"),
        (
            {"invert.guidance": 2.0, "invert.guidance_max": 9.0},
            r"evaluate\.guidance = 1\S*; it must be from 2 to 9",
        ),
    ],
)
def test_weights_and_methods_belong_together(changes: dict[str, Any], line: str) -> None:
    tree = tiny_tree(**changes)
    tree["code"]["distill"] = f"pagoda/methods/{tree['distill']['method']}.py"
    with pytest.raises(PagodaError, match=line):
        parse(tree)


def test_no_result_of_a_weight_is_of_the_nearest_one() -> None:
    """A generator of the weights 2 to 9 makes samples at 2 where none is asked for."""
    check_weight("g", (2.0, 9.0), 1.0)
    check_weight("g", None, 1.0, measured=True)
    check_weight("g", (1.0, 9.0), 1.0, measured=True)
    with pytest.raises(PagodaError, match="guidance = 1; g was trained with weights from 2 to 9"):
        check_weight("g", (2.0, 9.0), 1.0, measured=True)


def test_only_the_discriminator_that_is_told_the_weight() -> None:
    with pytest.raises(PagodaError, match=r"discriminator\.kind = 'encoder'; it must be conv or"):
        section(CASES["guided"], **{"discriminator.kind": "encoder"})


def test_a_discriminator_of_tokens_is_told_the_weight() -> None:
    tokens = {"kind": "tokens", "backbones": ["test_efficientnet"], "weights": "random",
              "input_side": 64, "r1": 0.0}  # fmt: skip
    method = guided(**{f"discriminator.{key}": value for key, value in tokens.items()})
    key = "caption.token.weight"
    before = method.discriminator.state_dict()[key].clone()
    stats = once(method)
    assert np.isfinite(stats["loss_d"]) and np.isfinite(stats["loss_adv"])
    assert not torch.equal(method.discriminator.state_dict()[key], before)


@pytest.mark.longer
def test_what_it_costs_is_the_estimator_and_the_teachers_samples() -> None:
    """Growth samples no teacher and trains no estimator: it only runs it on real images."""
    own = {"distill.method": "guided", "grow.method": "guided", "invert.guidance_max": 4.0}
    plain, told = (
        Untrained(parse(with_derived(tiny_tree(**changes))), 10, 200) for changes in ({}, own)
    )
    grown = [u.training("grow-16") for u in (plain, told)]
    assert grown[0] < grown[1] < 1.2 * grown[0]
    calls = nfe(told.config.distill.teacher_steps, "heun", guidance=4.0)
    samples = told.denoiser_call * calls * told.pairs
    assert told.training("distill") > plain.training("distill") + samples
    assert told.inversion() == 2 * plain.inversion()
