"""The one-step objective: its terms, its discriminators and distances, and what each makes move."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pagoda import distributed
from pagoda.config import parse
from pagoda.errors import PagodaError
from pagoda.methods.one_step import OneStep
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.draw import GlobalDraw
from pagoda.training.finite import FirstBad
from pagoda.training.loop import checkpoints, run_step
from pagoda.training.post_hoc import exponent
from tests.methods.small import CASES, CPU, Case, given, make, once, section, state
from tests.tiny import tiny_tree

PLAIN = Case("one_step", "generator", {
    "optim.batch": 8, "optim.images": 320, "optim.clip": None, "optim.weight_decay": 0.0,
    "optim.lr": 3e-3, "optim.warmup": 0.0, "optim.decay": 0.0, "optim.beta1": 0.0,
    "prior_batch": 16, "loss.regression": "none", "loss.adversarial": "hinge", "loss.weight": 1.0,
    "discriminator.channels": 8, "discriminator.max_channels": 32, "discriminator.lr": 3e-3,
    "discriminator.backbones": ["test_efficientnet"], "discriminator.weights": "random",
    "loss.backbones": ["test_efficientnet"], "loss.weights": "random",
})  # fmt: skip
REC = {"loss.regression": "reconstruction", "optim.batch": 4, "prior_batch": 3}


def one_step(case: str | Case = "one_step, grown", /, **changes: Any) -> OneStep:
    method = make(case, **changes)
    assert isinstance(method, OneStep)
    return method


def data() -> tuple[np.ndarray, np.ndarray]:
    """Flat images, red for class 0 and blue for class 1, of slightly varied brightness."""
    labels = np.arange(64) % 2
    images = np.full((64, 3, 8, 8), 40, np.uint8)
    images[labels == 0, 0] = 220
    images[labels == 1, 2] = 220
    noise = np.random.default_rng(0).integers(-12, 13, (64, 1, 1, 1))
    return (images + noise).astype(np.uint8), labels


def coloured(**changes: Any) -> OneStep:
    """A method that sees nothing but the coloured images."""
    images, labels = data()
    latents = np.random.default_rng(1).standard_normal((64, 3, 8, 8)).astype(np.float32)
    own = dataclasses.replace(
        given(PLAIN), images=ImageBatches(stores=[images], labels=labels, device=CPU),
        pairs=PairBatches(latents=latents, indices=np.arange(64), flips=np.zeros(64, np.uint8),
                          images=images, labels=labels, device=CPU),
    )  # fmt: skip
    return OneStep(section(PLAIN, **changes), own)


def colour_error(method: OneStep) -> float:
    """Mean square distance of the mean colours of generated images from those of their class."""
    torch.manual_seed(9)
    images, labels = data()
    y = torch.arange(32) % 2
    with torch.no_grad():
        made = method.player.ema(torch.randn(32, 3, 8, 8), y).mean((2, 3))
    real = torch.stack([torch.from_numpy(images[labels == k] / 127.5 - 1).mean((0, 2, 3))
                        for k in (0, 1)])[y]  # fmt: skip
    return float((made - real).square().mean())


@pytest.mark.longer
@pytest.mark.parametrize(
    ("kind", "loss", "steps", "fraction"),
    [
        ("conv", "non_saturating", 40, 1 / 3),
        ("encoder", "hinge", 40, 1 / 3),
        pytest.param("tokens", "hinge", 25, 0.6, marks=pytest.mark.slow),
        pytest.param("projected", "hinge", 25, 0.9, marks=pytest.mark.slow),
    ],
)
def test_the_adversarial_loss_alone_trains_the_generator(
    kind: str, loss: str, steps: int, fraction: float
) -> None:
    slow = {"prior_batch": 4, "discriminator.lr": 2e-3} if kind in ("projected", "tokens") else {}
    method = coloured(**{"discriminator.kind": kind, "loss.adversarial": loss}, **slow)
    before = colour_error(method)
    for i in range(steps):
        once(method, i, i / steps, seed=i)
    assert colour_error(method) < fraction * before


@pytest.mark.parametrize("kind", ["encoder", pytest.param("projected", marks=pytest.mark.slow)])
def test_a_checkpoint_holds_the_projections_and_not_the_frozen_networks(
    kind: str, tmp_path: Path
) -> None:
    distance = "projected" if kind == "projected" else "l2"
    settings = REC | {"discriminator.kind": kind, "loss.distance": distance, "optim.images": 12,
                      "optim.batch": 2}  # fmt: skip
    first, second = (one_step(PLAIN, **settings) for _ in range(2))
    once(first, 0)
    checkpoints(first, tmp_path).save(1, 0.0)
    once(first, 1, seed=1)
    for module in (second.players["discriminator"], *second.modules.values()):
        for tensor in module.state_dict().values():  # as if projections were drawn anew
            if tensor.is_floating_point() and tensor.numel() > 2:
                tensor.zero_()
    checkpoints(second, tmp_path).restore()
    once(second, 1, seed=1)
    after = state(second)
    assert not [key for key, value in state(first).items() if not torch.equal(value, after[key])]
    assert not [key for key in after if "_frozen" in key]


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        ({"loss.adversarial": "none"}, {"loss_rec"}, {"loss_adv", "loss_d", "lambda"}),
        ({"loss.regression": "none", "loss.fakes": "prior"}, {"loss_adv", "loss_d"},
         {"loss_rec", "loss_features"}),
        ({"loss.regression": "noise_to_data"}, {"loss_dstl", "loss_adv"}, {"loss_rec"}),
        ({"loss.feature_weight": 0.0}, {"loss_rec", "loss_adv"}, {"loss_features"}),
        ({"loss.adversarial_start": 0.6}, {"loss_rec"}, {"loss_adv", "loss_d", "lambda"}),
        ({"optim.precision": "bf16"}, {"loss_rec", "loss_adv", "loss_features"}, set()),
    ],
)  # fmt: skip
def test_every_variant_trains_what_it_says(
    changes: dict[str, Any], present: set[str], absent: set[str]
) -> None:
    method = one_step(**changes)
    before = state(method)
    stats = once(method)
    assert present | {"loss", "grad_norm", "lr"} <= stats.keys() and not absent & stats.keys()
    assert all(np.isfinite(value) for value in stats.values())
    after = state(method)
    moved = {k.split(".")[0] for k in after if not torch.equal(after[k], before[k])}
    adversarial = "loss_d" in present or "loss_adv" in present
    assert moved == {"generator"} | ({"discriminator"} if adversarial else set())


def test_before_the_adversarial_loss_a_purely_adversarial_method_waits() -> None:
    method = one_step(**{"loss.regression": "none", "loss.fakes": "prior",
                         "loss.adversarial_start": 0.5})  # fmt: skip
    before = state(method)
    assert once(method, progress=0.2) == {}
    assert all(torch.equal(value, before[key]) for key, value in state(method).items())


def test_lambda_ramps_up_from_the_start_of_the_adversarial_loss() -> None:
    method = one_step(**{"loss.adversarial_start": 0.2, "loss.adversarial_ramp": 0.4})
    assert "lambda" not in once(method, 0, 0.1)
    weights = [once(method, 1, progress)["lambda"] for progress in (0.2, 0.3, 0.4, 0.6, 0.9)]
    assert weights == pytest.approx([0.0, 0.075, 0.15, 0.3, 0.3])


def test_total_loss_is_the_weighted_sum() -> None:
    stats = once(one_step())
    total = stats["loss_rec"] + 0.1 * stats["loss_features"] + stats["lambda"] * stats["loss_adv"]
    assert stats["loss"] == pytest.approx(total, rel=1e-5)


def test_separate_updates_are_a_step_by_each_loss() -> None:
    """Official scripts for 256 and 512: reconstruction first, then new fakes for the adversary."""
    made = one_step(PLAIN, **REC, **{"loss.separate_update": True})
    once(made)
    hand = one_step(PLAIN, **REC)
    torch.manual_seed(0)
    draw = GlobalDraw(CPU)
    z, x, y = draw.pairs(hand.pairs, 4)
    prior, prior_y = draw.normal(3, 3, 8, 8), draw.labels(hand.images, 3)
    real, real_y = draw.images(hand.images, 3)
    generator, discriminator = hand.generator, hand.discriminator

    def update(player: str, loss: Tensor) -> None:
        optimizer = hand.players[player].optimizer
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    fake = generator(prior, prior_y).detach()
    apart = (1 - discriminator(real, real_y)).relu().mean() + (
        1 + discriminator(fake, prior_y)
    ).relu().mean()
    update("discriminator", apart)
    update("generator", (generator(z, y) - x).square().mean())
    update("generator", -discriminator(generator(prior, prior_y), prior_y).mean())
    for player in ("generator", "discriminator"):
        theirs = hand.players[player].network.state_dict()
        for key, value in made.players[player].network.state_dict().items():
            torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-5)
    moved = one_step(PLAIN, **REC)
    once(moved)  # one step by the sum goes elsewhere
    ends = [torch.cat([p.flatten() for p in s.generator.parameters()]) for s in (made, moved)]
    assert (ends[0] - ends[1]).abs().max() > 1e-3


def test_each_network_and_each_player_draws_its_own_augmentation() -> None:
    """Real images and fakes of one update share the draw, as in the official code."""
    kind = {"kind": "projected", "augment": True, "backbones": ["test_efficientnet"] * 2}
    method = one_step(PLAIN, prior_batch=4, **{f"discriminator.{k}": v for k, v in kind.items()})
    seen: list[list[Tensor]] = []

    def discriminator(images: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        assert isinstance(images, list)
        seen.append(images)
        return images[0].flatten(1).mean(1)

    method._discriminate = discriminator  # type: ignore[method-assign, assignment]
    x, y, draw = torch.ones(4, 3, 8, 8), torch.zeros(4, dtype=torch.long), GlobalDraw(CPU)
    for key in (14, 14, 15):
        method._logits(draw, key, x, [y], (4,))
    real, fake, for_generator = seen
    assert all(torch.equal(a, b) for a, b in zip(real, fake, strict=True))
    views = [*real, *for_generator]
    assert not any(torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])


def test_runs_of_other_seeds_augment_otherwise() -> None:
    """What a study's seeds stand for is in it, too."""
    shifts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draw = GlobalDraw(CPU)
        draw.uniform(3)  # whatever a step has drawn before
        shifts.append(draw.augmentation(7, 32, 16).shift)
    assert torch.equal(shifts[0], shifts[1]) and not torch.equal(shifts[0], shifts[2])


@pytest.mark.parametrize(("fakes", "expected"), [("prior", 3), ("reconstructions", 4), ("both", 7)])
def test_the_discriminator_sees_the_fakes_it_is_told_to(fakes: str, expected: int) -> None:
    method = one_step(PLAIN, **REC, **{"loss.fakes": fakes})
    seen: list[tuple[Tensor, Tensor]] = []
    plain = method._discriminate

    def discriminator(images: Any, labels: Tensor) -> Tensor:
        seen.append((images, labels))
        return plain(images, labels)

    method._discriminate = discriminator  # type: ignore[method-assign, assignment]
    assert {"loss_rec", "loss_adv"} <= once(method).keys()
    assert [len(x) for x, _ in seen] == [3, expected, expected]  # real, fake for D, fake for G
    assert all(len(x) == len(y) for x, y in seen)
    assert not seen[1][0].requires_grad and seen[2][0].requires_grad


def test_the_adaptive_weight_is_the_ratio_of_gradient_norms_clamped() -> None:
    adaptive = {"loss.weighting": "adaptive", "loss.weight": 0.2, "loss.weight_max": 1e9}
    method = one_step(PLAIN, **REC, **adaptive)
    torch.manual_seed(0)
    draw = GlobalDraw(CPU)
    z, x, y = draw.pairs(method.pairs, 4)
    prior, prior_y = draw.normal(3, 3, 8, 8), draw.labels(method.images, 3)
    real, real_y = draw.images(method.images, 3)
    once(method)  # the discriminator has learnt when it scores for the generator
    discriminator, before = method.discriminator, one_step(PLAIN, **REC, **adaptive)
    last = before.generator.last_block_weight()
    losses = (
        (before.generator(z, y) - x).square().mean(),
        -discriminator(before.generator(prior, prior_y), prior_y).mean(),
    )
    norms = [torch.autograd.grad(loss, last)[0].norm() for loss in losses]
    ratio = (norms[0] / (norms[1] + 1e-4)).item()
    assert len(real) == len(real_y) == 3 and ratio != pytest.approx(1, abs=0.05)
    for weighting, expected in (("adaptive", ratio), ("adaptive_squared", ratio**2)):
        found = once(one_step(PLAIN, **REC, **adaptive | {"loss.weighting": weighting}))["lambda"]
        assert found == pytest.approx(0.2 * expected, rel=1e-3)
    clamped = adaptive | {"loss.weight_min": 7.0, "loss.weight_max": 8.0}
    assert 7 <= once(one_step(PLAIN, **REC, **clamped))["lambda"] <= 8


def test_the_adaptive_weight_is_the_same_where_the_scale_overflows_float16() -> None:
    """It is the scaler's to find, which leaves the step out and halves the scale."""
    found = {}
    for scale in (2.0, 2.0**16, 2.0**24):
        method = one_step("one_step", **{"optim.precision": "fp16", "discriminator.r1": 0.0})
        with torch.no_grad():  # a discriminator that is sure of itself
            for part in ("logit.weight", "label.weight"):
                method.discriminator.get_parameter(part).mul_(100.0)
        method.player._scaler._init_scale = scale
        before, bad = state(method), FirstBad(method.players)
        torch.manual_seed(0)
        stats, _ = run_step(method, GlobalDraw(CPU), 1, 0.5, bad)
        moved = any(not torch.equal(value, before[key]) for key, value in state(method).items()
                    if key.startswith("generator.network."))  # fmt: skip
        assert bad.first() is None
        found[scale] = float(stats["lambda"]), moved
    assert found[2.0][1] and not found[2.0**24][1]
    for weight, _ in found.values():
        assert weight == pytest.approx(found[2.0][0], rel=0.05)


def test_averages_by_time_see_a_step_with_two_updates_once() -> None:
    changes = {"loss.weighting": "fixed", "optim.ema_profiles": [0.1]}
    made = one_step("one_step", **changes, **{"loss.separate_update": True})
    weight = "generator.network.trunk.stem.weight"
    seen, expected = [], torch.zeros(())
    for i in range(3):
        once(made, i, seed=i)
        seen.append(state(made)[weight])
    for t, value in enumerate(seen, 1):
        decay = (1 - 1 / t) ** (exponent(0.1) + 1)
        expected = decay * expected + (1 - decay) * value
    average = state(made)["generator.powers.0.trunk.stem.weight"]
    torch.testing.assert_close(average, expected)


def test_a_batch_of_the_prior_smaller_than_the_group_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 6)
    with pytest.raises(PagodaError, match=r"^a batch of 5 cannot be shared by 6 processes; set"):
        one_step("one_step")


def test_r1_takes_second_derivatives_of_attention() -> None:
    """In the layout that training has, where fused kernels of attention differentiate once."""
    every = {"discriminator.r1": 1.0, "discriminator.r1_every": 1}
    method = one_step("one_step, encoder", **every)
    method.discriminator.to(memory_format=torch.channels_last)
    plain = one_step("one_step, encoder", **every)
    assert once(method)["loss_d"] == pytest.approx(once(plain)["loss_d"], rel=1e-4)


def test_the_distance_is_the_regression_loss_augmented_alike() -> None:
    settings = REC | {
        "loss.distance": "projected",
        "loss.augment": True,
        "loss.adversarial": "none",
    }
    method = one_step(PLAIN, **settings)
    torch.manual_seed(0)
    z, x, y = GlobalDraw(CPU).pairs(method.pairs, 4)
    made = method.generator(z, y)
    plain = method.distance(made, x).item()
    assert method._regression(GlobalDraw(CPU), 1, x, x, False)[0].item() == 0
    for i in (0, 1):
        seen = method._regression(GlobalDraw(CPU), i, made, x, False)[1]["loss_rec"]
        assert float(seen) != pytest.approx(plain, rel=1e-3)
    off = one_step(PLAIN, **settings | {"loss.augment": False})
    assert once(off)["loss_rec"] == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize(("rows", "said"), [(3, r"has shape \(3, 5\); it must be \(4, d\)"),
                                            (None, "cannot read")])  # fmt: skip
def test_a_table_of_class_embeddings_that_does_not_fit_is_one_line(
    rows: int | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "classes.npy"
    if rows:
        np.save(file, np.zeros((rows, 5)))
    with pytest.raises(PagodaError, match=said) as error:
        one_step(PLAIN, **{"discriminator.kind": "projected",
                           "discriminator.class_embedding": str(file)})  # fmt: skip
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss.regression": "none", "loss.adversarial": "none"}, "something other than none"),
        ({"loss.regression": "none", "loss.fakes": "both"}, "prior while there is no regression"),
        ({"loss.separate_update": True, "loss.fakes": "both"}, "false unless"),
        ({"loss.weight_min": 2.0, "loss.weight_max": 1.0}, r"at most \w+\.loss\.weight_max"),
        ({"optim.ema_profiles": [0.3]}, "relative widths above 0 and below 0.28"),
        ({"optim.batch": 7}, r"a divisor of \w+\.optim\.images"),
    ],
)
@pytest.mark.parametrize("stage", ["distill", "grow"])
def test_terms_that_need_each_other_are_checked(
    stage: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(PagodaError, match=said) as error:
        parse(tiny_tree(**{f"{stage}.{key}": value for key, value in changes.items()}))
    assert "\n" not in str(error.value) and f"{stage}." in str(error.value)


def test_no_discriminator_is_made_where_none_is_needed() -> None:
    changes = {"loss.adversarial": "none", "discriminator.kind": "projected",
               "discriminator.weights": "/nowhere"}  # fmt: skip
    assert list(make(dataclasses.replace(CASES["one_step"]), **changes).players) == ["generator"]
