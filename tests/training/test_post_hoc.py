"""Averages by a power of time, and those made from their snapshots afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.tensors import save_tensors
from pagoda.training.ema import PowerAverages
from pagoda.training.post_hoc import blend, exponent, inner_products, synthesise, weights_beside

STEPS = 400


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2])
def test_the_exponent_gives_the_width(sigma: float) -> None:
    """Mean and variance of the density (g + 1) x^g on (0, 1], by quadrature."""
    gamma = exponent(sigma)
    x = (np.arange(200_000) + 0.5) / 200_000
    p = (gamma + 1) * x**gamma / 200_000
    assert p.sum() == pytest.approx(1, rel=1e-6)
    assert np.sqrt((p * (x - (p * x).sum()) ** 2).sum()) == pytest.approx(sigma, rel=1e-6)


def test_inner_products_are_integrals() -> None:
    times, gammas = np.array([0.3, 0.7, 1.0]), np.array([6.94, 16.97, 2.0])
    x = (np.arange(400_000) + 0.5) / 400_000
    density = [(g + 1) * x**g / t ** (g + 1) * (x < t) for t, g in zip(times, gammas, strict=True)]
    expected = np.array([[(a * b).mean() for b in density] for a in density])
    np.testing.assert_allclose(inner_products(times, gammas, times, gammas), expected, rtol=1e-4)


def weights(t: int) -> float:
    """A path of weights over training, neither smooth nor monotone."""
    return float(np.sin(t / 17) + 0.01 * t + (t % 7) * 0.1)


def track(module: nn.Module, averages: PowerAverages) -> None:
    for step in range(STEPS):
        nn.init.constant_(module.weight, weights(step + 1))  # type: ignore[arg-type]
        averages.update(step)


def test_an_average_is_the_integral_of_its_density() -> None:
    """Weights are constant during a step: closed form (k^(g+1) - (k-1)^(g+1)) / t^(g+1)."""
    module = nn.Linear(1, 1, bias=False).double()
    averages = PowerAverages(module, [0.05, 0.15], STEPS, 1)
    track(module, averages)
    k = np.arange(STEPS + 1) / STEPS
    path = np.array([weights(t) for t in range(1, STEPS + 1)])
    for sigma, model in averages.models.items():
        expected = np.diff(k ** (exponent(sigma) + 1)) @ path
        assert next(model.parameters()).item() == pytest.approx(expected, rel=1e-10)


def artifact(folder: Path, profiles: list[float], snapshots: int) -> Path:
    module = nn.Linear(1, 1, bias=False).double()
    averages = PowerAverages(module, profiles, STEPS, snapshots)
    averages.folder = folder / "snapshots"
    track(module, averages)
    with artifacts.create(folder / "teacher", "teacher", config={"name": "x"}) as out:
        artifacts.save_model(out, module, {"images_seen": 1})
        for file in (folder / "snapshots").iterdir():
            file.rename(out / file.name)
    return folder / "teacher"


def test_any_average_can_be_made_afterwards(tmp_path: Path) -> None:
    """Against the same profile tracked while training; those that were tracked come out exactly."""
    source = artifact(tmp_path, [0.05, 0.1], 16)
    assert len(list(source.glob("ema-*.safetensors"))) == 32
    wanted = [0.05, 0.06, 0.075, 0.09, 0.1]
    module = nn.Linear(1, 1, bias=False).double()
    averages = PowerAverages(module, wanted, STEPS, 1)
    track(module, averages)
    direct = {s: next(m.parameters()).item() for s, m in averages.models.items()}
    spread = abs(direct[0.05] - direct[0.1])
    for sigma in wanted:
        synthesise(source, sigma, tmp_path / "made")
        made = artifacts.open_artifact(tmp_path / "made", "teacher")
        error = abs(made.weights()["weight"].item() - direct[sigma])
        assert error < (1e-6 if sigma in (0.05, 0.1) else 0.02) * spread, sigma
        assert made.card()["ema"]["sigma_rel"] == sigma and made.card()["images_seen"] == 1


def test_an_average_keeps_what_lies_beside_the_model(tmp_path: Path) -> None:
    """An autoencoder or captions, without which it cannot be used, and what its run tells of it."""
    source = artifact(tmp_path, [0.05, 0.1], 2)
    with artifacts.create(tmp_path / "codes", "teacher", config={}) as out:
        for file in source.iterdir():
            if file.name != artifacts.MANIFEST:
                shutil.copyfile(file, out / file.name)
        save_tensors(out / "autoencoder.safetensors", {"w": torch.ones(2)})
    synthesise(tmp_path / "codes", 0.07, tmp_path / "made", {"classes": ["a", "b"]})
    made = artifacts.open_artifact(tmp_path / "made", "teacher")
    assert weights_beside(made) == ["autoencoder.safetensors"]
    assert torch.equal(made.weights("autoencoder.safetensors")["w"], torch.ones(2))
    assert made.card()["classes"] == ["a", "b"] and made.card()["images_seen"] == 1


def test_factors_are_least_squares() -> None:
    """No other combination that sums to one is nearer, in the norm of densities."""
    times = np.tile(np.arange(1, 9) / 8, 2)
    gammas = np.repeat([exponent(0.05), exponent(0.1)], 8)
    best, gamma = blend(times, gammas, 1.0, exponent(0.07)), exponent(0.07)
    assert best.sum() == pytest.approx(1)

    def distance(x: np.ndarray) -> float:
        gram = inner_products(times, gammas, times, gammas)
        cross = inner_products(times, gammas, np.ones(1), np.array([gamma]))[:, 0]
        return float(x @ gram @ x - 2 * x @ cross)

    rng = np.random.default_rng(0)
    for _ in range(20):
        step = rng.standard_normal(16) * 0.01
        assert distance(best) <= distance(best + step - step.mean())


def test_trouble_is_one_line(tmp_path: Path) -> None:
    source = artifact(tmp_path, [0.05, 0.1], 2)
    with pytest.raises(PagodaError, match=r"sigma_rel = 0.2; .* span 0.05 to 0.1"):
        synthesise(source, 0.2, tmp_path / "made")
    with pytest.raises(PagodaError, match="no teacher or generator artifact"):
        synthesise(tmp_path, 0.07, tmp_path / "made")
    with artifacts.create(tmp_path / "bare", "teacher", config={}) as out:
        artifacts.save_model(out, nn.Linear(1, 1), {})
    with pytest.raises(PagodaError, match=r"has no snapshots; train with optim.ema_profiles"):
        synthesise(tmp_path / "bare", 0.07, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "thesis.txt").write_text("years")
    with pytest.raises(PagodaError, match=r"made is no teacher artifact, so nothing is written"):
        synthesise(source, 0.07, tmp_path / "made")
    assert [f.name for f in (tmp_path / "made").iterdir()] == ["thesis.txt"]


def test_frozen_weights_are_not_averaged(tmp_path: Path) -> None:
    module = nn.Linear(2, 2).requires_grad_(False)
    module.bias.requires_grad_(True)
    averages = PowerAverages(module, [0.1], 2, 1)
    averages.folder = tmp_path
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(3.0)
    averages.update(0)
    (model,) = averages.models.values()
    assert isinstance(model, nn.Linear) and (model.bias == 3).all() and (model.weight != 3).all()
    assert not list(tmp_path.iterdir())
    averages.update(1)
    (file,) = tmp_path.iterdir()
    assert set(safetensors.torch.load_file(file)) == {"weight", "bias"}
