"""Class-ratio training: its divergences in closed form, its schedule, and a law that is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pagoda.errors import PagodaError
from pagoda.losses.divergences import WEIGHTS
from pagoda.methods.class_ratio import STARTS, ClassRatio
from pagoda.pipeline.stages.verify import load_ratio
from pagoda.tensors import save_tensors
from pagoda.training import sharding
from pagoda.training.draw import GlobalDraw
from tests.methods.small import (
    CASES,
    CPU,
    Case,
    denoiser,
    flat,
    given,
    go,
    make,
    off_before_and_after,
    once,
    section,
    state,
)

DOUBLE, ALPHA = torch.float64, 0.3
F: dict[str, Callable[[Tensor], Tensor]] = {
    "reverse_kl": lambda r: -r.log(),
    "forward_kl": lambda r: r * r.log(),
    "js": lambda r: (r * r.log() - (1 + r) * ((1 + r) / 2).log()) / 2,
    "softened_reverse_kl": lambda r: (r + 1) * (0.5 + 0.5 / r).log(),
    "hellinger": lambda r: 1 - r.sqrt(),
    "jeffreys": lambda r: (r - 1) * r.log(),
    "neyman": lambda r: 1 / (2 * r) + r / 2 - 1,
    "skew_js": lambda r: ALPHA * r * r.log() - (1 + ALPHA * (r - 1)) * (1 + ALPHA * (r - 1)).log(),
}
"""f of D_f(p, q) = E_q f(p / q); each is 0 at r = 1."""


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_weight_is_r_squared_times_the_second_derivative(name: str) -> None:
    r = torch.logspace(-3, 3, 41, dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(F[name](r).sum(), r, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), r)
    weight = WEIGHTS[name](r.detach().log(), ALPHA)
    torch.testing.assert_close(weight, r.detach().square() * bend, rtol=1e-9, atol=1e-12)
    assert F[name](torch.ones((), dtype=DOUBLE)).abs() < 1e-15


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_its_pull_is_the_gradient_of_the_divergence(name: str, sigma: float) -> None:
    """Between Gaussians, by quadrature, against finite differences in the generator's mean."""
    spread = (0.5**2 + sigma**2) ** 0.5
    x = torch.linspace(-12, 12, 40001, dtype=DOUBLE) * spread
    step = x[1] - x[0]

    def log_density(mean: float) -> Tensor:
        return -((x - mean) / spread).square() / 2 - np.log(spread * (2 * np.pi) ** 0.5)

    def divergence(mean: float) -> float:
        p, q = log_density(0.0), log_density(mean)
        return float((q.exp() * F[name]((p - q).exp())).sum() * step)

    mean, small = 0.4 * spread, 1e-4 * spread
    p, q = log_density(0.0), log_density(mean)
    towards = -x / spread**2 + (x - mean) / spread**2  # of log p / q
    pull = -(q.exp() * WEIGHTS[name](p - q, ALPHA) * towards).sum() * step
    slope = (divergence(mean + small) - divergence(mean - small)) / (2 * small)
    assert float(pull) == pytest.approx(slope, rel=1e-6)


def test_jensen_shannon_is_the_skewed_one_at_a_half() -> None:
    logits = torch.linspace(-9, 9, 37, dtype=DOUBLE)
    torch.testing.assert_close(WEIGHTS["js"](logits, 0.1), WEIGHTS["skew_js"](logits, 0.5))


def test_the_critic_alone_trains_in_the_warm_up_and_the_generator_alone_after_the_freeze() -> None:
    settings = {"ratio.warm_up": 0.25, "ratio.freeze_after": 0.75}
    for progress, trained in (
        (0.1, {"ratio"}),
        (0.5, {"ratio", "generator"}),
        (0.9, {"generator"}),
    ):
        method = make("class_ratio", **settings)
        before = state(method)
        once(method, progress=progress)
        moved = {key.partition(".")[0] for key, value in state(method).items()
                 if not torch.equal(value, before[key])}  # fmt: skip
        assert moved & {"ratio", "generator"} == trained


@pytest.mark.slow
def test_a_generator_that_is_off_moves_onto_the_data() -> None:
    """Flat images of one brightness: the generator's mean finds the data's."""
    target = 0.5
    own = given(Case("class_ratio", "generator"))
    config = section(Case("class_ratio", "generator"), **{
        "divergence": "softened_reverse_kl", "optim.images": 120 * 16, "optim.batch": 16,
        "optim.lr": 1e-3, "optim.beta1": 0.0, "optim.warmup": 0.0, "optim.decay": 0.0,
        "sigma_low": 0.2, "sigma_high": 5.0,
    })  # fmt: skip
    method = ClassRatio(config, dataclasses.replace(own, images=flat(target)))
    before, after = off_before_and_after(method, target, 120)
    assert before > 0.3 and after < before / 3


@pytest.mark.longer
@pytest.mark.parametrize("what", ["class_ratio", "class_ratio, grown"])
def test_the_ratio_network_stays_beside_the_generator(what: str, tmp_path: Path) -> None:
    """As it was in the last step, with and without spectral norm."""
    method = go(make(what), tmp_path)
    assert isinstance(method, ClassRatio)
    kept = tmp_path / "gen"
    kept.mkdir()
    ((name, weights),) = method.beside().items()
    save_tensors(kept / f"{name}.safetensors", sharding.full_state_on_main(weights))
    network, facts = load_ratio(kept, method.card())
    assert (facts["sigma_low"], facts["sigma_high"], facts["rho"]) == (0.1, 5.0, 7.0)
    side = CASES[what].side
    torch.manual_seed(0)
    x, sigma, labels = torch.randn(3, 3, side, side), torch.tensor([0.1, 1.0, 9.0]), torch.arange(3)
    with torch.no_grad():
        torch.testing.assert_close(network(x, sigma, labels), method.ratio(x, sigma, labels))
    with pytest.raises(PagodaError, match="has no ratio network"):
        load_ratio(tmp_path, method.card())
    wrong = method.card()
    wrong["ratio"]["unet"]["channels"] = 16
    with pytest.raises(PagodaError, match=r"ratio\.safetensors: .*train it again"):
        load_ratio(kept, wrong)


def test_where_the_generator_starts() -> None:
    """What each start keeps of the teacher, tensor by tensor; ends are the stem and the head."""
    teacher = dict(given(CASES["class_ratio"]).network.named_parameters())
    ends, encoder = ("trunk.stem", "head"), ("trunk.decoder", "head")
    for start in STARTS:
        method = make("class_ratio", start=start)
        for name, now in method.players["generator"].network.named_parameters():
            same, before = torch.equal(now, teacher[name]), teacher[name]
            if start == "shuffled":
                assert torch.equal(now.flatten().sort()[0], before.flatten().sort()[0])
                assert same == (now.numel() == 1)
            else:
                gone = {"encoder": encoder, "features": ends, "teacher": ()}.get(start, ("",))
                assert same != name.startswith(gone), (start, name)


def test_latents_are_taken_for_noise_of_a_level() -> None:
    """Of 2.5: the teacher's denoiser there, up to c_skip x; the card says so, a grown one stays."""
    z, labels = torch.randn(3, 3, 8, 8), torch.arange(3)
    method = make("class_ratio", sigma_start=2.5)
    assert isinstance(method, ClassRatio)
    x, sigma = 2.5 * z, torch.full((3,), 2.5)
    with torch.no_grad():
        wanted = denoiser()(x, sigma, labels) - 0.25 / (0.25 + 2.5**2) * x
        torch.testing.assert_close(method.generator(z, labels), wanted, rtol=1e-5, atol=1e-5)
    assert method.generator.card()["sigma_max"] == 2.5
    for other in (make("class_ratio", sigma_start=None), make("class_ratio, grown")):
        assert isinstance(other, ClassRatio)
        assert other.generator.card()["sigma_max"] == 80.0


def test_a_map_is_learned_before_the_ratio_leads() -> None:
    """The generator's loss is then its distance from what the teacher's weights make."""
    method = make("class_ratio, map")
    assert isinstance(method, ClassRatio)
    losses = {p: list(method.step(GlobalDraw(CPU), 0, p)) for p in (0.1, 0.9)}
    assert [loss.player for loss in losses[0.1]] == [loss.player for loss in losses[0.9]]
    assert "weight" in losses[0.9][-1].stats and "weight" not in losses[0.1][-1].stats
    with torch.no_grad():
        for own, wanted in zip(method.generator.parameters(), method.origin.parameters(),
                               strict=True):  # fmt: skip
            own.copy_(wanted)
    assert float(losses[0.1][-1].value.detach()) > 0.01
    assert float(list(method.step(GlobalDraw(CPU), 0, 0.1))[-1].value.detach()) == 0.0


def test_a_grown_generator_starts_as_it_is() -> None:
    case = Case("class_ratio", "grown", {"ratio.init": "random", "start": "random"})
    with pytest.raises(PagodaError, match="generator is grown; set start: teacher"):
        ClassRatio(section(case), given(case))


def test_a_critic_of_another_resolution_is_one_line() -> None:
    case = Case("class_ratio", "grown")
    with pytest.raises(PagodaError, match=r"of 8x8, the images are 16x16; set ratio.init: random"):
        ClassRatio(section(case), given(case))


@pytest.mark.parametrize(
    "wrong",
    [{"divergence": "total_variation"}, {"sigma_low": 50.0},
     {"ratio.warm_up": 0.5, "ratio.freeze_after": 0.2}],
)  # fmt: skip
def test_what_makes_no_sense_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(PagodaError, match=list(wrong)[-1].replace(".", r"\.")):
        section(Case("class_ratio", "generator"), **wrong)
