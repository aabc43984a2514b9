"""The same losses and gradients as NVlabs/FastGen's code on the same tensors.

``make_fastgen.py`` recorded them; ``fixtures/provenance.json`` says from which revision and which
functions.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pagoda.losses.divergences import WEIGHTS
from pagoda.methods import mean_flow
from pagoda.methods.consistency import Consistency
from pagoda.methods.distribution_matching import DistributionMatching
from pagoda.methods.mean_flow import MeanFlow
from pagoda.networks.generator import Generator
from pagoda.training.draw import GlobalDraw
from tests.methods.small import CPU, Case, make
from tests.methods.toy import DOUBLE, Toy

FIXTURES = Path(__file__).parent / "fixtures"
RECORDED = load_file(FIXTURES / "fastgen.safetensors")


def close(found: Any, known: Tensor, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    torch.testing.assert_close(found, known, rtol=rtol, atol=atol)


def recorded(group: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{group}."): value for key, value in RECORDED.items()
            if key.startswith(f"{group}.")}  # fmt: skip


def toy(vector: Tensor) -> Toy:
    mix, level, bias = vector.split([9, 3, 3])
    return Toy([mix.reshape(3, 3), level, bias])


class Known(GlobalDraw):
    """Draws that were recorded."""

    def __init__(self, x: Tensor, noise: Tensor, t: Tensor) -> None:
        super().__init__(CPU)
        self.x, self.eps, self.t = x, noise, t

    def images(self, source: Any, n: int) -> tuple[Tensor, ...]:
        return self.x, torch.zeros(len(self.x), dtype=torch.long)

    def noise(self, images: Tensor, n: int) -> Tensor:
        return self.eps

    def sigma(self, n: int, p_mean: float, p_std: float) -> Tensor:
        return self.t


def same_gradients(net: Toy, known: dict[str, Tensor], of: str) -> None:
    for name, parameter in net.named_parameters():
        close(parameter.grad, known[f"{of}.{name}"])


def small(method: str, **settings: Any) -> Any:
    """A method in float64 whose batch has as many images as the recording."""
    length = {"optim.batch": 6, "optim.images": 36}
    return make(Case(method, "generator"), DOUBLE, **length | settings)


def test_the_recording_is_that_of_its_provenance() -> None:
    told = json.loads((FIXTURES / "provenance.json").read_text())
    data = (FIXTURES / "fastgen.safetensors").read_bytes()
    assert told["sha256"] == {"fastgen.safetensors": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize("stage", [0, 3])
def test_consistency_has_the_loss_and_the_gradients(
    stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECT's schedule, target and weight at two of its stages."""
    known = recorded("consistency")
    rows = slice(int(known[f"stage{stage}.first"]), None)
    x, eps, t = (known[key][rows] for key in ("x", "eps", "t"))
    net = toy(known["weights"])
    monkeypatch.setattr(Generator, "consistency", lambda _, x, s, y: net(x, s, y))
    method = small("consistency", **{"optim.batch": len(x), "optim.images": 6 * len(x)})
    assert isinstance(method, Consistency)
    (loss,) = method.step(Known(x, eps, t), 0, (stage + 0.5) / method.config.stages)
    loss.value.backward()
    close(loss.value.detach(), known[f"stage{stage}.loss"].mean())
    same_gradients(net, known, f"stage{stage}")


def test_consistency_distillations_teacher_has_their_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastGen takes an Euler step where Heun's, of CD's paper, is taken here: with a teacher of one
    slope on the way both are one.
    """
    known = recorded("distilled")
    x, t, r, out = (known[key] for key in ("x", "t", "r", "out"))
    slope = (x - out) / (t - r)[:, None, None, None]
    seen: list[Tensor] = []

    def record(_: object, at: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        seen.append(at)
        return at

    class Straight(nn.Module):
        def forward(self, at: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
            return at - sigma[:, None, None, None] * slope

    monkeypatch.setattr(Generator, "consistency", record)
    method = small("consistency")
    assert isinstance(method, Consistency)
    method.teacher = Straight()
    method._target(x, torch.zeros_like(x), t, r, torch.zeros(6, dtype=torch.long))
    # x + t eps with no noise: the point itself.
    close(seen[0], out)


def test_mean_flow_has_the_loss_and_the_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Target by forward derivatives, rows with r = t, adaptive weight of power 0.75."""
    known = recorded("mean_flow")
    net = toy(known["weights"])
    monkeypatch.setattr(
        mean_flow, "average_velocity", lambda g, second, z, r, t, y: net.velocity(z, r, t)
    )
    method = small("mean_flow", power=0.75, offset=1e-3)
    assert isinstance(method, MeanFlow)
    monkeypatch.setattr(method, "_times", lambda *_: (known["r"], known["t"], 2))
    loss = next(iter(method.step(Known(known["x"], known["eps"], known["t"]), 0, 0.5)))
    loss.value.backward()
    close(loss.value.detach(), known["loss.loss"].mean())
    same_gradients(net, known, "loss")


def test_distribution_matching_moves_images_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """DMD2's pull and the discriminator's part, up to the 1e-6 that FastGen adds to a size."""
    known = recorded("dmd2")
    method = small("distribution_matching", adversarial_weight=3e-3)
    assert isinstance(method, DistributionMatching)
    method.teacher, method.critic = toy(known["teacher"]), toy(known["critic"])
    made = known["made"].clone().requires_grad_()
    labels = torch.zeros(len(made), dtype=torch.long)
    monkeypatch.setattr(method, "_made", lambda _: (made, labels))
    monkeypatch.setattr(method, "_sigma", lambda *_: (known["t"], known["t"]))
    loss = method._generator_loss(Known(made, known["eps"], known["t"]))
    loss.value.backward()
    close(loss.stats["loss_match"], known["vsd_loss"], 3e-5, 1e-9)
    close(loss.stats["loss_adv"], known["gan_loss"])
    assert made.grad is not None
    close(made.grad, known["gradient"], 3e-5, 1e-9)


@pytest.mark.parametrize(
    "name", [n for n in WEIGHTS if n not in ("reverse_kl", "skew_js")]
)  # what FastGen normalises
def test_the_weight_of_a_divergence_is_theirs_over_its_mean(name: str) -> None:
    """In single precision, which FastGen takes for it."""
    known = recorded("f_distill")
    ours = WEIGHTS[name](known["logits"], 0.5)
    close(ours / ours.mean(), known[name], rtol=1e-5, atol=3e-7)


def test_real_and_generated_are_told_apart_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logistic loss of the ratio network, and its gradients by the logits."""
    known = recorded("discriminator")
    method = small("class_ratio")
    logits = [known[key].clone().requires_grad_() for key in ("real", "made")]
    given = iter(logits)
    monkeypatch.setattr(method, "_logits", lambda *_: (next(given), torch.full((6,), 0.5)))
    loss = method._ratio_loss(GlobalDraw(CPU), 0, 0.5)
    loss.value.backward()
    close(loss.value.detach(), known["loss"])
    for found, key in zip(logits, ("of_real", "of_made"), strict=True):
        close(found.grad, known[key])
