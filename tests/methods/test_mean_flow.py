"""MeanFlow: an average velocity that is known, its derivative, and a law that it finds."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from pagoda.errors import PagodaError
from pagoda.methods.mean_flow import MeanFlow, average_velocity, target
from pagoda.training.draw import GlobalDraw
from pagoda.training.loop import run_step
from tests.methods.small import (
    CLASSES,
    CPU,
    Case,
    denoiser,
    flat,
    given,
    make,
    off_before_and_after,
    section,
    state,
)

CASE, DOUBLE, SPREAD, MEAN = Case("mean_flow", "generator"), torch.float64, 0.5, 0.3


def _wide(t: Tensor) -> Tensor:
    return t[:, None, None, None]


def _spread(t: Tensor) -> Tensor:
    """Standard deviation of z_t = (1 - t) x + t e, x ~ N(m, s^2)."""
    return (((1 - t) * SPREAD) ** 2 + t**2).sqrt()


def exact(z: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """Of N(m, s^2): a path keeps (z - (1 - t) m) / spread(t)."""
    kept = (z - _wide(1 - t) * MEAN) / _wide(_spread(t))
    back = _wide(1 - r) * MEAN + _wide(_spread(r)) * kept
    return (z - back) / _wide(t - r)


def velocity(z: Tensor, t: Tensor) -> Tensor:
    """E[e - x | z_t] = -m + d spread / dt (z - (1 - t) m) / spread."""
    slope = (t - (1 - t) * SPREAD**2) / _spread(t)
    return -MEAN + _wide(slope / _spread(t)) * (z - _wide(1 - t) * MEAN)


def _points(n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    z, both = torch.randn(n, 3, 8, 8, dtype=DOUBLE), torch.rand(2, n, dtype=DOUBLE) * 0.9 + 0.05
    return z, both.amin(0), both.amax(0)


def test_the_exact_average_velocity_is_its_own_target() -> None:
    z, r, t = _points()
    found = target(exact, z, r, t, velocity(z, t))
    torch.testing.assert_close(found, exact(z, r, t), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(target(exact, z, t * 0, t, velocity(z, t)), exact(z, t * 0, t))


def test_there_the_expected_gradient_is_zero() -> None:
    """The target is linear in v, whose mean at z is the velocity: v -+ d makes the mean exact."""
    z, r, t = _points()
    mean, d = velocity(z, t), torch.randn_like(z)

    def gradient(at: float) -> float:
        def u(*point: Tensor) -> Tensor:
            return exact(*point) * at

        scale = torch.tensor(at, dtype=DOUBLE, requires_grad=True)
        wanted = [target(u, z, r, t, v) for v in (mean + d, mean - d)]
        loss = sum((exact(z, r, t) * scale - w).square().mean() for w in wanted)
        assert isinstance(loss, Tensor)
        return float(torch.autograd.grad(loss, scale)[0])

    assert abs(gradient(1.0)) < 1e-10 and abs(gradient(1.1)) > 1e-2


def _awake() -> tuple[MeanFlow, Tensor]:
    """With an embedding of the second time that is not zero."""
    method = make(CASE, DOUBLE)
    assert isinstance(method, MeanFlow)
    torch.manual_seed(2)
    torch.nn.init.normal_(method.second.last.weight, std=0.3)  # type: ignore[union-attr,arg-type]
    return method, torch.arange(6) % CLASSES


def test_the_derivative_is_that_of_finite_differences() -> None:
    method, labels = _awake()
    z, r, t = _points()
    v, small = torch.randn_like(z), 1e-5

    def u(z: Tensor, r: Tensor, t: Tensor) -> Tensor:
        return average_velocity(method.generator, method.second, z, r, t, labels)

    with torch.no_grad():
        slope = (u(z + small * v, r, t + small) - u(z - small * v, r, t - small)) / (2 * small)
    found = (v - target(u, z, r, t, v)) / _wide(t - r)
    torch.testing.assert_close(found, slope, rtol=1e-5, atol=1e-5)


def test_attention_has_its_forward_derivative_by_one_kernel_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another kernel is told in one line, as is any operation without such a derivative."""
    z, r, t = _points()

    def u(z: Tensor, r: Tensor, t: Tensor) -> Tensor:
        q = z.flatten(2).contiguous()[:, None]
        made = torch.nn.functional.scaled_dot_product_attention(q, q, q)
        return made.reshape(z.shape)

    assert target(u, z, r, t, z).isfinite().all()

    def any_kernel(*_: Any) -> Any:
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.nn.attention, "sdpa_kernel", any_kernel)
    with pytest.raises(PagodaError, match=r"needs forward derivatives of the network: .*attention"):
        target(u, z, r, t, z)


def test_it_starts_as_the_teachers_velocity_for_every_r() -> None:
    method = make(CASE, DOUBLE)
    assert isinstance(method, MeanFlow)
    z, r, t = _points()
    labels, sigma = torch.arange(6) % CLASSES, t / (1 - t)
    denoised = denoiser().double()(z / _wide(1 - t), sigma, labels)
    for other in (r, t, 0 * t):
        found = average_velocity(method.generator, method.second, z, other, t, labels)
        torch.testing.assert_close(found, (z - denoised) / _wide(t), rtol=1e-6, atol=1e-7)


def test_a_step_from_the_largest_noise_is_the_generator() -> None:
    """z - t u(z, 0, t) = G + c_skip x, whatever the embedding of the second time has learned."""
    method, labels = _awake()
    generator, top = method.generator, method.generator.sigma_max
    noise = torch.randn(6, 3, 8, 8, dtype=DOUBLE)
    t = torch.full((6,), top / (1 + top), dtype=DOUBLE)
    z = top * noise / (1 + top)
    u = average_velocity(generator, method.second, z, 0 * t, t, labels)
    skipped = SPREAD**2 / (top**2 + SPREAD**2) * top * noise
    torch.testing.assert_close(z - _wide(t) * u, generator(noise, labels) + skipped)


def test_a_share_of_the_batch_has_one_time_and_both_players_learn() -> None:
    method = make(CASE, DOUBLE, **{"optim.batch": 8, "optim.images": 48, "equal": 0.75})
    assert isinstance(method, MeanFlow)
    torch.manual_seed(0)
    r, t, first = method._times(GlobalDraw(CPU), torch.zeros(8, dtype=DOUBLE))
    assert first == 6 and torch.equal(r[:6], t[:6]) and (r <= t).all() and (r > 0).all()
    top = method.high / (1 + method.high)
    assert (t <= top + 1e-7).all() and (t > top - 1e-7).any()
    before = state(method)
    for i in range(2):
        torch.manual_seed(i)
        run_step(method, GlobalDraw(CPU), i, 0.5)
    moved = {key.split(".network")[0] for key, value in state(method).items()
             if ".network." in key and not torch.equal(value, before[key])}  # fmt: skip
    assert moved == {"generator", "second_time"}


@pytest.mark.slow
def test_a_generator_that_is_off_moves_onto_the_data() -> None:
    goal, steps = 0.5, 60
    config = section(CASE, **{
        "optim.images": steps * 16, "optim.batch": 16, "optim.lr": 3e-3, "optim.warmup": 0.0,
        "ends": 0.5,
    })  # fmt: skip
    method = MeanFlow(config, dataclasses.replace(given(CASE), images=flat(goal)))
    before, after = off_before_and_after(method, goal, steps)
    assert before > 0.3 and after < before / 3


def test_what_it_cannot_train_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PagodaError, match=r"optim\.precision"):
        section(CASE, **{"optim.precision": "fp16"})
    monkeypatch.setattr("pagoda.training.sharding.wanted", lambda: True)
    with pytest.raises(PagodaError, match="PAGODA_SHARD=0"):
        MeanFlow(section(CASE), given(CASE))
